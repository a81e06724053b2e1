"""The field `hires`: a second, larger pass."""

import pytest

from picowatch.recipe.parts import Hires
from tests.recipe.reading import hash_of, messages, read_one

USUAL = Hires(2.0, 0, 0.7, "Latent")


@pytest.mark.parametrize(
    ("written", "hires"),
    [
        ("hires: true", USUAL),
        ("hires_fix: on", USUAL),
        ("hires: 1.5", Hires(1.5, 0, 0.7, "Latent")),
        ("hires: {}", USUAL),
        ("hires: {scale: 3, steps: 12}", Hires(3.0, 12, 0.7, "Latent")),
        ("hires: {upscaler: lanczos}", Hires(2.0, 0, 0.7, "Lanczos")),
        (
            "hires:\n  strength: 0.5\n  upscaler: latent nearest exact",
            Hires(2.0, 0, 0.5, "Latent (nearest-exact)"),
        ),
        ("hires: on\nstrength: 0.4", Hires(2.0, 0, 0.4, "Latent")),
        ("hires: {strength: 0.5}\nstrength: 0.4\nimage: a.png", Hires(2.0, 0, 0.5, "Latent")),
        ("image: a.png\nstrength: 0.4\nhires: on", USUAL),
        ("hires: false", None),
        ("hires: 'off'", None),
    ],
)
def test_hires_is_off_on_a_scale_or_a_mapping(written: str, hires: Hires | None) -> None:
    """Without a start image the strength beside it is the second pass's."""
    (request,) = read_one(f"prompt: a\nseed: 1\n{written}").image_requests(hash_of)
    assert request.hires == hires


def test_flags_turn_it_on() -> None:
    """With a scale or without."""
    assert read_one("a --hires", "a.txt").size_before_upscale == (256, 256)
    assert read_one("a --hires 1.5 --size 200x104", "a.txt").size_before_upscale == (296, 152)


def test_the_nearest_hires_is_the_whole_of_it() -> None:
    """It is one field."""
    defaults = {"_defaults.yaml": "hires: {scale: 3, steps: 5}"}
    recipe = read_one("prompt: a\nseed: 1\nhires: {steps: 7}", defaults=defaults)
    assert recipe.image_requests(hash_of)[0].hires == Hires(2.0, 7, 0.7, "Latent")
    assert read_one("prompt: a\nhires: off", defaults=defaults).hires is None
    inherited = read_one("prompt: a", defaults=defaults).hires
    assert inherited and (inherited.scale, inherited.steps) == (3.0, 5)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("hires: {scale: 5}", "hires scale must be a number from 1 to 4, not 5."),
        ("hires: {steps: 200}", "hires steps must be a whole number from 0 to 150, not 200."),
        ("hires: {steps: 3, upscal: x}", "hires has no 'upscal'. Did you mean 'upscaler'? Its "
         "fields are scale, steps, denoising_strength and upscaler."),
        ("hires: {scale: 2, upscale: 3}", "'upscale' is given twice: "
         "already on line 2 as 'scale'. Keep one."),
        ("hires: {upscaler: Lancsoz}", "no upscaler 'Lancsoz' in models/upscalers. Did you mean "
         "'Lanczos'? Available: demo-compact, Latent, Latent (nearest), Latent (nearest-exact), "
         "Latent (bicubic), Latent (antialiased), Latent (bicubic antialiased), Lanczos and "
         "Nearest."),
        ("hires: much", "hires must be true, false, or a mapping like {scale: 2, steps: 12}, not "
         "'much'."),
        ("hires: 4\nsize: 2048x64", "hires makes 8192x256 of 2048x64; the limit is 4096 pixels a "
                                    "side. Use a smaller scale or size."),
    ],
)  # fmt: skip
def test_what_hires_cannot_do_is_refused(written: str, message: str) -> None:
    """With limit and remedy."""
    assert messages(f"prompt: a\n{written}") == [message]


def test_a_wrong_part_is_pointed_at() -> None:
    """Within the mapping."""
    assert messages("prompt: a\nhires:\n  scale: big\n") == [
        "hires scale must be a number from 1 to 4, not 'big'."
    ]
