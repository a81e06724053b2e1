"""The families of models: one row each, read by the recipe, the catalog and the engine.

Data only. Class names are those of diffusers and transformers. Names of tensors are those of the
models' authors and of diffusers (loaders/single_file_utils.py), also as in ComfyUI
(comfy/model_detection.py) and InvokeAI (model_manager/configs). Steps and guidance are those of the
models' own cards and programs; docs/models.md names them.

To add a family that diffusers draws: a row here, a row in engine/model/texts.py unless it is
`short`, a tiny folder in tests/engine/tiny_flows.py, and a paragraph in docs/models.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Classes = tuple[str, ...]
Guidance = Literal[
    "cfg_scale",  # guidance_scale is the recipe's cfg_scale
    "cfg_scale_less_one",  # guidance_scale is cfg_scale - 1
    "true_cfg_scale",  # true_cfg_scale is the recipe's cfg_scale
    "guidance",  # guidance_scale is the recipe's guidance, an input of the model
    "guidance_and_true_cfg_scale",  # both of the above
]

EULER = "Euler"
DPM = "DPM++ 2M"
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
class Sign:
    """A condition on a header: tensors with one of the prefixes in `has`, and none in `lacks`.

    With `width`, a tensor in `of` has inputs of that width; with `positions`, the table of
    positions is that long.
    """

    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    width: int = 0
    positions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """How a variant uses reference pictures: to edit them, or to take something from them.

    `most`: how many at once; `required`: it only edits. Pictures are rendered with sides that are
    multiples of `multiple` and with at most `area` pixels; `stretched`: with exactly that area.
    `alpha`: it reads and writes transparency.
    """

    most: int
    required: bool = False
    multiple: int = 16
    area: int = 1024 * 1024
    stretched: bool = False
    alpha: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant of a family.

    `defaults` are the values of fields that a recipe does not set, `lacks` the further fields that
    must stay off, with the reason. `guided`: it was trained for a cfg_scale above 1. `fills`: it
    only redraws the part of a picture that a mask selects. `references`: how it uses those of a
    recipe, None if it takes none. Sides are at most `largest`; start images have at most
    `most_start_pixels`, if the pipeline would reduce larger ones. `hub` is a folder to download.
    `pipelines`, `guidance_as` and `tokens`, the limit of texts, override the family's, `options`
    create the pipeline. `encoders` are as in `Family`. `configs` is the variant whose configs in
    the package it shares.

    `sign` recognises it by a file's header. `config` recognises it in a folder: by settings of the
    index, or "transformer/" and a setting of that config. With `like`, a file's header looks like
    that variant's, and only the `word` in its name tells them apart; the same holds for folders,
    unless there is a `config`.
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
    guidance_as: Guidance | None = None
    tokens: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    configs: str = ""
    sign: Sign | None = None
    config: Mapping[str, Any] | None = None
    like: str | None = None
    word: str = ""


_NO_GUIDANCE = {"guidance": "guidance is an input of FLUX.1 dev; use cfg_scale"}
_FLOW_LACKS = {
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
_LACKS = _NO_GUIDANCE | _FLOW_LACKS
_NO_CACHE = {"step_cache": "cache-dit cannot reuse the steps of its transformer"}
_NO_PICTURES = dict.fromkeys(("image", "mask", "hires"), "it cannot start from a picture")
_FROM_TEXT = _LACKS | _NO_PICTURES
_BY_GUIDANCE = {"cfg_scale": "it follows the prompt by guidance alone"}
_NO_NEGATIVE = {"negative_prompt": "its pipeline reads none"}
_TWO_STEPS = {"step_cache": "it draws in two steps"}
_PREDICTS = {"prediction": "its folder says what it predicts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of checkpoints; the defaults are those of one with a transformer.

    `kind`: "unet" is a Stable Diffusion with a UNet, whose single files are whole checkpoints;
    "flow" is drawn by a pipeline of diffusers with a transformer.
    `short` families have no code of their own: the pipeline encodes the prompt itself.

    Drawing: `inputs` are further arguments of each call of a pipeline, and `inputs_at_other_steps`
    those of calls with other steps than the variant's default. Recipes may name the `samplers`: the
    first is the folder's own scheduler. Sides must be multiples of `size_multiple`. `native_size`
    is the side of the square that it was trained for; with `latent_pixels`, the transformer's
    config has it in latents of so many pixels. `lacks` maps the fields that must stay off to the
    reason. `preview` names the latents' colours.

    Of `variants`, the first one that matches a header, a folder or a name counts.

    Folders: `more_folders` are classes in model_index.json besides the pipelines' own. `parts` are
    the classes that each part may have: the engine loads no others. A folder may lack the
    `optional` parts. `settings` of the index, if present, must have these values.

    Files: `signs` are prefixes of tensors' names, one of which the family's transformer has; a
    variant's sign must match, too. Unless the family is short, its transformer may be a file of its
    own, which is completed by `encoders` (by part), and a VAE of one of the variants in `vaes`.
    With `vae_assets` no folder is needed, because the package has the other configs, and those of
    that family's VAE; `vae_file` says which VAE to get.
    Variants that are `alike` may use one another's parts.

    UNets: `text_width` is the width of the text embeddings that they read, `text_layers` the number
    of layers of the text encoder that clip_skip chooses from, and `text_prefixes` are prefixes of a
    text encoder's tensors in single files.

    LoRAs: with `loras`, its pipelines load them. `lora_layers` recognise them by names of tensors:
    regular expressions, with "_" for ".", and widths of the layer's inputs, or outputs for the
    upper half; no widths match all. `lora_marks` are parts of trainers' metadata. `lightning` are
    changes of the scheduler's config for LoRAs with that word in their names, which were distilled
    for a few steps of such a schedule.
    """

    key: str
    name: str
    kind: Literal["unet", "flow"] = "flow"
    short: bool = False
    pipelines: Pipelines = Pipelines()
    guidance: Guidance = "cfg_scale"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    inputs_at_other_steps: Mapping[str, Any] = field(default_factory=dict)
    size_multiple: int = 16
    native_size: int = 1024
    latent_pixels: int = 0
    samplers: tuple[str, ...] = FLOW_SAMPLERS
    lacks: Mapping[str, str] = field(default_factory=lambda: _FROM_TEXT)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    hub: str = ""
    preview: str = ""
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
    lora_layers: tuple[tuple[str, tuple[int, ...]], ...] = ()
    lora_marks: tuple[str, ...] = ()
    lightning: Mapping[str, Any] = field(default_factory=dict)

    def variant(self, name: str) -> Variant:
        """Return the variant of this name, or the one for all others."""
        return self.variants.get(name) or self.variants.get("") or Variant()

    @property
    def folders(self) -> set[str]:
        """The classes in model_index.json that belong to this family."""
        own = (one.pipelines.text for one in self.variants.values() if one.pipelines)
        return {self.pipelines.text, *self.more_folders, *own}


