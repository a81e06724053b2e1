"""Image requests for the tests of metadata: one by hand, and any that hypothesis thinks of."""

from dataclasses import replace
from typing import Any, get_args

from hypothesis import strategies as st

from picowatch.recipe.fields import Prediction
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.parts import UPSCALERS, ControlKind, Find, Hires, Preprocessor, Upscale
from picowatch.recipe.prompts.grammar import unsupported
from picowatch.recipe.prompts.wildcards import parse
from picowatch.recipe.request import ControlUse, DetailUse, ImageRequest, LoraUse
from picowatch.recipe.samplers import SAMPLERS
from picowatch.recipe.written import FORBIDDEN
from tests.recipe.reading import HASHES, RICH

CORGI = ImageRequest(
    prompt="a corgi",
    negative_prompt="blurry, dim",
    checkpoint="dreamshaper_8",
    checkpoint_hash="879db523c3" + "0" * 54,
    vae="baked",
    vae_hash="",
    sampler="DPM++ 2M",
    schedule_type="karras",
    steps=24,
    cfg_scale=7.5,
    width=512,
    height=768,
    seed=42,
    clip_skip=1,
    exact=False,
)

# Beside any text: quotes, comments, colons, brackets, white space at the ends, emoji.
HOSTILE = [
    *("'", '"', " # ", ": ", "- ", "{", "[", "&a", "*a", "!", "|", ">", "%", "@", "\\", "\\("),
    *(" ", "  ", "\n", "\n\n", "\n \n", "\t", "\u00a0", "\u200b", "yes", "~", "1e3", "é", "🐶"),
    *("👨\u200d👩\u200d👧", "\ufeff", "---\n", "...", "\N{RIGHT-TO-LEFT OVERRIDE}"),
]
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
PROMPTS = (
    st.lists(st.sampled_from(HOSTILE) | ANY_TEXT, max_size=8)
    .map("".join)
    .filter(lambda text: not FORBIDDEN.search(text.replace("\n", "").replace("\t", "")))
    .filter(lambda text: not any(unsupported(text)))
    .filter(lambda text: parse(text, {}) == (text,))
)
PATHS = (
    st.text("abc/ é.'-", min_size=1, max_size=20)
    .map(lambda text: f"a{text}.png")
    .filter(lambda path: ".." not in path and path == path.strip())
)
# The last one is not for samplers that cannot begin with pure noise.
PREDICTIONS: tuple[Prediction, ...] = ("", "epsilon", "v", "v_zero_snr")
STRENGTHS = st.floats(0, 1)
LORA_NAMES = ("add_detail", "styles/it's pixel art", "1e3")
# A weight of -0.0 is read as 0.0.
WEIGHTS = st.floats(-10, 10).map(lambda weight: weight + 0.0)
LORAS = st.lists(
    st.builds(LoraUse, st.sampled_from(LORA_NAMES), st.just(HASHES["lora"]), WEIGHTS),
    unique_by=lambda use: use.name,
).map(tuple)
Parts = st.SearchStrategy[dict[str, Any]]
NO_PICTURES: Parts = st.just({})
RESIZES = st.sampled_from(["crop", "fit", "stretch"])
START_IMAGES: Parts = st.builds(
    dict, image=PATHS, image_hash=st.just(HASHES["image"]), denoising_strength=STRENGTHS,
    resize=RESIZES,
)  # fmt: skip
MASKS: Parts = st.builds(
    dict, mask=PATHS, mask_hash=st.just(HASHES["mask"]), mask_blur=st.integers(0, 64),
    mask_invert=st.booleans(), mask_padding=st.none() | st.integers(0, 256),
)  # fmt: skip
# Masks that words find.
FINDS = st.builds(
    Find, st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20), STRENGTHS,
    st.integers(-128, 128), st.just("clipseg"), st.booleans(),
)  # fmt: skip
FOUND: Parts = st.builds(
    dict, mask=FINDS, mask_finder_hash=st.just(HASHES["segmentation"]),
    mask_blur=st.integers(0, 64), mask_invert=st.booleans(),
)  # fmt: skip
DETAILS = st.lists(
    st.builds(
        DetailUse,
        find=st.sampled_from(["face", "the hat, a cat"]),
        model=st.just("clipseg"),
        finder_hash=st.just(HASHES["segmentation"]),
        confidence=STRENGTHS,
        grow=st.integers(-128, 128),
        count=st.integers(1, 64),
        denoising_strength=STRENGTHS,
        steps=st.integers(0, 150),
        mask_padding=st.integers(0, 256),
        mask_blur=st.integers(0, 64),
        size=st.sampled_from(["64x64", "512x768"]),
    ),
    max_size=3,
).map(tuple)
HIRES = st.builds(
    Hires, st.floats(1, 2), st.integers(0, 150), STRENGTHS, st.sampled_from([*UPSCALERS, "4x-Own"])
)
UPSCALES = st.builds(Upscale, st.sampled_from(["4x-Own", "demo-compact"]), st.floats(1, 2.4))
# Of each preprocessor.
OPTIONS: dict[str, Parts] = {
    "canny": st.builds(dict, low=st.integers(0, 2000), high=st.integers(0, 2000)),
    "threshold": st.builds(dict, threshold=st.integers(0, 255)),
    "blur": st.builds(dict, radius=st.floats(0.1, 64)),
    "depth": st.just({"depth": "Depth-Own", "depth_hash": HASHES["depth"]}),
}
SEEDS = st.integers(0, 2**32 - 1)
VARIATIONS: Parts = st.builds(dict, variation_seed=SEEDS, variation_strength=STRENGTHS.filter(bool))
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
SIDES = st.integers(8, 256).map(lambda eighths: eighths * 8)


