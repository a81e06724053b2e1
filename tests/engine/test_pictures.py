"""What the engine draws with the demo model: seeds, batches, start images, failures, warnings."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from picowatch.catalog import embedded
from picowatch.engine.drawing.canvas import picture_warnings
from picowatch.engine.drawing.latents import noise_of
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import Progress, RenderedImage
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ControlUse, ImageRequest, ReferenceUse
from tests.engine import requests
from tests.engine.flow_requests import requests_of
from tests.engine.requests import (
    Pixels,
    as_pixels,
    circle,
    draw,
    half,
    keep,
    pixels,
    plain_options,
    progress_of,
)
from tests.fault_points import preceded_by, wrap

DEMO = embedded("checkpoint").path


def request(prompt: str = "a red circle on a blue background", **values: Any) -> ImageRequest:
    """Return a request for the smallest picture that can be compared."""
    return requests.request(prompt, **({"steps": 4, "width": 64, "height": 64} | values))


def alone(renderer: Renderer, **values: Any) -> RenderedImage:
    return draw(renderer, request(**values))[0]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start-images")


@pytest.fixture(scope="module")
def renderer(kept: Path) -> Renderer:
    return Renderer(plain_options(Path("nowhere"), kept))


@pytest.fixture
def two_cores(renderer: Renderer) -> Iterator[Renderer]:
    """Use two threads, so that small pictures are drawn in parts, one per core."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield renderer
    torch.set_num_threads(before)