def _all_three(name: str) -> Pipelines:
    """Return the pipelines of a model that diffusers draws from text, pictures and masks."""
    return Pipelines(
        text=f"{name}Pipeline", image=f"{name}Img2ImgPipeline", mask=f"{name}InpaintPipeline"
    )


def _steps(steps: int, cfg_scale: float = 1, guidance: float = 0, **more: Any) -> Variant:
    """Return a variant of a flow family with its steps and guidance; guidance 0 means off."""
    start: Mapping[str, Any] = more.pop("starts", {})
    guided = {"cfg_scale": float(cfg_scale), "guidance": float(guidance)}
    return Variant(defaults={"steps": steps, **guided, **start}, **more)


# FLUX.2 sees start images as references, and begins with pure noise.
_NOISE = {"denoising_strength": 1.0}


_LOOKS_AT_TEN = References(most=10)


def _klein(size: str, steps: int, base: str = "", **more: Any) -> Variant:
    """Return FLUX.2 klein of a size, "" for unpublished ones, or the `base` it was made from."""
    width = {"4B": 7680, "9B": 12288}.get(size, 0)  # of the texts
    config: dict[str, Any] = {"transformer/joint_attention_dim": width} if size else {}
    if size:
        more |= {"hub": f"black-forest-labs/FLUX.2-klein-{base and 'base-'}{size}"}
        more |= {"encoders": {"text_encoder": "Qwen3 4B" if size == "4B" else "Qwen3 8B"}}
    if base:
        more |= {"like": f"klein {size}".strip(), "word": base}
    else:
        config["is_distilled"] = True
        more |= {"sign": Sign(of=_FLUX2_TEXT, width=width), "guided": False}
    more |= {"references": _LOOKS_AT_TEN, "most_start_pixels": 1024 * 1024}
    return _steps(steps, starts=_NOISE, config=config, **more)


_ONLY_EDITS = {
    "image": "this checkpoint edits pictures that are named in references",
    "hires": "its pipeline has no second pass",
}


def _qwen_edit(steps: int, name: str, most: int, hub: str, **more: Any) -> Variant:
    """Return a Qwen-Image that edits: pictures are rendered in one megapixel, as in training."""
    return _steps(
        steps,
        hub=f"Qwen/Qwen-Image-{hub}",
        like="",
        word=f"image-{hub.lower()}",
        cfg_scale=4,
        lacks=_ONLY_EDITS,
        references=References(most=most, required=True, multiple=32, stretched=True),
        pipelines=Pipelines(text=f"{name}Pipeline", edit=f"{name}Pipeline"),
        **more,
    )


