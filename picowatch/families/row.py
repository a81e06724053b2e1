"""What a family of models is: its row, and what rows of several makers have in common.

Data only. Class names are those of diffusers and transformers. Names of tensors are those of the
models' authors and of diffusers (loaders/single_file_utils.py), also as in ComfyUI
(comfy/model_detection.py) and InvokeAI (model_manager/configs). Steps and guidance are those of the
models' own cards and programs; docs/models.md names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Classes = tuple[str, ...]
# Layers in LoRA files, as in diffusers' converters (loaders/single_file_utils.py and
# lora_conversion_utils.py), with "_" for the dots.
# By the names of blocks, the authors' and diffusers', "" for layers outside: "a=b" for an author's
# layer and diffusers', "a=b,c" if it holds the rows of several in turn, "a" for both.
Blocks = Mapping[tuple[str, str], str]

OUTSIDE = ("", "")
ATTENTION = "attn_to_q attn_to_k attn_to_v attn_to_out_0"
ADDED = "attn_add_q_proj attn_add_k_proj attn_add_v_proj attn_to_add_out"
QKV, ADDED_QKV = (",".join(names.split()[:3]) for names in (ATTENTION, ADDED))
# "qkv_lora1" and such are XLabs' names.
DOUBLE = f"""
    img_attn_qkv={QKV} txt_attn_qkv={ADDED_QKV} img_attn_proj=attn_to_out_0
    txt_attn_proj=attn_to_add_out processor_qkv_lora1={QKV} processor_qkv_lora2={ADDED_QKV}
    processor_proj_lora1=attn_to_out_0 processor_proj_lora2=attn_to_add_out
"""
AROUND_BLOCKS = "img_in=x_embedder txt_in=context_embedder final_layer_linear=proj_out"

# By what pipelines are guided: fields of recipes by the arguments, "cfg_scale - 1" for that number.
Guidance = Mapping[str, str]
CFG_SCALE: Guidance = {"guidance_scale": "cfg_scale"}
CFG_SCALE_LESS_ONE: Guidance = {"guidance_scale": "cfg_scale - 1"}
TRUE_CFG_SCALE: Guidance = {"true_cfg_scale": "cfg_scale"}
GUIDANCE: Guidance = {"guidance_scale": "guidance"}  # an input of the model
GUIDER: Guidance = {"guider": ""}  # an object with cfg_scale, cfg_rescale, cfg_start and cfg_end

EULER = "Euler"
DPM = "DPM++ 2M"
UNCONDITIONAL = "unconditional_transformer"  # the part that draws without a prompt
FLOW_SAMPLERS = (EULER, DPM, "UniPC")
DEMO = "demo"  # the name of the embedded model, and its family


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipelines:
    """The classes of diffusers' pipelines that draw from text, a start image, a mask, references.

    "" stands for none. A UNet's pipeline from text draws everything, from the engine's latents.
    """

    text: str = ""
    image: str = ""
    mask: str = ""
    edit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """How a variant uses reference pictures: to edit them, or to take something from them.

    `most`: how many at once; `required`: it only edits. Pictures are rendered with sides that are
    multiples of `multiple` and with at most `area` pixels; `stretched`: with exactly that area.
    `alone`: its pipeline takes no size, but the first picture's proportions, and rounds sides up.
    `alpha`: it reads and writes transparency.
    """

    most: int
    required: bool = False
    multiple: int = 16
    area: int = 1024 * 1024
    stretched: bool = False
    alone: bool = False
    alpha: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant of a family.

    `defaults` are the values of fields that a recipe does not set, `lacks` the further fields that
    must stay off, with the reason. `guided`: it was trained for a cfg_scale above 1. `fills`: it
    only redraws the part of a picture that a mask selects. `references`: how it uses those of a
    recipe, None if it takes none. Sides are at most `largest`; start images have at most
    `most_start_pixels`, if the pipeline would reduce larger images. `hub` is a folder to download.
    `pipelines`, `samplers` and `tokens`, the limit of texts, override the family's; `options` are
    for creating them. `encoders` are as in `Family`. `configs` is the variant whose configs in the
    package it shares.

    `sign` recognises it by a file's header, as `Header.shows` says; "" shows in all. `config`
    recognises it in a folder: by settings of the index, or "transformer/" and a setting of that
    config. With `like`, a file's header looks like that variant's, and only the `word` in its name
    tells them apart; the same holds for folders, unless there is a `config`.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    guided: bool = True
    fills: bool = False
    references: References | None = None
    largest: int = 0
    most_start_pixels: int = 0
    hub: str = ""
    pipelines: Pipelines | None = None
    samplers: tuple[str, ...] = ()
    tokens: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    configs: str = ""
    sign: str = ""
    config: Mapping[str, Any] | None = None
    like: str | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a family's texts are read.

    `towers` are a UNet's text encoders, with what differs of each (the engine's TextTower); with
    `zeros` an empty negative prompt is zeros, not the encoded "".

    The others are for transformers. `encode` is the way to the embeddings of a prompt: by the
    pipeline's `encode_prompt`, which takes `options`, and whose results have the names in
    `results`, "" to skip; or by a way of the engine's texts.py. With `answers` its pipelines take
    no embeddings: their own `encode_prompt` has to return them. `reads` are tokenizers, of which
    the first that a checkpoint has counts the tokens by `count`, and their limits: 0 is that in
    the tokenizer's configuration; without tokenizers there is no limit. `preamble` is put before
    prompts, but not before negative prompts; `empty` replaces an empty prompt.

    With references, the encoder `sees` them; with half their sides if it `halves` them.
    """

    towers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    zeros: bool = False
    encode: Literal["pipeline", "blocks", "ernie", "lumina2", "ideogram4", "later"] = "pipeline"
    options: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ("prompt_embeds",)
    reads: Mapping[str, int] = field(default_factory=lambda: {"tokenizer": 512})
    answers: bool = False
    count: Literal["tokenizer", "processor", "flux2_dev", "longcat"] = "tokenizer"
    preamble: str = ""
    empty: str = ""
    sees: bool = False
    halves: bool = False


