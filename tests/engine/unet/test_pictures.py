"""What the engine draws with the demo model: seeds, batches, prompts, settings."""

from typing import Any

import numpy as np
import pytest

from picowatch.engine.child import ChildEngine
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine import requests
from tests.engine.requests import difference, ignore_steps, make, pixels
from tests.kinds import one_of_each_kind

# What float32 sums in another order may change, of 255.
ROUNDING = 2


def request(prompt: str = "a red circle on a blue background", **values: Any) -> ImageRequest:
    """As small as what is compared allows."""
    return requests.request(prompt, **({"steps": 4, "width": 64, "height": 64} | values))


def test_a_red_circle_on_blue_is_red_in_the_middle_and_blue_around(engine: ChildEngine) -> None:
    """The whole way from prompt to pixels."""
    (image,) = make(
        engine, requests.request("a large red circle on a blue background", steps=16, seed=3)
    )
    picture = pixels(image)
    red, blue = picture[56:72, 56:72].mean((0, 1)), picture[:8, :8].mean((0, 1))
    assert red[0] > 150 > max(red[1:])
    assert blue[2] > 150 > max(blue[:2])


def test_a_fresh_process_draws_the_same_pixels(
    engine: ChildEngine, own_engine: ChildEngine
) -> None:
    """Today, tomorrow and after a restart; also for a sampler that draws noise."""
    requested = (request(seed=5, sampler="Euler a", schedule_type="uniform"), request(seed=6))
    for one in requested:
        assert make(engine, one)[0].pixels == make(own_engine, one)[0].pixels


@pytest.mark.parametrize(
    ("sampler", "schedule_type"),
    one_of_each_kind(
        [
            ("DPM++ 2M", "karras"),
            ("DPM++ 2M SDE", "exponential"),
            ("DPM++ 2M SDE Heun", "exponential"),
            ("Euler a", "uniform"),
            ("DDIM", "uniform"),
            ("DPM2 a", "karras"),
            ("DPM++ SDE", "karras"),
            ("DDPM", "uniform"),
            ("LCM", "uniform"),
            ("TCD", "uniform"),
            ("Heun", "uniform"),
            ("LMS", "karras"),
            ("DEIS", "uniform"),
        ],
        [
            *(("DPM++ 2M", "karras"), ("Euler a", "uniform"), ("DPM++ SDE", "karras")),
            *(("LCM", "uniform"), ("Heun", "uniform")),
        ],
    ),
)
def test_a_picture_does_not_depend_on_its_neighbours(
    engine: ChildEngine, sampler: str, schedule_type: str
) -> None:
    """Each image has its own noise, at the start and at the steps of samplers that draw some."""
    requested = [
        request("a red circle", seed=1, sampler=sampler, schedule_type=schedule_type),
        request("a green star", seed=2, sampler=sampler, schedule_type=schedule_type),
        request("a corgi", seed=3, sampler=sampler, schedule_type=schedule_type),
    ]
    together = make(engine, *requested)
    assert difference(together[2], make(engine, requested[2])[0]) <= ROUNDING
    assert difference(together[0], together[1]) > 10


def test_the_position_in_a_batch_changes_no_pixel(engine: ChildEngine) -> None:
    """Same batch size, same pixels, whoever the neighbours are."""
    requested = [request(prompt, seed=7) for prompt in ("a red circle", "a green star", "a corgi")]
    forward = make(engine, *requested)
    backward = make(engine, *reversed(requested))
    assert [image.pixels for image in forward] == [image.pixels for image in backward][::-1]


def test_longer_neighbours_change_no_pixel(engine: ChildEngine) -> None:
    """A prompt is not padded to the length of another image's prompt."""
    short, long = request("a red circle"), request("a green star, " * 30)
    together = make(engine, short, long, request("a corgi"))
    assert [image.chunks for image in together] == [1, 2, 1]
    assert [image.batch_size for image in together] == [2, 1, 2]
    assert difference(together[0], make(engine, short)[0]) <= ROUNDING
    assert together[1].pixels == make(engine, long)[0].pixels