def test_the_position_in_a_batch_changes_no_pixel(
    two_cores: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts of a batch are equally large, the last is filled up: neighbours do not matter."""
    rows: list[int] = []
    note = preceded_by(lambda _, latents, *__, **___: rows.append(len(latents)))
    wrap("diffusers:UNet2DConditionModel.forward", note, monkeypatch.setattr)
    prompts = ("a red circle", "a green star", "a corgi")
    wanted = [request(prompt, seed=7, steps=2) for prompt in prompts]
    forward, backward = draw(two_cores, *wanted), draw(two_cores, *reversed(wanted))
    assert [image.pixels for image in forward] == [image.pixels for image in backward][::-1]
    assert {image.batch_size for image in forward} == {3}
    assert set(rows) == {4} and len(rows) == 8  # two images with guidance, in two parts
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("side", "threads"), [(128, 1), (384, 2)])
def test_a_single_large_picture_is_drawn_by_all_cores(
    two_cores: Renderer, side: int, threads: int
) -> None:
    """The layers of a small one are not worth splitting, and an exact one takes one core."""
    at_work: list[int] = []
    for exact in (False, True):
        image = request(steps=1, width=side, height=side, exact=exact)

        def note(now: Progress) -> None:
            if now.done:
                at_work.append(torch.get_num_threads())

        list(two_cores.render([image], note))
    assert at_work == [threads, 1]


def test_exact_images_are_rendered_one_by_one(two_cores: Renderer) -> None:
    """This holds even for two in one batch; only they use deterministic algorithms."""
    enabled: list[bool] = []
    first, second = request(seed=1, exact=True), request(seed=2, exact=True)
    noted = lambda _: enabled.append(torch.are_deterministic_algorithms_enabled())  # noqa: E731
    together = [*two_cores.render([first, second], noted)]
    assert [image.batch_size for image in together] == [1, 1]
    assert together[1].pixels == draw(two_cores, second)[0].pixels
    assert all(enabled) and not torch.are_deterministic_algorithms_enabled()


def test_a_picture_says_how_it_was_rendered(two_cores: Renderer) -> None:
    """Everything that the metadata records; sizes are width before height."""
    for image in draw(two_cores, *(request(steps=2, width=128, seed=seed) for seed in (1, 2))):
        assert (image.width, image.height, len(image.pixels)) == (128, 64, 128 * 64 * 3)
        assert (image.device, image.precision, image.batch_size) == ("cpu", "float32", 2)
        assert (image.compiled, image.memory_rung, image.chunks) == (False, "full", 1)
        assert {"encode", "denoise", "decode"} == image.timings.keys() - {"load"}
        assert {"picowatch", "torch", "diffusers", "transformers"} == set(image.versions)


@pytest.mark.parametrize(
    ("batch", "total"),
    [
        ([request(steps=2), request("a star, " * 60, steps=2)], 4),
        ([request(steps=2, seed=seed) for seed in range(4)], 2),
        *(
            ([request(steps=10, image="it", denoising_strength=strength)], taken)
            for strength, taken in ((0.0, 0), (0.01, 1), (0.29, 2))
        ),
    ],
)
def test_progress_counts_every_step_once(
    two_cores: Renderer, kept: Path, batch: list[ImageRequest], total: int
) -> None:
    """Groups and parts included; a start image takes its share, at least one (diffusers, A1111)."""
    if batch[0].image:
        batch = [replace(batch[0], image_hash=keep(kept, circle()))]
    steps = [(now.done, now.total) for now in progress_of(two_cores, batch)]
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_an_interruption_takes_effect_within_a_step(two_cores: Renderer) -> None:
    """A large model's takes half a minute on a CPU. The next batch is as if it never was."""
    wanted = [request(seed=seed) for seed in range(2)]
    before = draw(two_cores, *wanted)
    steps: list[int] = []
    asked: list[int] = []

    def interrupted() -> bool:
        asked.append(len(steps))
        return 2 in steps and asked.count(len(steps)) > 3

    with pytest.raises(EngineStopped):
        list(two_cores.render(wanted, lambda now: steps.append(now.done), interrupted))
    assert sorted({*steps}) == [0, 1, 2]
    assert draw(two_cores, *wanted)[0].pixels == before[0].pixels


def test_a_failure_in_one_part_fails_the_batch(
    two_cores: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is that of the part; the number of threads is restored."""
    wanted = [request(seed=1), request(seed=2, noise="nvidia")]
    with pytest.raises(
        RenderFailed, match="needs an NVIDIA card, and none renders here"
    ) as refused:
        draw(two_cores, *wanted)
    assert refused.value.remedy == "Set noise: cpu, or render on such a card."
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(torch.version, "hip", "6.4")  # torch calls an AMD card a CUDA device, too
    with pytest.raises(RenderFailed, match="needs an NVIDIA card"):
        noise_of(wanted[1:], 64, 64, torch.device("cuda"))


def test_invalid_numbers_fail_with_the_reason(tmp_path: Path) -> None:
    """NaNs are no picture, and no reason to render again."""
    models = tmp_path / "models"
    shutil.copytree(DEMO, models / "checkpoints/overflows")
    (file,) = (models / "checkpoints/overflows/unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_out.bias"][:] = float("nan")
    save_file(tensors, file)
    renderer = Renderer(plain_options(models))
    with pytest.raises(RenderFailed, match="invalid numbers"):
        draw(renderer, *requests_of(models, "overflows", "prompt: a corgi"))


def test_a_variation_goes_from_one_seeds_picture_to_the_others(renderer: Renderer) -> None:
    """Strengths 0 and 1 give exactly the two pictures; those between have as much noise."""
    ends = alone(renderer, seed=8).pixels, alone(renderer, seed=9).pixels
    values: dict[str, Any] = {"seed": 8, "variation_seed": 9}
    first, half, last = (
        alone(renderer, **values, variation_strength=share).pixels for share in (0.0, 0.5, 1.0)
    )
    assert (first, last) == ends and half not in ends
    varied = request(**values, variation_strength=0.5)
    noise, _ = noise_of([varied], 512, 512, torch.device("cpu"))
    assert abs(float(noise.std()) - 1) < 0.01
    assert alone(renderer, seed=8, variation_seed=8, variation_strength=0.5).pixels == ends[0]


def seam(picture: Pixels) -> float:
    """Return the ratio of the step across the edges to the steps inside; about 1 without a seam."""
    ratios = [
        np.abs(picture.take(0, axis) - picture.take(-1, axis)).mean()
        / np.abs(np.diff(picture, axis=axis)).mean()
        for axis in (0, 1)
    ]
    return float(max(ratios))


def test_tiling_repeats_a_picture_and_leaves_no_trace(renderer: Renderer) -> None:
    """The next picture without it is what it was before, in bytes, also after a failure."""
    before = alone(renderer)
    corgi = {"prompt": "a corgi on a pink background"}
    repeating, other = (pixels(alone(renderer, **corgi, tiling=tiling)) for tiling in (True, False))
    assert seam(repeating) < 2 < 5 < seam(other)
    assert alone(renderer).pixels == before.pixels
    with pytest.raises(KeyboardInterrupt):
        list(renderer.render([request(tiling=True)], Mock(side_effect=KeyboardInterrupt)))
    assert alone(renderer).pixels == before.pixels


def start(kept: Path, strength: float, picture: Image.Image) -> dict[str, Any]:
    return {"image": "it.png", "image_hash": keep(kept, picture), "denoising_strength": strength}


def test_more_is_drawn_around_a_picture(renderer: Renderer, kept: Path) -> None:
    """Its own pixels stay but for the soft edge, in both passes; the rest is the model's."""
    picture = circle(64)
    values = {**start(kept, 1.0, picture), "extend": "right 100 %", "width": 128}
    values |= {"hires": Hires(2.0, steps=2, upscaler="Lanczos")}
    drawn = pixels(alone(renderer, **values, mask_blur=2))
    assert drawn.shape == (128, 256, 3)
    own = as_pixels(picture.resize((128, 128), Image.Resampling.LANCZOS))
    assert np.array_equal(drawn[:, :118], own[:, :-10])
    assert drawn[:, 128:].std() > 5


def test_what_is_transparent_in_a_picture_is_redrawn(renderer: Renderer, kept: Path) -> None:
    """As with a mask that is white there; an opaque picture as its own mask is told of."""
    picture, mask = circle(), half()
    picture.putalpha(mask.point(lambda value: 255 - value))
    begun = start(kept, 0.8, picture)
    begun |= {"mask_blur": 0, "mask_invert": True}
    own = {"mask": "it.png", "mask_hash": begun["image_hash"]}
    by_hand = alone(renderer, **begun, mask="mask.png", mask_hash=keep(kept, mask))
    assert alone(renderer, **begun, **own).pixels == by_hand.pixels
    begun = start(kept, 0.8, circle())
    own["mask_hash"] = begun["image_hash"]
    (said,) = alone(renderer, **begun, **own).warnings
    assert said == "The mask 'alpha of it.png' has no white, so nothing is redrawn."


@pytest.mark.parametrize(
    ("ground", "line", "values", "said"),
    [
        ("black", "black", {"mask_invert": False}, "'it' has no white, so nothing is redrawn"),
        ("white", "white", {"mask_invert": False}, "'it' has no black, so everything is redrawn"),
        ("black", "black", {"mask_invert": True}, "'it' has no white, so everything is redrawn"),
        ("grey", "white", {"mask_invert": False}, "'it' is mostly grey, as a photo is"),
        ("white", "white", {"mask_invert": True}, "'it' has no black, so nothing is redrawn"),
        ("white", "black", {"preprocess": "none"}, "'it' has dark lines on a light ground"),
        ("black", "white", {"preprocess": "none"}, ""),
    ],
)
def test_a_picture_that_is_probably_not_meant_so(
    tmp_path: Path, ground: str, line: str, values: Any, said: str
) -> None:
    """A mask that redraws nothing or everything, a photo as a mask, and a sketch on paper."""
    picture = Image.new("RGB", (128, 128), ground)
    ImageDraw.Draw(picture).ellipse((20, 20, 60, 60), outline=line, width=3)
    kept = keep(tmp_path, picture)
    if "preprocess" in values:
        wanted = request(control=(ControlUse("it", "my-scribble", image_hash=kept, **values),))
    else:
        wanted = request(mask="it", mask_hash=kept, **values)
    found = picture_warnings(tmp_path, wanted)
    assert len(found) == bool(said) and said in "".join(found)
    (tmp_path / kept).unlink()
    assert picture_warnings(tmp_path, wanted) == found  # it is read once, for all images


@pytest.mark.parametrize(
    ("size", "is_told"),
    [((128, 192), True), ((192, 120), True), ((96, 63), False), ((32, 32), False)],
)
@pytest.mark.parametrize("field", ["image", "references"])
def test_a_mask_of_another_shape_is_told_of(
    tmp_path: Path, field: str, size: tuple[int, int], is_told: bool
) -> None:
    """It is fitted as a picture is; one of the result's shape is meant for that."""
    kept, mask = keep(tmp_path, Image.new("RGB", (192, 128))), Image.new("L", size)
    mask.paste(255, (8, 8, 16, 16))
    named: Any = {"image": "a.png", "image_hash": kept}
    if field == "references":
        named = {"references": (ReferenceUse("a.png", kept),)}
    wanted = request(**named, mask="m.png", mask_hash=keep(tmp_path, mask), width=64, height=64)
    says = (
        f"The mask 'm.png' has {size[0]}x{size[1]} pixels, and the picture 192x128: that is "
        "another shape, so the mask is fitted by resize: crop."
    )
    assert picture_warnings(tmp_path, wanted) == [says] * is_told
