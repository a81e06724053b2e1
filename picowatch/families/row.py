"""What a family of models is: its row, and what rows of several makers have in common.

Data only. Class names are those of diffusers and transformers. Names of tensors are those of the
models' authors and of diffusers (loaders/single_file_utils.py), also as in ComfyUI
(comfy/model_detection.py) and InvokeAI (model_manager/configs). Steps and guidance are those of the
models' own cards and programs; docs/models.md names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
DENOISERS = ("unet", "transformer", UNCONDITIONAL)
FLOW_SAMPLERS = (EULER, DPM, "UniPC")
DEMO = "demo"  # the name of the embedded model, and its family


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipelines:
    """The classes of diffusers' pipelines for each kind of drawing, "" for none."""

    text: str = ""  # a UNet's draws everything, from the engine's latents
    image: str = ""
    mask: str = ""
    edit: str = ""  # from references


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """How a variant uses reference pictures: to edit them, or to take something from them."""

    most: int  # at once
    required: bool = False  # it only edits
    multiple: int = 16  # of the sides in which pictures are rendered
    area: int = 1024 * 1024  # the most pixels in which they are
    stretched: bool = False  # they have exactly that area
    alone: bool = False  # its pipeline takes no size, but the first's proportions; rounds sides up
    alpha: bool = False  # it reads and writes transparency


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of fields that a recipe lacks
    lacks: Mapping[str, str] = field(default_factory=dict)  # further fields that must stay off: why
    guided: bool = True  # it was trained for a cfg_scale above 1
    fills: bool = False  # it only redraws the part of a picture that a mask selects
    references: References | None = None  # None if it takes none
    largest: int = 0  # side
    most_start_pixels: int = 0  # if the pipeline would reduce larger start images
    hub: str = ""  # a folder to download
    # These override the family's; `tokens` is the limit of texts.
    pipelines: Pipelines | None = None
    samplers: tuple[str, ...] = ()
    tokens: int = 0
    encoders: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # for creating its pipelines
    configs: str = ""  # the variant whose configs in the package it shares
    sign: str = ""  # a file's header shows it, besides the family's signs: `Header.shows`
    # In a folder: settings of the index, or "transformer/" and a setting of that config.
    config: Mapping[str, Any] | None = None
    # A file's header looks like this variant's, and only the `word` in its name tells them apart;
    # the same holds for folders, unless there is a `config`.
    like: str | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a family's texts are read: of a UNet the first two, the others are for transformers."""

    towers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the engine's TextTower
    zeros: bool = False  # an empty negative prompt is zeros, not the encoded ""
    # The way to the embeddings of a prompt: by the pipeline's `encode_prompt`, which takes
    # `options`, and whose results have these names, "" to skip; or by a way of the engine.
    encode: Literal["pipeline", "blocks", "ernie", "lumina2", "ideogram4", "later"] = "pipeline"
    options: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ("prompt_embeds",)
    answers: bool = False  # its pipelines take no embeddings: their `encode_prompt` returns them
    # Tokenizers and their limits, 0 for that in their configuration: the first that a checkpoint
    # has counts the tokens by `count`. Without tokenizers there is no limit.
    reads: Mapping[str, int] = field(default_factory=lambda: {"tokenizer": 512})
    count: Literal["tokenizer", "processor", "flux2_dev", "longcat"] = "tokenizer"
    preamble: str = ""  # before prompts, but not before negative prompts
    empty: str = ""  # in the place of an empty prompt
    sees: bool = False  # the encoder sees references
    halves: bool = False  # … with half their sides


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
# Fields that a pipeline with a guider has, and what it lacks.
OF_GUIDER = ("cfg_rescale", "cfg_start", "cfg_end")
GUIDER_LACKS = {name: why for name, why in LACKS.items() if name not in OF_GUIDER}
NO_CACHE = {"step_cache": "cache-dit cannot reuse the steps of its transformer"}
NO_PICTURES = dict.fromkeys(("image", "mask", "hires"), "it cannot start from a picture")
FROM_TEXT = LACKS | NO_PICTURES
BY_GUIDANCE = {"cfg_scale": "it follows the prompt by guidance alone"}
NO_NEGATIVE = {"negative_prompt": "its pipeline reads none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of checkpoints; the defaults are those of families with a transformer."""

    key: str
    name: str
    # "unet" is a Stable Diffusion with a UNet, whose single files are whole checkpoints; "flow" is
    # drawn by a pipeline of diffusers with a transformer. "general" rows are made from the
    # signatures of such pipelines (general.py), which encode prompts themselves.
    kind: Literal["unet", "flow", "general"] = "flow"
    hub: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)  # the first that matches counts

    # Drawing.
    pipelines: Pipelines = Pipelines()
    guidance: Guidance = field(default_factory=lambda: CFG_SCALE)
    inputs: Mapping[str, Any] = field(default_factory=dict)  # of each call of a pipeline
    size_multiple: int = 16  # of sides
    native_size: int = 1024  # the side of the square of its training, 0 where configs tell it
    samplers: tuple[str, ...] = FLOW_SAMPLERS  # the first is the folder's own scheduler
    lacks: Mapping[str, str] = field(default_factory=lambda: FROM_TEXT)  # fields to stay off: why
    channels_last: bool = False  # in a patch of latents, the channels of a place are together
    texts: Reading = Reading()
    # How many layers of the text encoder are loaded, 0 for all: one more than its pipeline reads,
    # because transformers normalises what the last one gives.
    encoder_layers: int = 0
    # At most so many numbers are in memory at once for each pixel of a step; see `DECODING`.
    drawing: int = 300

    # Folders.
    more_folders: Classes = ()  # classes in model_index.json besides the pipelines' own
    # The classes that each part may have, () for all of diffusers' and transformers': the engine
    # loads no others.
    parts: Mapping[str, Classes] = field(default_factory=dict)
    optional: tuple[str, ...] = ()  # parts that a folder may lack
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the index, if it has any

    # Files.
    signs: tuple[str, ...] = ()  # prefixes of tensors' names: its transformer has one of them
    # What completes a transformer's file, by part, and the kinds of VAEs that do.
    encoders: Mapping[str, str] = field(default_factory=dict)
    vaes: tuple[str, ...] = ()
    # No folder is needed: the package has the other configs, and those of this family's VAE.
    vae_assets: str = ""
    vae_file: str = ""  # which VAE to get
    alike: bool = False  # variants may use each other's parts

    # UNets.
    text_width: int = 0  # of the embeddings that they read
    text_layers: int = 0  # of the text encoder, from which clip_skip chooses
    text_prefixes: tuple[str, ...] = ()  # of a text encoder's tensors in single files

    # LoRAs.
    loras: bool = True  # its pipelines load them
    lora_blocks: Blocks = field(default_factory=dict)  # for which of diffusers' layers theirs stand
    # Other families may have the same names: a layer has one of these, as inputs or as outputs.
    lora_sides: tuple[int, ...] = ()
    lora_marks: tuple[str, ...] = ()  # parts of trainers' metadata
    # Changes of the scheduler's config for LoRAs with that word in their names, which were
    # distilled for a few steps of such a schedule.
    lightning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modular(self) -> bool:
        """Whether diffusers draws it by a modular pipeline, whose parts the index names."""
        return self.pipelines.text.endswith("ModularPipeline")

    def variant(self, name: str) -> Variant:
        """Return the variant of this name, or that for all others, with what the family says."""
        own = self.variants.get(name) or self.variants.get("") or Variant()
        names = ("hub", "pipelines", "samplers", "encoders")
        said = {each: getattr(own, each) or getattr(self, each) for each in names}
        return replace(own, lacks={**self.lacks, **own.lacks}, **said)

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
ANY_WORDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
CLIP = ("CLIPTextModel", _CLIP_WORDS)
PROJECTED = ("CLIPTextModelWithProjection", _CLIP_WORDS)
T5 = ("T5EncoderModel", T5_WORDS)
QWEN3_ANY = (("Qwen3Model", "Qwen3ForCausalLM"), QWEN_WORDS)
QWEN_VL = ("Qwen2_5_VLForConditionalGeneration", QWEN_WORDS)
GEMMA2 = ("Gemma2Model", ("GemmaTokenizer", "GemmaTokenizerFast"))


def parts_of(
    transformer: str | Classes,
    vae: str,
    *texts: tuple[str | Classes, Classes],
    scheduler: str | Classes = "FlowMatchEulerDiscreteScheduler",
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