@st.composite
def controls(draw: st.DrawFn, has_mask: bool) -> ControlUse:
    known: tuple[Preprocessor, ...] = get_args(Preprocessor)
    preprocess = draw(st.sampled_from(known if has_mask else known[:-1]))
    start, end = sorted(draw(st.tuples(STRENGTHS, STRENGTHS)))
    model = draw(st.sampled_from(["canny", "union"]))
    return ControlUse(
        image=draw(PATHS),
        image_hash=HASHES["image"],
        model=model,
        model_hash=HASHES["controlnet"],
        preprocess=preprocess,
        weight=draw(st.floats(0, 2)),
        start=start,
        end=end,
        mode=draw(st.sampled_from(["balanced", "prompt", "control"])),
        kind=draw(st.sampled_from(get_args(ControlKind)[1:])) if model == "union" else "",
        preview=draw(st.booleans()),
        **draw(OPTIONS.get(preprocess, NO_PICTURES)),
    )


@st.composite
def image_requests(draw: st.DrawFn, prompts: st.SearchStrategy[str] = PROMPTS) -> ImageRequest:
    sampler = draw(st.sampled_from(SAMPLERS))
    vae = draw(st.sampled_from(["baked", "mse"]))
    pictures = draw(NO_PICTURES | START_IMAGES)
    if pictures:
        pictures = pictures | draw(NO_PICTURES | MASKS | FOUND)
    followed = draw(st.lists(controls("mask" in pictures), max_size=2))
    if followed:
        pictures = pictures | {"control": tuple(followed), "resize": draw(RESIZES)}
    hires = draw(st.none() | HIRES)
    upscale = draw(st.none() | UPSCALES)
    width, height = draw(SIDES), draw(SIDES)
    is_narrow = max(width, height) > 16 * min(width, height)  # nothing is found there
    return ImageRequest(
        prompt=draw(prompts),
        negative_prompt=draw(prompts),
        checkpoint=draw(NAMES),
        checkpoint_hash=HASHES["checkpoint"],
        vae=vae,
        vae_hash="" if vae == "baked" else HASHES["vae"],
        prediction=draw(st.sampled_from(PREDICTIONS[: 4 if sampler.zero_snr else 3])),
        sampler=sampler.name,
        schedule_type=draw(st.sampled_from(sampler.schedule_types)),
        steps=draw(st.integers(1, 150)),
        cfg_scale=draw(st.floats(1, 30)),
        cfg_rescale=draw(st.just(0.0) | STRENGTHS),
        cfg_start=draw(st.just(0.0) | STRENGTHS),
        cfg_end=draw(st.just(1.0) | STRENGTHS),
        width=width,
        height=height,
        seed=draw(SEEDS),
        noise=draw(st.sampled_from(["cpu", "nvidia"])),
        **draw(NO_PICTURES | VARIATIONS),
        ensd=draw(st.just(0) | SEEDS),
        tiling=draw(st.booleans()),
        clip_skip=draw(st.integers(1, 4)),
        exact=draw(st.booleans()),
        loras=draw(LORAS),
        **pictures,
        hires=hires,
        detail=() if is_narrow else draw(DETAILS),
        hires_upscaler_hash=HASHES["upscaler"] if hires and hires.upscaler not in UPSCALERS else "",
        upscale=upscale,
        upscaler_hash=HASHES["upscaler"] if upscale else "",
        quantize=draw(st.sampled_from(["", "fp8"])),
        shrink_to_fit=draw(st.booleans()),
    )


def inventory_for(request: ImageRequest) -> Inventory:
    checkpoints = (Checkpoint(request.checkpoint, 512),)
    return replace(RICH, checkpoints=checkpoints, default_checkpoint=None, loras=LORA_NAMES)
