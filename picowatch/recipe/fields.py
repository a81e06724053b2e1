"""THE table of a recipe's fields: a row says all there is to say about a field.

A row is an attribute: its type and limits, its default, what it does. Everything else walks the
table: parsing, defaults, `sweep`, requests, digests, batch keys, A1111's text, `show`, `from`, the
schema, the table in the docs and error messages. `ImageFields` are the rows whose values a finished
image has, too; `RecipeFields` is the whole table.
"""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter

from picowatch.recipe import converters, samplers
from picowatch.recipe.converters import (
    APART,
    NUMBER,
    OFF,
    SEEDS_FORM,
    SWITCH,
    VAE_ENDING,
    any_of,
    file_name,
    form,
    in_any_case,
    spelt,
)
from picowatch.recipe.extend import MARGIN, SIDES, WANTED, extend_in
from picowatch.recipe.parts import (
    Blur,
    Control,
    Cutout,
    Detail,
    Find,
    Hires,
    Padding,
    ResizeTo,
    Row,
    Share,
    Upscale,
    no_pixels,
    own_of_any,
    own_of_whole,
    row,
)
from picowatch.recipe.photo_names import name_in
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT

MIN_SIDE, MAX_SIDE = 64, 2048  # pixels, before hires
BAKED = "baked"
PICTURE = "picture"  # as a size: the start image's
ALPHA = "alpha"  # as a mask: the transparent parts of the picture itself
MAX_PHOTO_PIXELS = 250_000_000  # where no setting says another limit
# What a picture's settings hold besides the fields: the beginning of the hash of its checkpoint's
# file, and the names of its embeddings, separated by commas; A1111 adds their hashes.
CHECKPOINT_HASH = "checkpoint hash"
EMBEDDINGS = "embeddings"
PROMPTS = ("prompt", "negative_prompt")
PICTURE_FIELDS = ("image", "mask")

SWITCH_OR_MORE = "boolean number string object"
LORA_WEIGHT = form("number string object", minimum=-MAX_LORA_WEIGHT, maximum=MAX_LORA_WEIGHT)
_NO_SINGLE_IMAGE = "It does not change individual images."