def test_exact_images_are_rendered_one_by_one(engine: ChildEngine) -> None:
    """Even if somebody puts two into one batch."""
    first, second = request(seed=1, exact=True), request(seed=2, exact=True)
    together = make(engine, first, second)
    assert [image.batch_size for image in together] == [1, 1]
    assert together[1].pixels == make(engine, second)[0].pixels


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"clip_skip": 2},
        {"cfg_scale": 9.0},
        {"negative_prompt": "blue"},
        {"steps": 9},
        {"sampler": "Euler", "schedule_type": "uniform"},
        {"schedule_type": "exponential"},
        {"prompt": "a red circle BREAK on a blue background"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_each_setting_changes_the_picture(engine: ChildEngine, other: dict[str, Any]) -> None:
    """None is dropped on the way."""
    assert difference(make(engine, request())[0], make(engine, request(**other))[0]) > 3


def test_attention_weights_change_the_picture(engine: ChildEngine) -> None:
    """More and less of a word, and no more than nothing without weights."""
    more, plain, bare, less = (
        make(engine, request(f"{word} and blue circle"))[0]
        for word in ("(red:1.4)", "(red:1.0)", "red", "(red:0.6)")
    )
    assert difference(more, less) > 10
    assert difference(plain, bare) <= ROUNDING


def test_cfg_scale_1_ignores_the_negative_prompt(engine: ChildEngine) -> None:
    """It cancels out, so it is not computed."""
    first = make(engine, request(cfg_scale=1.0))[0]
    assert first.pixels == make(engine, request(cfg_scale=1.0, negative_prompt="blurry"))[0].pixels


def test_other_sizes_come_out_in_their_size(engine: ChildEngine) -> None:
    """Width before height."""
    (image,) = make(engine, request(width=192, height=64, steps=2))
    assert (image.width, image.height, len(image.pixels)) == (192, 64, 192 * 64 * 3)


def test_a_picture_says_how_it_was_rendered(engine: ChildEngine) -> None:
    """Everything that the metadata records."""
    images = make(engine, request(steps=2), request(steps=2, seed=2))
    for image in images:
        assert (image.device, image.precision, image.batch_size) == ("cpu", "float32", 2)
        assert (image.compiled, image.memory_rung, image.chunks) == (False, "full", 1)
        assert {"encode", "denoise", "decode"} <= set(image.timings)
        assert "load" not in image.timings
        assert {"picowatch", "torch", "diffusers", "transformers"} == set(image.versions)
    assert engine.describe()["device"] == "cpu"
    assert engine.describe()["precision"] == "float32"


def test_progress_counts_every_step(engine: ChildEngine) -> None:
    """Up to the total, also when a batch falls into groups."""
    steps: list[tuple[int, int]] = []
    batch = [request(steps=3), request("a star, " * 60, steps=3)]
    engine.render(batch, lambda done, total: steps.append((done, total))).result(120)
    assert steps == [(done, 6) for done in range(1, 7)]


def test_more_clip_skip_than_layers_is_explained(engine: ChildEngine) -> None:
    """The demo's text encoder is small."""
    with pytest.raises(RenderFailed, match="its text encoder has 2 layers"):
        make(engine, request(clip_skip=4))


def test_a_changed_checkpoint_is_noticed(engine: ChildEngine) -> None:
    """Another file under the same name would be another picture."""
    with pytest.raises(
        RenderFailed, match="is a different file now than when this image was requested"
    ):
        make(engine, request(checkpoint_hash="0" * 64))


def test_a_missing_checkpoint_is_named(engine: ChildEngine) -> None:
    """Taken away between the save and the picture."""
    with pytest.raises(RenderFailed, match="There is no 'gone' in models/checkpoints"):
        make(engine, request(checkpoint="gone", checkpoint_hash="0" * 64))


def test_an_exception_fails_the_batch_and_not_the_engine(engine: ChildEngine) -> None:
    """With a sentence, and the trace for the log."""
    make(engine, request(steps=1))
    process_id = engine.process_id
    failed = engine.render([request(width=0)], ignore_steps).exception(120)
    assert isinstance(failed, RenderFailed)
    assert failed.message.startswith("The engine failed: ")
    assert "Traceback" in failed.trace
    assert np.ptp(pixels(make(engine, request())[0])) > 50
    assert engine.process_id == process_id