_KL, _KL_FLUX2, _KL_QWEN = "AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLQwenImage"
_KL_QWEN21 = "AutoencoderKLQwenImage21"
_FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
_DPM_SOLVER = "DPMSolverMultistepScheduler"
# Schedulers with the same settings for noise; the engine creates its own from any config of these.
_NOISE_SCHEDULERS = (
    *("EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler", "DDPMScheduler"),
    *("EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"),
    *(_DPM_SOLVER, "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler"),
    *("LCMScheduler", "TCDScheduler", "DPMSolverSDEScheduler"),
    *("IPNDMScheduler", "SASolverScheduler"),
)
_CLIP_WORDS = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5_WORDS = ("T5Tokenizer", "T5TokenizerFast")
_QWEN_WORDS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GEMMA_WORDS = ("GemmaTokenizer", "GemmaTokenizerFast")
_LLAMA_WORDS = ("LlamaTokenizer", "LlamaTokenizerFast")
_ANY_WORDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_CLIP = ("CLIPTextModel", _CLIP_WORDS)
_PROJECTED = ("CLIPTextModelWithProjection", _CLIP_WORDS)
_T5 = ("T5EncoderModel", _T5_WORDS)
_QWEN3_ANY = (("Qwen3Model", "Qwen3ForCausalLM"), _QWEN_WORDS)
_QWEN_VL = ("Qwen2_5_VLForConditionalGeneration", _QWEN_WORDS)
_GEMMA2 = ("Gemma2Model", _GEMMA_WORDS)