Seed = Annotated[int, Field(ge=0, le=converters.MAX_SEED)]
Pixels = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
MAX_REFERENCES = 10
ScheduleType = Literal[
    "automatic", "karras", "exponential", "beta", "uniform", "sgm_uniform", "leading", "linspace",
    "simple", "kl_optimal", "align_your_steps",
]  # fmt: skip
Prediction = Literal["", "epsilon", "v", "v_zero_snr"]
Loras = tuple[tuple[str, float], ...]
ZERO_SNR: Prediction = "v_zero_snr"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a sweep: what it varies, and its values as short texts, in order."""

    label: str
    values: tuple[str, ...]


_SIDE: dict[str, Any] = {
    "does": "Pixels: a multiple of 8, or any number with references. size: 512x768 sets both, and "
    "size: picture takes those of the start image.",
    "default_text": "the checkpoint's native size",
    "acts_in": "whole",
    "check": "always",
    "daily": True,
}


@dataclass(frozen=True, kw_only=True)
class ImageFields:
    prompt: str = row(
        MISSING,
        "What to draw. A1111 weights `(word:1.2)`, `[word]` and `BREAK`, prompt editing "
        "`[a:b:0.5]` and `[a|b]`, `<lora:name:0.8>`, embeddings by name, wildcards `{a|b}`, "
        "`{2$$a|b|c}` and `__name__`; up to 20,000 characters. A JSON object, or a mapping, is "
        "taken as it is.",
        same_in_batch=False,
        says_what=True,
        form=form("string number boolean object"),
        check="always",
        daily=True,
    )
    negative_prompt: str = row(
        "",
        "What to keep out of the picture.",
        aliases=("negative",),
        same_in_batch=False,
        form=form("string number boolean object"),
        daily=True,
    )
    checkpoint: str = row(
        "",
        "A name in models/checkpoints (ending optional, a unique beginning is enough); demo is the "
        "embedded one. If a file does not tell its variant, add it: my-merge as Kontext.",
        aliases=("model", "ckpt", "sd_model"),
        a1111="Model",
        default_text="the setting checkpoint; otherwise the only one installed, or demo if none is",
        wanted="a name, or one like my-merge as Kontext",
        check="always",
        daily=True,
    )
    vae: str = row(
        BAKED,
        "A name in models/vae, or baked: the checkpoint's own.",
        a1111="VAE",
        writes=lambda name: "" if name == BAKED else f"{file_name(name)}{VAE_ENDING}",
    )
    prediction: Prediction = row(
        "",
        "What the checkpoint was trained to predict, for files that do not say it: epsilon "
        "(noise), v (velocity), or v_zero_snr (velocity, down to pure noise).",
        aliases=("prediction_type", "parameterization"),
        reads=converters.prediction_in,
        a1111="Noise Schedule",
        wanted="automatic, epsilon, v or v_zero_snr",
        default_text="automatic: as the checkpoint says",
        off=samplers.AUTOMATIC,
        writes=lambda prediction: "Zero Terminal SNR" if prediction == ZERO_SNR else "",
        form={"examples": samplers.PREDICTION_NAMES},
    )
    sampler: str = row(
        samplers.DEFAULT_SAMPLER,
        "A1111's or diffusers' name, which may include a schedule type (DPM++ 2M Karras). Case and "
        "spaces do not matter.",
        aliases=("sampler_name",),
        a1111="Sampler",
        default_text=f"{samplers.DEFAULT_SAMPLER}; Euler for flow models and zero terminal SNR",
        check="always",
        daily=True,
        writes=lambda name: "PLMS" if name == "PNDM" else name,
        form=form(
            "string",
            f"{APART}{any_of(samplers.SAMPLER_NAMES)}"
            f"(?:{APART}{any_of(samplers.SCHEDULE_TYPE_NAMES)})?"
            f"(?:{APART}{spelt('scheduler')})?{APART}",
            patternErrorMessage=samplers.THE_SAMPLERS,
        ),
    )
    schedule_type: ScheduleType = row(
        "automatic",
        "How the steps are spaced.",
        reads=converters.schedule_type_in,
        a1111="Schedule type",
        default_text="as the sampler says",
        check="always",
        writes=samplers.SCHEDULE_TYPES.__getitem__,
        form={"examples": samplers.SCHEDULE_TYPE_NAMES},
    )
    steps: Annotated[int, Field(ge=1, le=150)] = row(
        24,
        "Denoising steps.",
        a1111="Steps",
        default_text="24; flow models have their own",
        check="always",
        daily=True,
    )
    cfg_scale: Annotated[float, Field(ge=1, le=30, allow_inf_nan=False)] = row(
        7.5,
        "How closely to follow the prompt.",
        aliases=("guidance_scale", "cfg"),
        a1111="CFG scale",
        default_text="7.5; flow models have their own, and the demo model 4",
        check="always",
        daily=True,
    )
    cfg_rescale: Share = row(
        0.0,
        "How much of the contrast and colour that a high cfg_scale adds is taken back.",
        aliases=("guidance_rescale",),
        a1111="CFG rescale",
    )
    # A step after exactly that share is still without guidance, as in A1111
    # (modules/sd_samplers_cfg_denoiser.py); one after exactly cfg_end still has it, as in SD.Next
    # (modules/processing_callbacks.py). The keys are theirs, too.
    cfg_start: Share = row(
        0.0,
        "The share of the steps after which guidance begins; earlier steps take half the time and "
        "ignore the negative prompt.",
        aliases=("guidance_start", "skip_early_cfg"),
        a1111="Skip Early CFG",
    )
    cfg_end: Share = row(
        1.0,
        "The share of the steps after which guidance ends.",
        aliases=("guidance_end",),
        a1111="CFG end",
    )
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = row(
        0.0,
        "How closely FLUX.1 dev follows the prompt: the guidance that was distilled into it; its "
        "cfg_scale stays 1.",
        aliases=("distilled_cfg",),
        a1111="Distilled CFG Scale",
        default_text="the checkpoint's own, where it has one: 3.5, for Krea 4.5, for Fill 30",
        check="always",
    )
    width: Pixels | None = row(None, **_SIDE)
    height: Pixels | None = row(None, **_SIDE)
    seed: Seed | Literal["random"] | tuple[Seed, ...] = row(
        converters.RANDOM,
        "The same seed gives the same picture. random (or -1) draws one; a list or a range like "
        "1..8 makes an image of each different one.",
        reads=converters.seeds_in,
        same_in_batch=False,
        no_sweep="For several seeds write a range or a list outside the sweep: seed: 1..8.",
        a1111="Seed",
        wanted=f"a whole number from 0 to {converters.MAX_SEED}, random, a range like 1..8, "
        "or a list like [1, 2, 3]",
        check="always",
        daily=True,
        form=form("integer string array", SEEDS_FORM, minimum=-1, maximum=converters.MAX_SEED),
    )
    noise: converters.NoiseSource = row(
        "cpu",
        "Whose random numbers a seed draws: the CPU's, or those of an NVIDIA GPU, as in A1111. "
        "nvidia needs such a GPU.",
        aliases=("rng",),
        reads=converters.noise_in,
        a1111="RNG",
        form={"examples": [*converters.NOISE_NAMES]},
    )
    # None is random, too: what is off stays out of digests.
    variation_seed: Seed | None = own_of_whole(
        None,
        "The seed whose noise is mixed in. random (or -1) draws one.",
        aliases=("subseed",),
        reads=converters.variation_seed_in,
        needs=("variation_strength",),
        a1111="Variation seed",
        wanted=f"a whole number from 0 to {converters.MAX_SEED}, or random",
        default_text="random",
        check="always",
        form=form("integer string", SEEDS_FORM, minimum=-1, maximum=converters.MAX_SEED),
    )
    variation_strength: Share = own_of_whole(
        0.0,
        "How much of the variation seed's noise is mixed in. Above 0, image i of count uses "
        "variation_seed+i, and all use the same seed.",
        aliases=("subseed_strength",),
        a1111="Variation seed strength",
        check="always",
    )
    ensd: Seed = row(
        0,
        'A1111\'s "Eta noise seed delta": the noise that samplers add in their steps comes from '
        "seed+ensd.",
        aliases=("eta_noise_seed_delta",),
        same_in_batch=False,
        samplers=tuple(sampler.name for sampler in samplers.SAMPLERS if sampler.noisy),
        a1111="ENSD",
    )
    clip_skip: Annotated[int, Field(ge=1, le=4)] = row(
        1,
        "A1111's number; 1 skips nothing.",
        a1111="Clip skip",
        writes=lambda number: "" if number == 1 else str(number),
    )
    image: str = own_of_any(
        "",
        "Start image (img2img): a path beside the recipe, or under inbox/ or outbox/.",
        aliases=("init_image",),
        off="none",
        check="set",
        daily=True,
    )
    denoising_strength: Share = row(
        0.75,
        "How far to move away from the start image; without one, from the first pass of hires.",
        aliases=("strength",),
        needs=("image",),
        a1111="Denoising strength",
        default_text="0.75; 1 for FLUX.1 Fill and FLUX.2 klein",
        acts_in="whole",
        check="set",
        daily=True,
    )
    resize: Literal["crop", "fit", "stretch"] = own_of_whole(
        "crop",
        "How the start image and control images are fitted to the size.",
        needs=("image", "control"),
    )
    mask: Annotated[Find | str, BeforeValidator(Find.of)] = own_of_whole(
        "",
        "The part of the start image, or of the first reference, to redraw: white areas. A path "
        "like that of image; alpha: what is transparent in the picture itself; or a mapping that "
        "says what is found there.",
        needs=("image", "references"),
        wanted="a path, alpha, or a mapping like {find: the sky}",
        off="none",
        check="set",
        daily=True,
        form=form("string object false"),
    )
    mask_blur: Blur = own_of_whole(
        4, "Width of the mask's soft edge, in pixels.", needs=("mask", "extend"), a1111="Mask blur"
    )
    mask_invert: bool = own_of_whole(False, "true: black is redrawn.", needs=("mask",))
    mask_padding: Padding | None = own_of_whole(
        None,
        "Only the masked part, and so many pixels around it, is drawn, in this size; the picture "
        "keeps its own.",
        aliases=("inpaint_full_res_padding",),
        reads=converters.padding_in,
        needs=("mask",),
        a1111="Masked area padding",
        wanted="a whole number from 0 to 256, or false",
        off="none",
        form=form("integer string false", f"{NUMBER}|{OFF}", minimum=0, maximum=256),
    )
    extend: str = own_of_whole(
        "",
        "What is drawn around the start image: pixels or per cent of each side, or the shape of "
        "the whole, like 16:9.",
        aliases=("outpaint", "outpainting"),
        reads=extend_in,
        needs=("image",),
        wanted=WANTED,
        as_text="left 256, bottom 25 %",
        default_text="nothing",
        form=form(
            "string number object false",
            properties=dict.fromkeys(SIDES, MARGIN),
            patternProperties={in_any_case(SIDES): {}},
            additionalProperties=False,
        ),
    )
    hires: Hires | None = row(
        None,
        "A second, larger pass.",
        aliases=("hires_fix",),
        wanted="true, false, a number like 2, or a mapping like {scale: 2, steps: 12}",
        off=False,
        acts_in="whole",
        check="set",
        daily=True,
        form=form(SWITCH_OR_MORE, f"{NUMBER}|{SWITCH}|{OFF}"),
    )
    detail: Annotated[tuple[Detail, ...], Field(max_length=8)] = row(
        (),
        "Things that are found in the drawn picture, each drawn again in its own part, the "
        "largest first. Words like face, a mapping, or a list of them. With image and no prompt, "
        "nothing else is drawn.",
        aliases=("adetailer", "face_detailer"),
        wanted="words like face, a mapping like {find: face, denoising_strength: 0.4}, or a list "
        "of up to eight",
        default_text="off",
        off="none",
        says_what=True,
        part="find",
        check="set",
    )
    tiling: bool = row(
        False,
        "true: the picture repeats without seams, beside and below itself.",
        a1111="Tiling",
        acts_in="whole",
    )
    upscale: Upscale | None = row(
        None,
        "Enlarges the finished picture with an upscaler. With image and no prompt, nothing else is "
        "done.",
        wanted="true, false, a model's name, or a mapping like {model: name, scale: 2}",
        off=False,
        acts_in="any",
        says_what=True,
        part="model",
        check="set",
        daily=True,
    )
    cutout: Annotated[Cutout | None, BeforeValidator(Cutout.of)] = own_of_any(
        None,
        "Removes the background of the finished picture. With image and no prompt, nothing is "
        "drawn; upscale may be added.",
        aliases=("rembg", "remove_background"),
        wanted="true, false, a model's name, or a mapping like {background: white, size: "
        "1000x1000}",
        off=False,
        says_what=True,
        part="model",
        check="set",
    )
    resize_to: ResizeTo | None = row(
        None,
        "The size of the finished picture, by resampling, as the last step. A number is the "
        "longest side in pixels, 800x600 both sides; in a mapping, all that is given holds. With "
        "image and no prompt, nothing is drawn, and no model is needed.",
        wanted="a number of pixels like 1600, a size like 800x600, or a mapping like {width: 1000, "
        "height: 1000, fit: pad}",
        off=False,
        acts_in="any",
        says_what=True,
        part="longest_side",
        check="set",
        form=form("number string object false", rf"{NUMBER}|\d+\s*[xX×*]\s*\d+|{OFF}"),
    )
    format: Literal["", "png", "jpeg", "webp", "avif", "tiff", "same"] = own_of_any(
        "",
        "The picture's file format: png, jpeg, webp, avif, tiff, or same: the start image's.",
        aliases=("output_format",),
        reads=converters.format_in,
        default_text="the setting format",
        form={"examples": ["jpg", "tif"]},
    )
    quality: Annotated[int, Field(ge=1, le=100)] | Literal["", "lossless"] = own_of_any(
        "",
        "1 to 100 for jpeg, webp and avif; lossless for webp.",
        reads=converters.quality_in,
        wanted="a whole number from 1 to 100, lossless, or auto",
        default_text="the setting quality",
        off="auto",
        form=form(
            "integer string", f"{NUMBER}|{any_of(('auto', 'lossless'))}|", minimum=1, maximum=100
        ),
    )
    colour: Literal["srgb", "same"] = own_of_any(
        "srgb",
        "same: what is not drawn keeps the photo's colour profile, and its 16 bits in PNG and "
        "TIFF. srgb: it is in sRGB, with 8 bits.",
        aliases=("color",),
        needs=("image",),
    )
    keep_exif: Literal["", "all", "no_place", "none"] = own_of_any(
        "",
        "What the picture keeps of the EXIF, XMP and IPTC of its start image, or of its first "
        "reference: all, no_place or none.",
        needs=("image", "references"),
        default_text="the setting keep_exif",
    )
    replace: bool = no_pixels(
        False,
        "true, in a _pictures.yaml: a photo's new result is written over its last one, under the "
        "same name.",
    )
    name: str = no_pixels(
        "",
        "In a _pictures.yaml: the names of results. {stem} is the photo's own name, {folder} its "
        "folder's, {date} (or {date:%Y%m%d}) the day on which it was taken, {number:04} the "
        "folder's next number.",
        reads=name_in,
        wanted='text in quotes, like "{stem}-web" or "{folder}-{number:04}"',
        default_text="{stem}",
        form=form("string"),
    )
    quantize: Literal["", "fp8"] = row(
        "",
        "fp8: the denoiser's blocks are rounded to 8 bits, which halves its memory and changes "
        "pixels a little.",
        reads=converters.word_or_off_in,
        wanted="fp8 or false",
        default_text="off",
        form=form("string false", f"{spelt('fp8')}|{OFF}"),
    )
    step_cache: bool = row(
        False, "true: steps reuse what earlier ones computed: faster, with slightly other pixels."
    )
    shrink_to_fit: bool = row(
        False,
        "true: if memory runs out, the size may be reduced, which is recorded.",
        no_sweep=_NO_SINGLE_IMAGE,
    )
    exact: bool = row(
        False,
        "true: always the same pixels, but slower (batch 1, eager, deterministic algorithms).",
        no_sweep=_NO_SINGLE_IMAGE,
        acts_in="any",
    )

    @property
    def painted_mask(self) -> str:
        """The mask's path; "" without a mask, or if it is found."""
        return self.mask if isinstance(self.mask, str) else ""

    @property
    def found_mask(self) -> Find | None:
        """The mask that is found by words, if there is one."""
        return self.mask if isinstance(self.mask, Find) else None

    @property
    def only_details(self) -> bool:
        """Return whether the start image stays, but for details that are drawn again."""
        return bool(self.detail and self.image and not self.denoising_strength and not self.hires)

    @property
    def leaves_a_part(self) -> bool:
        """Return whether only a part of the start image is drawn: the masked part, or details."""
        return bool(self.image and self.mask) or self.only_details

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Width and height of what is drawn, after `hires`: a picture, or a part of it."""
        size = self.width or 0, self.height or 0
        return self.hires.size_of(*size) if self.hires else size

    @property
    def given_size(self) -> tuple[int, int] | None:
        """The size of a given picture that the result has, whatever is drawn of it."""
        return None

    @property
    def size_before_upscale(self) -> tuple[int, int]:
        """Width and height of the drawn picture, after `hires`, or of the given picture."""
        return self.given_size or self.drawn_size

    @property
    def published_size(self) -> tuple[int, int]:
        """Width and height of the picture, after `hires`, `upscale`, `cutout` and `resize_to`."""
        size = self.size_before_resize
        return self.resize_to.size_of(*size) if self.resize_to else size

    @property
    def size_before_resize(self) -> tuple[int, int]:
        """Width and height of the picture, after `hires`, `upscale` and `cutout`."""
        return (self.cutout and self.cutout.sides) or self.size_after_upscale

    @property
    def size_after_upscale(self) -> tuple[int, int]:
        """Width and height of the picture before it is cut out."""
        size = self.size_before_upscale
        return self.upscale.size_of(*size) if self.upscale else size


@dataclass(frozen=True, kw_only=True)
class RecipeFields(ImageFields):
    # An image request has LoRAs with their hashes, those of its prompt included.
    loras: Loras = row(
        (),
        "LoRAs from models/loras with their weights, -10 to 10, beside those in the prompt.",
        aliases=("lora",),
        wanted="a mapping like {name: 0.8}, or a list of names",
        as_text="name:0.8, other:0.5",
        daily=True,
        form=form("string array object false", additionalProperties=LORA_WEIGHT),
    )
    references: Annotated[tuple[str, ...], Field(max_length=MAX_REFERENCES)] = own_of_whole(
        (),
        "Pictures to edit or to take something from, for checkpoints that take references: paths "
        "like that of image, ten at most.",
        aliases=("reference", "reference_images"),
        wanted="a path, or a list of up to ten",
        off="none",
        check="set",
        form=form("string array false", items={"type": "string"}, maxItems=MAX_REFERENCES),
    )
    control: Annotated[tuple[Control, ...], Field(max_length=10)] = row(
        (),
        "Pictures whose edges, depth or poses are followed, each by a ControlNet from "
        "models/controlnet. A mapping, or a list of them.",
        aliases=("controlnet",),
        wanted="a mapping like {image: pose.png, model: control_v11p_sd15_openpose}, or a list of "
        "them",
        off="none",
        acts_in="whole",
        check="set",
        daily=True,
    )
    count: Annotated[int, Field(ge=1, le=converters.MOST_IMAGES)] = row(
        1,
        "Number of images, at most max_images_per_save; image i uses seed+i.",
        changes_pixels=False,
        daily=True,
    )
    sweep: tuple[Axis, ...] = no_pixels(
        (),
        "Every combination of these values, with the same seed, and a contact sheet. Any field "
        'that changes the image; a piece of the prompt as `"prompt: old": [new, newer]`; also '
        '`"lora: name"`, `"hires: scale"`, `"upscale: model"`, `"mask: find"` and '
        '`"control: weight"`.',
        wanted="a mapping like {steps: [10, 20], cfg_scale: 4..10 step 2}",
        daily=True,
        form=form("string object false", OFF),
    )
    grid: bool = no_pixels(False, "true: also one contact sheet of the images.")
    grid_seconds: bool = no_pixels(
        False, "true: a contact sheet that also shows each image's seconds."
    )
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = no_pixels(
        0, "Whole number; higher goes first."
    )


def _rows(table: type) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a table, each with its converter."""
    hints = get_type_hints(table, include_extras=True)
    for field in fields(table):
        found: Row = field.metadata["row"]
        is_raw = found.reads is converters.raw
        yield field.name, replace(found, reads=_reader(hints[field.name])) if is_raw else found


