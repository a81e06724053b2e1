"""Image requests for the tests of metadata: one by hand, and any that hypothesis thinks of."""

from hypothesis import strategies as st

from picowatch.recipe import HashOf, ImageRequest, Known, KnownCheckpoint
from picowatch.recipe.decoding import FORBIDDEN
from picowatch.recipe.prompt import unsupported
from picowatch.recipe.samplers import SAMPLERS

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
    *(" ", "  ", "\n", "\n\n", "\t", "\u00a0", "\u200b", "yes", "~", "1e3", "é", "🐶"),
    "👨\u200d👩\u200d👧",
]
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
PROMPTS = (
    st.lists(st.sampled_from(HOSTILE) | ANY_TEXT, max_size=8)
    .map("".join)
    .filter(lambda text: not FORBIDDEN.search(text.replace("\n", "").replace("\t", "")))
    .filter(lambda text: not unsupported(text))
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
SIDES = st.integers(8, 256).map(lambda eighths: eighths * 8)


@st.composite
def image_requests(
    draw: st.DrawFn,
    prompts: st.SearchStrategy[str] = PROMPTS,
    checkpoints: st.SearchStrategy[str] = NAMES,
) -> ImageRequest:
    """Any request that a recipe can make."""
    sampler = draw(st.sampled_from(SAMPLERS))
    vae = draw(st.sampled_from(["baked", "vae-ft-mse"]))
    return ImageRequest(
        prompt=draw(prompts),
        negative_prompt=draw(prompts),
        checkpoint=draw(checkpoints),
        checkpoint_hash=draw(HASHES),
        vae=vae,
        vae_hash="" if vae == "baked" else draw(HASHES),
        sampler=sampler.name,
        schedule_type=draw(st.sampled_from(sampler.schedule_types)),
        steps=draw(st.integers(1, 150)),
        cfg_scale=draw(st.floats(1, 30)),
        width=draw(SIDES),
        height=draw(SIDES),
        seed=draw(st.integers(0, 2**32 - 1)),
        clip_skip=draw(st.integers(1, 4)),
        exact=draw(st.booleans()),
    )


def known_for(request: ImageRequest) -> Known:
    """What has to be installed for the request's recipe."""
    return Known(
        demo=KnownCheckpoint("demo", 128),
        checkpoints=(KnownCheckpoint(request.checkpoint, 512),),
        vaes=("vae-ft-mse",),
    )


def hashes_of(request: ImageRequest) -> HashOf:
    """The hashes of the request's files."""
    hashes = {"checkpoint": request.checkpoint_hash, "vae": request.vae_hash}
    return lambda kind, _: hashes[kind]
