"""The fields `hires` and `upscale`: a second, larger pass, and an upscaler at the end or alone."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.metadata import parameters_text, recipe_yaml
from picowatch.recipe import Inventory
from picowatch.recipe.inventory import Upscaler
from picowatch.recipe.parts import Hires, Upscale
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import DEMO, messages, read_one

OLD = {"4x-Old.pth": "4x-Old.pth is a pickle file.", "4x-Old": "4x-Old.pth is a pickle file."}
INSTALLED = Inventory(
    demo=DEMO,
    upscalers=(Upscaler("4x-UltraSharp", 4), Upscaler("anime/2x-Lines", 2)),
    refused={"upscaler": OLD},
)
USUAL = Hires(2.0, 0, 0.7, "Latent")


class Sized(Pictures):
    """Pictures of one size, so that none has to be there."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height

    def size(self, path: str) -> tuple[int, int]:
        return self._size


def hash_of(kind: str, name: str) -> str:
    return f"{kind}/{name}"


def only_request(text: str, inventory: Inventory = INSTALLED, **more: Any) -> ImageRequest:
    recipe = read_one(text, inventory=inventory, pictures=Sized(3001, 1000), **more)
    (found,) = recipe.image_requests(hash_of, 5)
    return found


@pytest.mark.parametrize(
    ("written", "hires"),
    [
        ("hires: true", USUAL),
        ("hires_fix: on", USUAL),
        ("hires: 1.5", Hires(1.5, 0, 0.7, "Latent")),
        ("hires: {}", USUAL),
        ("hires: {scale: 3, steps: 12}", Hires(3.0, 12, 0.7, "Latent")),
        (
            "hires:\n  strength: 0.5\n  upscaler: latent nearest exact",
            Hires(2.0, 0, 0.5, "Latent (nearest-exact)"),
        ),
        ("hires: on\nstrength: 0.4", Hires(2.0, 0, 0.4, "Latent")),
        ("hires: {strength: 0.5}\nstrength: 0.4\nimage: a.png", Hires(2.0, 0, 0.5, "Latent")),
        ("image: a.png\nstrength: 0.4\nhires: on", USUAL),
        ("hires: false", None),
        ("hires: 0", None),
    ],
)
def test_hires_is_off_on_a_scale_or_a_mapping(written: str, hires: Hires | None) -> None:
    """Without a start image, denoising_strength belongs to the second pass."""
    assert only_request(f"prompt: a\nseed: 1\n{written}").hires == hires


def test_the_nearest_hires_is_the_whole_of_it() -> None:
    """It is a single field, so layers do not mix its parts."""
    defaults = {"_defaults.yaml": "hires: {scale: 3, steps: 5}"}
    assert only_request("prompt: a\nhires: {steps: 7}", defaults=defaults).hires == Hires(steps=7)
    assert only_request("prompt: a\nhires: off", defaults=defaults).hires is None
    assert only_request("prompt: a", defaults=defaults).hires == Hires(scale=3.0, steps=5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4x-UltraSharp", Upscale("4x-UltraSharp", 4)),
        ("4x-ultra", Upscale("4x-UltraSharp", 4)),
        ("2x-lines.pth", Upscale("anime/2x-Lines", 2)),
        ("{model: 2x-Lines, scale: 1.5}", Upscale("anime/2x-Lines", 1.5)),
        ("{upscaler: demo-compact}", Upscale("demo-compact", 4)),
        ("off", None),
        ("none", None),
    ],
)
def test_an_upscaler_is_named_as_other_models_are(written: str, meant: Upscale | None) -> None:
    """Its scale is the default; the request has the hash of the file."""
    found = only_request(f"prompt: a\nupscale: {written}")
    assert found.upscale == meant
    assert found.upscaler_hash == (f"upscaler/{meant.model}" if meant else "")


@pytest.mark.parametrize(("written", "scale"), [("true", 4), ("2", 2), ("{scale: 8}", 8)])
def test_without_a_name_it_is_the_only_one_installed(written: str, scale: float) -> None:
    """With none installed the embedded one, and with several an error that lists them."""
    text = f"prompt: a\nupscale: {written}"
    assert only_request(text, Inventory(demo=DEMO)).upscale == Upscale("demo-compact", scale)
    one = replace(INSTALLED, upscalers=INSTALLED.upscalers[:1])
    assert only_request(text, one).upscale == Upscale("4x-UltraSharp", scale)
    assert messages(text, inventory=INSTALLED) == [
        "no upscaler is named, and several are installed: 4x-UltraSharp and anime/2x-Lines. Write "
        "'upscale: {model: …}'."
    ]
    assert messages(text, inventory=Inventory(demo=DEMO, refused={"upscaler": OLD})) == [
        "no upscaler is named, and none that is installed can be used: 4x-Old.pth is a pickle "
        "file. For the embedded one, write 'upscale: {model: demo-compact}'."
    ]