def _reader(hint: Any) -> converters.Converter:
    """Return the converter of a type: for numbers, switches, and one of several words."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    if hint in (int, float):
        return converters.number_in
    if hint is bool:
        return converters.switch_in
    if get_origin(hint) is Literal:
        return converters.word_in
    is_one = get_origin(hint) in (Annotated, UnionType, Union)
    return _reader(parts[0]) if is_one else converters.raw


# The fields that are mappings; with those that may be one, or have some; the parts of each.
MAPPINGS: dict[str, type] = {
    "hires": Hires, "upscale": Upscale, "cutout": Cutout, "resize_to": ResizeTo,
}  # fmt: skip
LISTS: dict[str, type] = {"detail": Detail, "control": Control}
KINDS = MAPPINGS | {"mask": Find, **LISTS}
PARTS = {field: dict(_rows(kind)) for field, kind in KINDS.items()}
# The parts of all by their full names: `hires.scale`.
PART_FIELDS = {
    f"{field}.{name}": row for field, parts in PARTS.items() for name, row in parts.items()
}
# The aliases of the parts, from A1111's API and ComfyUI's nodes.
PART_ALIASES = {
    field: {alias: name for name, row in parts.items() for alias in row.aliases}
    for field, parts in PARTS.items()
}

ROWS = dict(_rows(RecipeFields))

# Fields of a recipe that a resolved recipe no longer has: `size` stands for width and height,
# `from` for all that a picture's metadata holds.
SHORTHANDS = {
    "size": Row(
        f"Width and height at once: 512x768; {PICTURE}: those of the start image.",
        wanted="text like 512x768",
        form=form(
            "string",
            rf"\d+\s*[xX×*]\s*\d+|{PICTURE}",
            patternErrorMessage=f"A size is like 512x768, or {PICTURE}.",
        ),
    ),
    "from": Row(
        "A picture whose settings this recipe starts from; other fields override them.",
        changes_pixels=False,
        says_what=True,
        wanted="text",
        form=form("string"),
        no_sweep="Write a recipe for each picture: several stand in a list, or between lines ---.",
    ),
}
_ALL = ROWS | SHORTHANDS

# Those that say alone what to do with a picture.
SAYING_WHAT = tuple(name for name, row in _ALL.items() if row.says_what)
# Those of the whole picture: they do nothing where only details of a given picture are drawn.
WHOLE = tuple(name for name, row in ROWS.items() if row.acts_in == "whole")
# Those of a picture that is only finished, and of its image.
ON_FINISHED = tuple(name for name, row in ROWS.items() if row.acts_in == "any")
FINISHED = tuple(name for name in ON_FINISHED if ROWS[name].changes_pixels)
# What is done to a finished picture, or to a given picture.
FINISHING = tuple(name for name in FINISHED if name in SAYING_WHAT)
# How a given picture is written again, which is a request where nothing else is said.
WRITING = ("format", "quality")
# What changes a picture's file, and not what is drawn.
AS_FILE = (*WRITING, "colour", "keep_exif")

# The first name of each field, by all of its names.
FIRST_NAME_OF = {name: name for name in _ALL} | {
    alias: name for name, row in _ALL.items() for alias in row.aliases
}

# Why a sweep cannot vary these.
NO_SWEEP = {
    name: row.no_sweep or _NO_SINGLE_IMAGE
    for name, row in _ALL.items()
    if row.no_sweep or not row.changes_pixels
}

# The fields whose numbers need not be whole.
FRACTIONS = {name for name, kind in get_type_hints(ImageFields).items() if kind is float}

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RecipeFields)}
NEEDS = {name: row.needs for name, row in ROWS.items() if row.needs}


def idle_fields(of: ImageFields) -> set[str]:
    """The fields that change nothing, because none of the fields that they need has a value.

    A value that is idle itself does not count: without image, a mask needs no padding.
    """

    def acts(name: str) -> bool:
        return bool(getattr(of, name)) and (name not in NEEDS or any(map(acts, NEEDS[name])))

    return {name for name, needs in NEEDS.items() if not any(map(acts, needs))}


@cache
def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each field's type and limits; parts are `hires.scale` and so on."""
    tables = {"": RecipeFields, **{f"{field}.": kind for field, kind in KINDS.items()}}
    return {
        f"{before}{name}": schema
        for before, table in tables.items()
        for name, schema in TypeAdapter(table).json_schema()["properties"].items()
    }


@cache
def adapter(name: str) -> TypeAdapter[Any]:
    """The type and limits of a field, or of a part like `hires.scale`."""
    field, _, part = name.partition(".")
    hints = get_type_hints(KINDS[field] if part else RecipeFields, include_extras=True)
    return TypeAdapter(hints[part or field], config=ConfigDict(strict=True))


# What a flag without a value means: true.
SWITCHES = frozenset(name for name, row in ROWS.items() if row.reads is converters.switch_in)