ALONE = {"do_classifier_free_guidance": False}  # a negative prompt is encoded by itself

NO_GUIDANCE = {"guidance": "guidance is an input of FLUX.1 dev; use cfg_scale"}
FLOW_LACKS = {
    "control": "ControlNets are supported for Stable Diffusion 1.x, 2.x and XL",
    "clip_skip": "its text encoders are read where it was trained to",
    "cfg_rescale": "it is for Stable Diffusion with a high cfg_scale",
    "cfg_start": "its pipeline guides all steps",
    "cfg_end": "its pipeline guides all steps",
    "prediction": "it predicts the flow from noise to picture",
    "variation_strength": "its noise is drawn by its pipeline",
    "ensd": "its noise is drawn by its pipeline",
    "tiling": "its transformer does not draw with convolutions",
}
LACKS = NO_GUIDANCE | FLOW_LACKS


def without(lacks: Mapping[str, str], *fields: str) -> dict[str, str]:
    """Return what a family lacks, except these fields."""
    return {name: why for name, why in lacks.items() if name not in fields}


NO_CACHE = {"step_cache": "cache-dit cannot reuse the steps of its transformer"}
NO_PICTURES = dict.fromkeys(("image", "mask", "hires"), "it cannot start from a picture")
FROM_TEXT = LACKS | NO_PICTURES
BY_GUIDANCE = {"cfg_scale": "it follows the prompt by guidance alone"}
NO_NEGATIVE = {"negative_prompt": "its pipeline reads none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of checkpoints; the defaults are those of families with a transformer.

    `kind`: "unet" is a Stable Diffusion with a UNet, whose single files are whole checkpoints;
    "flow" is drawn by a pipeline of diffusers with a transformer. "general" rows are made from the
    signatures of such pipelines (general.py), which encode prompts themselves.

    Drawing: `inputs` are further arguments of each call of a pipeline. Recipes may name the
    `samplers`: the first is the folder's own scheduler. Sides must be multiples of `size_multiple`.
    `native_size` is the side of the square that it was trained for, 0 where the configs tell it.
    `lacks` maps the fields that must stay off to the reason. `channels_last`: in a patch of
    latents, the channels of a place are together. Its pipeline reads what some layers of the text
    encoder give, so only `encoder_layers` are loaded, 0 for all: one more than the last that is
    read, because transformers normalises what the last one gives. `drawing` counts the numbers that
    its transformer or UNet has in memory at once for each pixel, at most, as `DECODING` does.

    Of `variants`, the first that matches a header, a folder or a name counts.

    Folders: `more_folders` are classes in model_index.json besides the pipelines' own. `parts` are
    the classes that each part may have, () for all of diffusers' and transformers': the engine
    loads no others. A folder may lack the `optional` parts. `settings` of the index, if present,
    must have these values.

    Files: `signs` are prefixes of tensors' names, any of which the family's transformer has; a
    variant's sign must match, too. Its transformer may be a file of its own, which is completed by
    `encoders` (by part), and a VAE of a variant in `vaes`. With `vae_assets` no folder is
    needed, because the package has the other configs, and those of that family's VAE; `vae_file`
    says which VAE to get. Variants that are `alike` may use each other's parts.

    UNets: `text_width` is the width of the text embeddings that they read, `text_layers` the number
    of layers of the text encoder that clip_skip chooses from, and `text_prefixes` are prefixes of a
    text encoder's tensors in single files.

    LoRAs: with `loras`, its pipelines load them. `lora_blocks` say which layers of diffusers'
    transformer their layers stand for. Other families may have the same names: a layer has one of
    `lora_sides`, as inputs or as outputs. `lora_marks` are parts of trainers' metadata. `lightning`
    are changes of the scheduler's config for LoRAs with that word in their names, which were
    distilled for a few steps of such a schedule.
    """

    key: str
    name: str
    kind: Literal["unet", "flow", "general"] = "flow"
    pipelines: Pipelines = Pipelines()
    guidance: Guidance = field(default_factory=lambda: CFG_SCALE)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    size_multiple: int = 16
    native_size: int = 1024
    samplers: tuple[str, ...] = FLOW_SAMPLERS
    lacks: Mapping[str, str] = field(default_factory=lambda: FROM_TEXT)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    hub: str = ""
    channels_last: bool = False
    texts: Reading = Reading()
    encoder_layers: int = 0
    drawing: int = 300
    more_folders: Classes = ()
    parts: Mapping[str, Classes] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    signs: tuple[str, ...] = ()
    encoders: Mapping[str, str] = field(default_factory=dict)
    vaes: tuple[str, ...] = ()
    vae_assets: str = ""
    vae_file: str = ""
    alike: bool = False
    text_width: int = 0
    text_layers: int = 0
    text_prefixes: tuple[str, ...] = ()
    loras: bool = True
    lora_blocks: Blocks = field(default_factory=dict)
    lora_sides: tuple[int, ...] = ()
    lora_marks: tuple[str, ...] = ()
    lightning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modular(self) -> bool:
        """Whether diffusers draws it by a modular pipeline, whose parts the index names."""
        return self.pipelines.text.endswith("ModularPipeline")

    def variant(self, name: str) -> Variant:
        """Return the variant of this name, or that for all others."""
        return self.variants.get(name) or self.variants.get("") or Variant()

    @property
    def preview(self) -> str:
        """The name of its latents' colours: its VAE's kind, where files tell the kinds apart."""
        return self.vaes[-1] if self.kind == "flow" else self.key

    @property
    def folders(self) -> set[str]:
        """The classes in model_index.json that belong to this family."""
        own = (variant.pipelines.text for variant in self.variants.values() if variant.pipelines)
        return {self.pipelines.text, *self.more_folders, *own}


def all_three(name: str) -> Pipelines:
    """Return the pipelines of a model that diffusers draws from text, pictures and masks."""
    return Pipelines(
        text=f"{name}Pipeline", image=f"{name}Img2ImgPipeline", mask=f"{name}InpaintPipeline"
    )


def flow_variant(steps: int, cfg_scale: float = 1, guidance: float = 0, **more: Any) -> Variant:
    """Return a variant of a flow family with its steps and guidance; guidance 0 means off."""
    start: Mapping[str, Any] = more.pop("starts", {})
    guided = {"cfg_scale": float(cfg_scale), "guidance": float(guidance)}
    return Variant(defaults={"steps": steps, **guided, **start}, **more)


NOISE = {"denoising_strength": 1.0}  # for models that begin with noise beside a start image, too
LOOKS_AT_TEN = References(most=10)

ONLY_EDITS = {
    "image": "this checkpoint edits pictures that are named in references",
    "hires": "its pipeline has no second pass",
}

KL, KL_FLUX2, KL_QWEN = "AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLQwenImage"
KL_QWEN21 = "AutoencoderKLQwenImage21"
# The numbers that VAEs have in memory at once for each pixel when they decode, at most, as counted
# on torch's meta device (tests/engine/test_memory_table.py). Others are taken for AutoencoderKL.
DECODING = {KL: 770, KL_FLUX2: 770, KL_QWEN: 1730, KL_QWEN21: 3220}
_FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
# Schedulers with the same settings for noise; the engine creates its own from any config of these.
_NOISE_SCHEDULERS = (
    *("EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler", "DDPMScheduler"),
    *("EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler"),
    *("LCMScheduler", "TCDScheduler", "DPMSolverSDEScheduler"),
    *("IPNDMScheduler", "SASolverScheduler"),
)
_CLIP_WORDS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_WORDS = ("T5Tokenizer", "T5TokenizerFast")
QWEN_WORDS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GEMMA_WORDS = ("GemmaTokenizer", "GemmaTokenizerFast")
ANY_WORDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
CLIP = ("CLIPTextModel", _CLIP_WORDS)
PROJECTED = ("CLIPTextModelWithProjection", _CLIP_WORDS)
T5 = ("T5EncoderModel", T5_WORDS)
QWEN3_ANY = (("Qwen3Model", "Qwen3ForCausalLM"), QWEN_WORDS)
QWEN_VL = ("Qwen2_5_VLForConditionalGeneration", QWEN_WORDS)
GEMMA2 = ("Gemma2Model", _GEMMA_WORDS)


def parts_of(
    transformer: str | Classes,
    vae: str,
    *texts: tuple[str | Classes, Classes],
    scheduler: str | Classes = _FLOW_EULER,
    denoiser: str = "transformer",
) -> Mapping[str, Classes]:
    """Return the classes of a pipeline's parts; each text encoder is given with its tokenizer."""
    found: dict[str, str | Classes] = {"scheduler": scheduler, denoiser: transformer, "vae": vae}
    for ending, (encoder, tokenizer) in zip(("", "_2", "_3"), texts, strict=False):
        found |= {f"text_encoder{ending}": encoder, f"tokenizer{ending}": tokenizer}
    return {part: (names,) if isinstance(names, str) else names for part, names in found.items()}


def unet_parts(*texts: tuple[str | Classes, Classes]) -> Mapping[str, Classes]:
    unet = "UNet2DConditionModel"
    return parts_of(unet, KL, *texts, scheduler=_NOISE_SCHEDULERS, denoiser="unet")


# Without it, diffusers would log at each start that there is no safety checker.
NO_CHECKER = {"requires_safety_checker": False}

# The kinds of VAEs, by their names in catalog/encoders.py.
SD_VAE, SIXTEEN = "", "16 latent channels"
FLUX_VAE, SD3_VAE = "FLUX.1", "Stable Diffusion 3.x"
FLUX_VAES = (SIXTEEN, FLUX_VAE)
QWEN_VAE, QWEN21_VAE, FLUX2_VAE = "Qwen-Image", "Qwen-Image 2.1", "FLUX.2"
FLUX_VAE_FILE = "a VAE with 16 latent channels (such as ae.safetensors)"