def _parts(
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
    return {part: (one,) if isinstance(one, str) else one for part, one in found.items()}


def _unet_parts(*texts: tuple[str | Classes, Classes]) -> Mapping[str, Classes]:
    unet = "UNet2DConditionModel"
    return _parts(unet, _KL, *texts, scheduler=_NOISE_SCHEDULERS, denoiser="unet")


# Without it, diffusers would log at each start that there is no safety checker.
_NO_CHECKER = {"requires_safety_checker": False}

# The kinds of VAEs, by their names in catalog/encoders.py.
SD_VAE, SIXTEEN = "", "16 latent channels"
FLUX_VAE, SD3_VAE, COGVIEW4_VAE = "FLUX.1", "Stable Diffusion 3.x", "CogView4"
QWEN_VAE, QWEN21_VAE, FLUX2_VAE, SANA_VAE = "Qwen-Image", "Qwen-Image 2.1", "FLUX.2", "Sana"

_FLUX_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")
_FLUX_LATENTS = ("img_in.weight", "x_embedder.weight")
_FLUX2_TEXT = ("txt_in.weight", "context_embedder.weight")
_FLUX_VAE_FILE = "a VAE with 16 latent channels (such as ae.safetensors)"

# Numbers of positions: the patches of a square picture's latents.
_96_ROWS, _192_ROWS, _384_ROWS = 9216, 36864, 147456
_KREA2_LAYERS = [*range(2, 36, 3)]  # the layers of the text encoder that are read


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unet(Family):
    """A Stable Diffusion with a UNet; the defaults are those of 1.x."""

    kind: Literal["unet", "flow"] = "unet"
    pipelines: Pipelines = Pipelines(text="StableDiffusionPipeline")
    size_multiple: int = 8
    samplers: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(
        default_factory=lambda: _NO_GUIDANCE | {"step_cache": "it reuses blocks of transformers"}
    )
    variants: Mapping[str, Variant] = field(
        default_factory=lambda: {"": Variant(options=_NO_CHECKER)}
    )
    more_folders: Classes = ("LatentConsistencyModelPipeline",)
    parts: Mapping[str, Classes] = field(default_factory=lambda: _unet_parts(_CLIP))
    vaes: tuple[str, ...] = (SD_VAE,)


# Names of LoRAs' tensors, for the half that is as wide as the layer's inputs.
_DOWN = r"_lora_(down|A)_"
_ATTENTION = r"single_transformer_blocks_\d+_attn_to_q"
_TO_Q = rf"transformer_blocks_\d+_attn1?_to_q{_DOWN}"
_LAYERS = rf"layers_\d+_(attention_(to_q|qkv)|attn_to_q|feed_forward_(w1|linear_1)){_DOWN}"


# Headers are compared with `signs` and `lora_layers`, and metadata with `lora_marks`, in this
# order. A family comes before those whose signs it has, too: Chroma and FLUX.2 before
# FLUX.1, FLUX.2 dev before klein, Z-Image before Lumina 2, AuraFlow before Stable Diffusion 3,
# Sana before PixArt, Z-Image Omni before Z-Image.
_ROWS = (
    _Unet(
        key=DEMO,
        name="the demo model",
        native_size=512,
        # With a higher one, samplers that use earlier steps or add noise overshoot
        # (assets/demo/README.md).
        variants={"": Variant(defaults={"cfg_scale": 4.0}, options=_NO_CHECKER)},
        preview=DEMO,
        text_width=96,
    ),
    _Unet(
        key="sdxl",
        name="Stable Diffusion XL",
        pipelines=Pipelines(text="StableDiffusionXLPipeline"),
        native_size=1024,
        more_folders=(),
        # If a library for it is installed, diffusers would add a watermark to pictures.
        variants={"": Variant(options={"add_watermarker": False})},
        preview="sdxl",
        parts=_unet_parts(_CLIP, _PROJECTED),
        text_width=2048,
        text_layers=12,
        text_prefixes=("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
        lora_marks=("sdxl", "stable-diffusion-xl"),
    ),
    _Unet(
        key="sd1",
        name="Stable Diffusion 1.x",
        native_size=512,
        preview="sd1",
        text_width=768,
        text_layers=12,
        text_prefixes=("cond_stage_model.transformer.",),
        lora_marks=("sd_v1", "stable-diffusion-v1", "sd-v1"),
    ),
    _Unet(
        key="sd2",
        name="Stable Diffusion 2.x",
        native_size=768,
        preview="sd1",
        text_width=1024,
        # Those of OpenCLIP H without the last, which training did not use.
        text_layers=23,
        text_prefixes=("cond_stage_model.model.", "conditioner.embedders.0.model."),
        lora_marks=("sd_v2", "stable-diffusion-v2"),
    ),
    # https://blog.fal.ai/auraflow/: UMT5 reads the prompt.
    Family(
        key="aura_flow",
        name="AuraFlow",
        short=True,
        pipelines=Pipelines(text="AuraFlowPipeline"),
        variants={
            # Sides of the table of positions: 96 or 64 patches of 16 pixels.
            "0.3": _steps(
                *(50, 3.5),
                largest=1536,
                hub="fal/AuraFlow-v0.3",
                sign=Sign(positions=_96_ROWS),
                config={"transformer/pos_embed_max_size": _96_ROWS},
            ),
            "": _steps(50, 3.5, largest=1024),
        },
        hub="fal/AuraFlow",
        preview="sdxl",
        parts=_parts("AuraFlowTransformer2DModel", _KL, ("UMT5EncoderModel", _LLAMA_WORDS)),
        signs=("joint_transformer_blocks.", "double_layers."),
        vaes=(SD_VAE,),
        lora_layers=((r"double_layers_|single_layers_|joint_transformer_blocks_", ()),),
        lora_marks=("auraflow",),
    ),
    # https://arxiv.org/abs/2403.03206: two CLIPs and T5 read the prompt.
    Family(
        key="sd3",
        name="Stable Diffusion 3.x",
        pipelines=_all_three("StableDiffusion3"),
        lacks=_LACKS,
        variants={
            "3.5 Large": _steps(
                *(28, 3.5),
                largest=3072,
                hub="stabilityai/stable-diffusion-3.5-large",
                sign=Sign(has=("joint_blocks.37.", "transformer_blocks.37.")),
                config={"transformer/num_layers": 38},
            ),
            "3.5 Large Turbo": _steps(
                4, guided=False, largest=3072, configs="3.5 Large", like="3.5 Large", word="turbo"
            ),
            "3.5 Medium": _steps(
                *(40, 4.5),
                sign=Sign(positions=_384_ROWS),
                config={"transformer/pos_embed_max_size": 384},
            ),
            # Sides of the table of positions: 192 patches of 16 pixels.
            "3 Medium": _steps(28, 7, largest=3072, sign=Sign(positions=_192_ROWS)),
        },
        hub="stabilityai/stable-diffusion-3.5-medium",
        preview="sd3",
        parts=_parts("SD3Transformer2DModel", _KL, _PROJECTED, _PROJECTED, _T5),
        optional=("text_encoder_3", "tokenizer_3"),
        signs=("joint_blocks.", "pos_embed.pos_embed"),
        encoders={"text_encoder": "CLIP L", "text_encoder_2": "CLIP G", "text_encoder_3": "T5 XXL"},
        vaes=(SIXTEEN, SD3_VAE),
        vae_assets="sd3",
        vae_file="a VAE of Stable Diffusion 3 with sd3 in its name (such as sd3_vae.safetensors)",
        alike=True,
        lora_layers=((r"joint_blocks_", ()), (_TO_Q, (1536, 2432))),
        lora_marks=("sd3", "stable-diffusion-3"),
    ),
    # https://huggingface.co/lodestones/Chroma: FLUX.1 schnell with T5 alone, and guidance.
    Family(
        key="chroma",
        name="Chroma",
        pipelines=_all_three("Chroma"),
        lacks=_LACKS,
        variants={"": _steps(40, 3, sign=Sign(lacks=("nerf_",)))},
        hub="lodestones/Chroma1-HD",
        preview="flux",
        parts=_parts("ChromaTransformer2DModel", _KL, _T5),
        signs=("distilled_guidance_layer.",),
        encoders={"text_encoder": "T5 XXL"},
        vaes=(SIXTEEN, FLUX_VAE),
        lora_layers=((r"distilled_guidance_layer_", ()),),
        lora_marks=("chroma",),
    ),
    # FLUX.2 dev: Mistral 3 reads the prompt; the transformer is twice as wide as klein 4B's.
    Family(
        key="flux2_dev",
        name="FLUX.2 dev",
        pipelines=Pipelines(text="Flux2Pipeline", edit="Flux2Pipeline"),
        guidance="guidance",
        lacks=_FLOW_LACKS | _BY_GUIDANCE | _ONLY_EDITS | _NO_NEGATIVE,
        variants={
            "": _steps(
                50,
                guidance=4,
                references=_LOOKS_AT_TEN,
                sign=Sign(of=_FLUX2_TEXT, width=15360),
            )
        },
        hub="black-forest-labs/FLUX.2-dev",
        # Its tokenizer/ has a whole processor, of which only the tokenizer is loaded.
        parts=_parts(
            "Flux2Transformer2DModel",
            _KL_FLUX2,
            ("Mistral3ForConditionalGeneration", ("PixtralProcessor", *_ANY_WORDS)),
        ),
        signs=("single_stream_modulation.",),
        vaes=(FLUX2_VAE,),
        lora_layers=(
            (
                r"((double|single)_stream_modulation_(img_|txt_)?lin(ear)?"
                r"|double_blocks_\d+_img_attn_qkv|single_blocks_\d+_linear1"
                rf"|single_transformer_blocks_\d+_attn_to_q(kv_mlp_proj)?){_DOWN}",
                (6144,),
            ),
        ),
        lora_marks=("flux2-dev", "flux2_dev", "flux.2-dev", "flux-2-dev"),
    ),
    # FLUX.2 klein: Qwen3 reads the prompt, and the transformer sees start images.
    Family(
        key="flux2",
        name="FLUX.2",
        pipelines=Pipelines(
            text="Flux2KleinPipeline",
            mask="Flux2KleinInpaintPipeline",
            edit="Flux2KleinPipeline",
        ),
        lacks=_LACKS | {"hires": "diffusers has no second pass for it"},
        variants={
            "klein 4B": _klein("4B", 4),
            "klein 9B": _klein("9B", 4),
            "klein": _klein("", 4),
            "klein base 4B": _klein("4B", 50, "base", cfg_scale=4),
            "klein base 9B": _klein("9B", 50, "base", cfg_scale=4, configs="klein 9B"),
            "klein base": _klein("", 50, "base", cfg_scale=4),
        },
        hub="black-forest-labs/FLUX.2-klein-4B",
        parts=_parts("Flux2Transformer2DModel", _KL_FLUX2, ("Qwen3ForCausalLM", _QWEN_WORDS)),
        signs=("single_stream_modulation.",),
        vaes=(FLUX2_VAE,),
        vae_assets="flux2",
        vae_file="a VAE with 32 latent channels (such as flux2-vae.safetensors)",
        lora_layers=(
            (r"(double|single)_stream_modulation_", ()),
            (r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj_", ()),
            # Other names are those of FLUX.1; klein 4B has the same widths, except here.
            (r"single_blocks_\d+_linear1_lora_(up|B)_", (27648,)),
            (
                rf"(double_blocks_\d+_img_attn_qkv|single_blocks_\d+_linear1|{_ATTENTION}){_DOWN}",
                (4096,),
            ),
            (rf"transformer_blocks_\d+_attn_to_q{_DOWN}", (4096,)),
        ),
        lora_marks=("flux2", "flux.2", "flux-2"),
    ),
    # CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input.
    Family(
        key="flux",
        name="FLUX.1",
        pipelines=_all_three("Flux"),
        guidance="guidance_and_true_cfg_scale",
        lacks=_FLOW_LACKS,
        variants={
            # Recognised by the width of the image's latents; Krea and Kontext look like dev.
            "dev": _steps(
                28,
                guidance=3.5,
                hub="black-forest-labs/FLUX.1-dev",
                sign=Sign(has=_FLUX_GUIDANCE, of=_FLUX_LATENTS, width=64),
                config={"transformer/guidance_embeds": True},
            ),
            "Krea": _steps(28, guidance=4.5, like="dev", word="krea"),
            "schnell": _steps(
                4,
                guided=False,
                lacks=_NO_GUIDANCE,
                tokens=256,  # half as many as dev (its model card)
                sign=Sign(
                    has=("vector_in.", "time_text_embed.text_embedder."),
                    lacks=_FLUX_GUIDANCE,
                    of=_FLUX_LATENTS,
                    width=64,
                ),
            ),
            "Fill": _steps(
                50,
                guidance=30,
                lacks={"cfg_scale": "Fill follows the prompt by guidance alone"},
                fills=True,
                starts=_NOISE,
                hub="black-forest-labs/FLUX.1-Fill-dev",
                pipelines=Pipelines(text="FluxFillPipeline", mask="FluxFillPipeline"),
                guidance_as="guidance",
                sign=Sign(has=_FLUX_GUIDANCE, of=_FLUX_LATENTS, width=384),
            ),
            "Kontext": _steps(
                28,
                guidance=2.5,
                lacks=_ONLY_EDITS,
                references=References(most=1, required=True),
                configs="dev",
                hub="black-forest-labs/FLUX.1-Kontext-dev",
                pipelines=Pipelines(text="FluxKontextPipeline", edit="FluxKontextPipeline"),
                like="dev",
                word="kontext",
                config={},
            ),
        },
        hub="black-forest-labs/FLUX.1-schnell",
        preview="flux",
        parts=_parts("FluxTransformer2DModel", _KL, _CLIP, _T5),
        signs=("double_blocks.0.img_attn.", "single_transformer_blocks.0.proj_mlp."),
        encoders={"text_encoder": "CLIP L", "text_encoder_2": "T5 XXL"},
        vaes=(SIXTEEN, FLUX_VAE),
        vae_assets="flux",
        vae_file=_FLUX_VAE_FILE,
        alike=True,
        # Qwen-Image's attention has the names and widths of the double blocks.
        lora_layers=(
            (r"(double|single)_blocks_|single_transformer_blocks_", ()),
            (rf"transformer_blocks_\d+_ff(_context)?_net_0_proj{_DOWN}", (3072,)),
        ),
        lora_marks=("flux",),
    ),
    # Z-Image with SigLIP 2, which sees the references. Its pipeline's guidance is Z-Image's.
    Family(
        key="z_image_omni",
        name="Z-Image Omni",
        pipelines=Pipelines(text="ZImageOmniPipeline", edit="ZImageOmniPipeline"),
        guidance="cfg_scale_less_one",
        lacks=_LACKS | _ONLY_EDITS | _NO_CACHE,
        variants={"": _steps(50, 5, references=_LOOKS_AT_TEN)},
        hub="Tongyi-MAI/Z-Image-Omni-Base",
        preview="flux",
        parts={
            **_parts("ZImageTransformer2DModel", _KL, _QWEN3_ANY),
            "siglip": ("Siglip2VisionModel",),
            # The last is written where torchvision is not installed.
            "siglip_processor": (
                *("Siglip2ImageProcessor", "Siglip2ImageProcessorFast"),
                "Siglip2ImageProcessorPil",
            ),
        },
        signs=("siglip_embedder.",),
        vaes=(SIXTEEN, FLUX_VAE),
        # Its LoRAs' layers are Z-Image's.
        lora_marks=("z-image-omni", "z_image_omni", "zimageomni"),
    ),
    # https://arxiv.org/abs/2511.22699: Qwen3 reads the prompt.
    Family(
        key="z_image",
        name="Z-Image",
        pipelines=_all_three("ZImage"),
        guidance="cfg_scale_less_one",
        lacks=_LACKS,
        variants={
            "Turbo": _steps(8, guided=False, like="Base", word="turbo"),
            # Its card's guidance of 4, which counts from 0, plus 1.
            "Base": _steps(50, 5),
        },
        hub="Tongyi-MAI/Z-Image-Turbo",
        preview="flux",
        parts=_parts("ZImageTransformer2DModel", _KL, _QWEN3_ANY),
        signs=("layers.0.adaLN_modulation.0.", "cap_pad_token"),
        encoders={"text_encoder": "Qwen3 4B"},
        vaes=(SIXTEEN, FLUX_VAE),
        vae_assets="flux",
        vae_file=_FLUX_VAE_FILE,
        alike=True,
        lora_layers=((_LAYERS, (3840,)),),
        lora_marks=("zimage", "z-image"),
    ),
    # https://arxiv.org/abs/2503.21758: Gemma 2 reads the prompt.
    Family(
        key="lumina2",
        name="Lumina 2",
        pipelines=Pipelines(text="Lumina2Pipeline"),
        variants={"": _steps(50, 4, sign=Sign(lacks=("clip_text_pooled_proj.",)))},
        hub="Alpha-VLLM/Lumina-Image-2.0",
        preview="flux",
        # diffusers' first name for it.
        more_folders=("Lumina2Text2ImgPipeline",),
        parts=_parts("Lumina2Transformer2DModel", _KL, _GEMMA2),
        signs=("cap_embedder.", "time_caption_embed.caption_embedder."),
        encoders={"text_encoder": "Gemma 2 2B"},
        vaes=(SIXTEEN, FLUX_VAE),
        lora_layers=((_LAYERS, (2304,)),),
        lora_marks=("lumina",),
    ),
    # Qwen3-VL reads the prompt and sees the references; its VAE has transparency.
    Family(
        key="qwen_image_21",
        name="Qwen-Image 2.1",
        pipelines=Pipelines(text="QwenImage21Pipeline", edit="QwenImage21Pipeline"),
        guidance="true_cfg_scale",
        size_multiple=32,
        lacks=_LACKS | _ONLY_EDITS | _NO_CACHE,
        variants={
            "": _steps(
                40,
                guided=False,
                references=References(most=10, multiple=32, stretched=True, alpha=True),
            )
        },
        hub="Qwen/Qwen-Image-2.1",
        parts={
            **_parts("QwenImage21Transformer2DModel", _KL_QWEN21),
            "text_encoder": ("Qwen3VLForConditionalGeneration",),
            "processor": ("Qwen3VLProcessor",),
        },
        # With noise levels of its own the pipeline would ignore the recipe's steps.
        settings={"sample_sigmas": None},
        signs=("txt_in.text_norm.",),
        vaes=(QWEN21_VAE,),
        lora_layers=((r"transformer_blocks_\d+_img_mlp_(gate_layer|gate_up|proj|out)_lora", ()),),
        lora_marks=("qwen-image-2.1", "qwen_image_2.1", "qwenimage21", "qwen-image-21"),
    ),
    # https://arxiv.org/abs/2508.02324: Qwen2.5-VL reads the prompt.
    Family(
        key="qwen_image",
        name="Qwen-Image",
        pipelines=_all_three("QwenImage"),
        guidance="true_cfg_scale",
        native_size=1328,
        lacks=_LACKS,
        variants={
            # All look alike except 2511, which some files show; names of Lightning files have both.
            "Edit 2511": _qwen_edit(
                *(40, "QwenImageEditPlus", 3, "Edit-2511"),
                sign=Sign(has=("__index_timestep_zero__",)),
                config={"transformer/zero_cond_t": True},
            ),
            "Edit 2509": _qwen_edit(40, "QwenImageEditPlus", 3, "Edit-2509", config={}),
            "Edit": _qwen_edit(50, "QwenImageEdit", 1, "Edit", config={}),
            # Nucleus-Image, which is not supported, has the tensors in `lacks`.
            "": _steps(50, 4, sign=Sign(lacks=("transformer_blocks.0.encoder_proj.",))),
        },
        hub="Qwen/Qwen-Image",
        optional=("processor",),
        preview="wan",
        parts={
            **_parts("QwenImageTransformer2DModel", _KL_QWEN, _QWEN_VL),
            "processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
        },
        signs=("txt_norm.",),
        encoders={"text_encoder": "Qwen2.5-VL 7B"},
        vaes=(QWEN_VAE,),
        lora_layers=((r"transformer_blocks_\d+_(img|txt)_(mlp|mod)_", ()), (_TO_Q, (3072,))),
        lora_marks=("qwen",),
        # https://github.com/ModelTC/Qwen-Image-Lightning (generate_with_diffusers.py)
        lightning={
            "use_dynamic_shifting": True,
            "base_shift": math.log(3),
            "max_shift": math.log(3),
            "shift_terminal": None,
        },
    ),
    # Qwen3-VL reads the prompt, and the transformer takes twelve of its layers.
    Family(
        key="krea2",
        name="Krea 2",
        pipelines=Pipelines(text="Krea2Pipeline"),
        guidance="cfg_scale_less_one",
        variants={
            # Its noise levels do not depend on the size.
            "Turbo": _steps(
                8,
                guided=False,
                hub="krea/Krea-2-Turbo",
                options={"is_distilled": True},
                config={"is_distilled": True},
                like="Raw",
                word="turbo",
            ),
            # Its authors' guidance of 3.5, which counts from 0, plus 1.
            "Raw": _steps(52, 4.5),
        },
        hub="krea/Krea-2-Raw",
        parts=_parts("Krea2Transformer2DModel", _KL_QWEN, ("Qwen3VLModel", _QWEN_WORDS)),
        settings={"patch_size": 2, "text_encoder_select_layers": _KREA2_LAYERS},
        signs=("txtfusion.", "text_fusion."),
        vaes=(QWEN_VAE,),
        lora_layers=(
            (r"txtfusion_|text_fusion_|blocks_\d+_attn_w[qkvo]_", ()),
            (r"transformer_blocks_\d+_(attn_to_gate|ff_(gate|up|down))_", ()),
            (_TO_Q, (6144,)),
        ),
        lora_marks=("krea2", "krea-2"),
    ),
    # https://arxiv.org/abs/2410.10629: Gemma 2 reads the prompt, after an instruction.
    Family(
        key="sana",
        name="Sana",
        short=True,
        pipelines=Pipelines(text="SanaPipeline"),
        # Otherwise it draws in one of a few sizes, and scales the picture to the requested one.
        inputs={"use_resolution_binning": False},
        size_multiple=32,
        latent_pixels=32,
        samplers=(DPM,),
        variants={"": _steps(20, 4.5)},
        hub="Efficient-Large-Model/Sana_1600M_1024px_diffusers",
        parts=_parts("SanaTransformer2DModel", "AutoencoderDC", _GEMMA2, scheduler=_DPM_SOLVER),
        signs=("attention_y_norm.", "caption_norm."),
        vaes=(SANA_VAE,),
        lora_layers=((_TO_Q, (2240,)),),
        lora_marks=("sana",),
    ),
    # https://arxiv.org/abs/2503.09641: Sana in few steps, with guidance as an input.
    Family(
        key="sana_sprint",
        name="Sana-Sprint",
        short=True,
        pipelines=Pipelines(text="SanaSprintPipeline"),
        guidance="guidance",
        inputs={"use_resolution_binning": False},
        # The noise level between two steps; with more or fewer steps the pipeline refuses it.
        inputs_at_other_steps={"intermediate_timesteps": None},
        size_multiple=32,
        latent_pixels=32,
        samplers=("LCM",),
        lacks=_FLOW_LACKS | _NO_PICTURES | _PREDICTS | _BY_GUIDANCE | _TWO_STEPS,
        variants={"": _steps(2, guidance=4.5)},
        hub="Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        parts=_parts("SanaTransformer2DModel", "AutoencoderDC", _GEMMA2, scheduler="SCMScheduler"),
        vaes=(SANA_VAE,),
    ),
    # Mistral 3 reads the prompt as it is written: no model rewrites it before.
    Family(
        key="ernie_image",
        name="ERNIE-Image",
        pipelines=Pipelines(text="ErnieImagePipeline"),
        variants={
            "Base": _steps(50, 4),
            "Turbo": _steps(
                8, guided=False, hub="baidu/ERNIE-Image-Turbo", like="Base", word="turbo"
            ),
        },
        hub="baidu/ERNIE-Image",
        parts=_parts("ErnieImageTransformer2DModel", _KL_FLUX2, ("Mistral3Model", _ANY_WORDS)),
        signs=("layers.0.adaLN_sa_ln.",),
        vaes=(FLUX2_VAE,),
        lora_layers=(
            (r"layers_\d+_(self_attention_to_[qkvo]|mlp_(gate_proj|up_proj|linear_fc2))", ()),
        ),
        lora_marks=("ernie",),
    ),
    # https://arxiv.org/abs/2403.04692: T5 reads the prompt, and it removes noise.
    Family(
        key="pixart",
        name="PixArt",
        short=True,
        pipelines=Pipelines(text="PixArtSigmaPipeline"),
        # The second would lower the prompt's case, if a library for it is installed.
        inputs={"use_resolution_binning": False, "clean_caption": False},
        latent_pixels=8,
        samplers=(DPM,),
        lacks=_FROM_TEXT | _PREDICTS,
        variants={"Sigma": _steps(20, 4.5)},
        hub="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        parts=_parts(
            # The second is diffusers' first name for it.
            ("PixArtTransformer2DModel", "Transformer2DModel"),
            *(_KL, _T5),
            scheduler=_DPM_SOLVER,
        ),
        signs=("t_block.",),
        vaes=(SD_VAE,),
        loras=False,
        lora_marks=("pixart",),
    ),
    # https://github.com/THUDM/CogView4: GLM-4 reads the prompt.
    Family(
        key="cogview4",
        name="CogView4",
        short=True,
        pipelines=Pipelines(text="CogView4Pipeline"),
        variants={"": _steps(50, 3.5)},
        hub="THUDM/CogView4-6B",
        parts=_parts("CogView4Transformer2DModel", _KL, ("GlmModel", _ANY_WORDS)),
        vaes=(COGVIEW4_VAE,),
        lora_layers=((rf"transformer_blocks_\d+_attn1_to_q{_DOWN}", (4096,)),),
        lora_marks=("cogview4",),
    ),
)
FAMILIES: Mapping[str, Family] = {row.key: row for row in _ROWS}
UNETS = tuple(row.key for row in _ROWS if row.kind == "unet")
FLOWS = tuple(row.key for row in _ROWS if row.kind == "flow")
FAMILY_OF_WIDTH = {row.text_width: row.key for row in _ROWS if row.text_width}
DEMO_WIDTH = FAMILIES[DEMO].text_width


def hub_folder(family: str, variant: str) -> str:
    """Return the name of a folder to download."""
    row = FAMILIES[family]
    return row.variant(variant).hub or row.hub


def row_of_pipeline(class_name: str) -> Family | None:
    """Return the family whose folders say this class; the UNets' share theirs."""
    return next((row for row in _ROWS if class_name in row.folders), None)