MISTAKES = {
    "hires: {scale: 5}": "hires scale must be a number from 1 to 4, not 5.",
    "hires: {steps: 200}": "hires steps must be a whole number from 0 to 150, not 200.",
    "hires: {steps: 3, upscal: x}": "hires has no 'upscal'. Did you mean 'upscaler'? Its fields "
    "are scale, steps, denoising_strength and upscaler.",
    "hires: much": "hires must be true, false, or a mapping like {scale: 2, steps: 12}, not "
    "'much'.",
    "hires: 4\nsize: 2048x64": "hires makes 8192x256 of 2048x64; the limit is 4096 pixels a side. "
    "Use a smaller scale or size.",
    "hires: {upscaler: 4x-UltraShrap}": "no upscaler '4x-UltraShrap' in models/upscalers. Did you "
    "mean '4x-UltraSharp'? Available: 4x-UltraSharp, anime/2x-Lines, demo-compact, Latent, Latent "
    "(nearest), Latent (nearest-exact), Latent (bicubic), Latent (antialiased), Latent "
    "(bicubic antialiased), Lanczos and Nearest.",
    "upscale: 4x-Old": "the upscaler '4x-Old' cannot be used: 4x-Old.pth is a pickle file.",
    "upscale: {model: demo-compact, scale: 9}": "upscale scale must be a number from 1 to 8, not "
    "9.",
    "upscale: {model: demo-compact, scale: 8}\nsize: 2048x2048": "upscale makes 16384x16384 of "
    "2048x2048; the limit is 100 million pixels. Use a smaller scale.",
    "upscale: R-ESRGAN 4x+": "no upscaler 'R-ESRGAN 4x+' in models/upscalers. Put "
    "RealESRGAN_x4plus.safetensors there; 'picowatch convert' makes it from a .pth file. "
    "Available: 4x-UltraSharp, anime/2x-Lines and demo-compact.",
}


@pytest.mark.parametrize("written", MISTAKES)
def test_what_they_cannot_do_is_refused(written: str) -> None:
    """With the name that was probably meant, the limit, and the remedy."""
    found = messages(f"prompt: a\n{written}", inventory=INSTALLED)
    assert found == [MISTAKES[written]]


def test_a_picture_without_a_prompt_is_only_enlarged() -> None:
    """Of any size; what a folder's defaults say of drawing does not matter, nor does the seed."""
    defaults = {"_defaults.yaml": "steps: 9\nhires: true\nsize: 512x768\nseed: 7\ncount: 3"}
    found = only_request("image: a.png\nupscale: 4x-UltraSharp", defaults=defaults)
    assert not found.draws
    assert (found.width, found.height, found.seed) == (3001, 1000, 0)
    assert found.published_size == (12004, 4000)
    assert found.image_hash == "image/a.png"
    assert found.checkpoint_hash == found.checkpoint == ""
    prompts = {"_defaults.yaml": "prompt: a corgi\nnegative: b"}
    text = "image: a.png\nupscale: demo-compact"
    assert not only_request(text, defaults=prompts).draws
    assert not only_request(f"{text}\nsweep: {{'upscale: scale': [2]}}", defaults=prompts).draws
    assert only_request(f"{text}\nstrength: 0.3", defaults=prompts).prompt == "a corgi"
    # An empty prompt is a prompt.
    assert only_request("prompt: ''\nimage: a.png\nupscale: 4x-UltraSharp").draws


def test_what_only_drawing_needs_is_refused_without_a_prompt() -> None:
    """Such fields would silently do nothing."""
    text = "image: a.png\nupscale: demo-compact\nsteps: 9\nhires: true\npriority: 3\nsize: picture"
    assert messages(text, pictures=Sized(10, 10)) == [
        f"{field} has no effect without prompt. Add it, or remove {field}."
        for field in ("steps", "hires")
    ]
    assert messages("upscale: demo-compact") == ["a prompt is missing. Write 'prompt: …'."]


def test_a_request_of_its_own_survives_the_ledger_and_its_metadata() -> None:
    """The same digest; `show` prints what makes it again; A1111's words are those of its Extras."""
    found = only_request("image: a.png\nupscale: {model: 4x-UltraSharp, scale: 2}")
    again = ImageRequest.from_dict(found.as_dict())
    assert again == found and again.digest == found.digest
    assert only_request(recipe_yaml(found)).digest == found.digest
    assert parameters_text(found, "1") == (
        "Postprocess upscale by: 2, Postprocess upscaler: 4x-UltraSharp"
    )
    values = only_request("prompt: a\nhires: true").as_dict()
    assert not [name for name in values if "upscale" in name]


def test_a1111s_texts_are_read() -> None:
    """Its names of Real-ESRGAN's files, too."""
    lines = "a\nSteps: 20, Sampler: Euler a, Size: 512x512, {}"
    real = replace(INSTALLED, upscalers=(Upscaler("RealESRGAN_x4plus", 4),))
    values = "Postprocess upscale by: 2, Postprocess upscaler: R-ESRGAN 4x+"
    found = only_request(lines.format(values), real, name="a.txt")
    assert found.upscale == Upscale("RealESRGAN_x4plus", 2)
    values = "Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+"
    found = only_request(lines.format(values), real, name="a.txt")
    assert found.hires == Hires(2.0, 0, 0.5, "RealESRGAN_x4plus")
    assert found.hires_upscaler_hash == "upscaler/RealESRGAN_x4plus"
