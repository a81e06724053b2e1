"""Words that change between the steps: what guides each evaluation, and the pictures."""

from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import difference, ignore_steps, request
from tests.engine.unet.test_prompts import encode, encoder

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STAR, HEART = "a yellow star on a blue background", "a red heart on a blue background"
HALF = Hires(scale=2.0, denoising_strength=0.5)


def guiding(*requests: ImageRequest, chunks: int = 1) -> list[list[tuple[torch.Tensor, ...]]]:
    """The negative prompts and the prompts that guide a batch, at each evaluation of each pass."""
    with torch.inference_mode():
        schedules = encoder().schedules(requests, chunks)
        return [
            [
                (both.negative.states, both.positive.states)
                for both in one.evaluations(torch.float32)
            ]
            for one in schedules
        ]


@pytest.mark.parametrize(
    ("prompt", "values", "words"),
    [
        ("[a:b:2]", {}, ["aaabbb"]),
        ("[a:b:0.5]", {}, ["aaaabb"]),
        ("[a|b]", {}, ["aababa"]),
        ("[a|b|c]", {"sampler": "PNDM"}, ["aabcabc"]),
        ("[a:b:0.5]", {"sampler": "Heun", "steps": 3}, ["aaaab"]),
        ("[a:b:2]", {"sampler": "Heun", "steps": 3}, ["aaabb"]),
        ("[a:b:0.5]", {"image": "x.png", "denoising_strength": 0.5}, ["aaa"]),
        ("[a:b:1]", {"image": "x.png", "denoising_strength": 0.5}, ["aab"]),
        ("[a:b:0.5]", {"hires": HALF}, ["aaaabb", "bbb"]),
        ("[a:b:1.4]", {"hires": HALF}, ["aaaaaa", "aab"]),
        ("[a:b:7]", {"hires": HALF}, ["aaaaaa", "aab"]),
        ("[a|b]", {"hires": HALF}, ["aababa", "aab"]),
        ("<lora:x:1>[a<lora:y:1>:b:2]", {}, ["aaabbb"]),
        (r"a[\|:\|:1]", {"steps": 2}, ["||"]),
    ],
)
def test_each_evaluation_is_guided_by_the_words_of_its_step(
    prompt: str, values: dict[str, Any], words: list[str]
) -> None:
    """A1111's counting, in both prompts and both passes; all in one length."""
    for field in ("prompt", "negative_prompt"):
        given = {"steps": 6, "prompt": "c", **values, field: prompt}
        passes = guiding(request(**given))
        for evaluations, letters in zip(passes, words, strict=True):
            expected = [encode(f"a{one}" if one == "|" else one) for one in letters]
            found = [both[field == "prompt"] for both in evaluations]
            assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def test_conditions_are_joined_anew_only_where_words_change() -> None:
    """A step without a change costs nothing."""
    ((*evaluations,),) = guiding(request("[a:b:2]", steps=6), request("c", steps=6))
    positives = [positive for _, positive in evaluations]
    assert len({id(positive) for positive in positives}) == 2
    assert torch.equal(positives[0], torch.cat([encode("a"), encode("c")]))
    assert torch.equal(positives[-1], torch.cat([encode("b"), encode("c")]))


def test_parts_of_a_batch_keep_the_words_of_their_images() -> None:
    """On a CPU each core renders some of the images, which change at steps of their own."""
    requests = [request(f"[a:b:{when}]", steps=6) for when in (1, 3)]
    with torch.inference_mode():
        (schedule,) = encoder().schedules(requests, 1)
        (alone,) = encoder().schedules(requests[1:], 1)
    for one, other in zip(
        schedule.of_images([1]).evaluations(torch.float32),
        alone.evaluations(torch.float32),
        strict=True,
    ):
        assert torch.equal(one.positive.states, other.positive.states)


def test_all_words_are_encoded_at_the_length_of_the_longest() -> None:
    """So that shapes, and a compiled UNet, stay."""
    wanted = request("[a:b BREAK c:1]", steps=3)
    assert encoder().chunk_count(wanted) == 2
    assert encoder().chunk_count(request("[a BREAK b:c:-1]", steps=3)) == 1
    ((*evaluations,),) = guiding(wanted, chunks=2)
    assert torch.equal(evaluations[0][1], encode("a", length=2))
    assert torch.equal(evaluations[2][1], encode("b BREAK c"))


def test_a_long_prompt_is_encoded_once_for_each_of_its_words() -> None:
    """Chunks that do not change are those of the step before, and of the last batch."""
    shared = ", ".join(["cat"] * 30)
    prompts = encoder()
    prompts.forget()
    guiding(request(f"{shared} BREAK [a|b]", steps=20), chunks=2)
    assert len(prompts._encoded) == 4  # with an empty chunk


@pytest.fixture(scope="module")
def engine() -> Renderer:
    return Renderer(EngineOptions(models=Path("nowhere"), device="cpu", threads=1))


def asked(prompt: str, **values: Any) -> ImageRequest:
    small = {"width": 64, "height": 64, "seed": 3, "steps": 4, "sampler": "Euler a"}
    return request(prompt, **{**small, "schedule_type": "uniform", **values})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cfg_scale": 1.0},
        {"cfg_rescale": 0.7, "exact": True},
        {"sampler": "Heun", "hires": Hires(scale=1.5, denoising_strength=0.5)},
    ],
)
def test_an_edit_without_a_change_is_the_plain_picture(
    engine: Renderer, values: dict[str, Any]
) -> None:
    """To the last bit, of a batch whose other image does change; a change changes pixels."""
    batches = (
        (asked(STAR, **values), asked(HEART, **values)),
        (asked(f"[{HEART}:{STAR}:0]", **values), asked(f"[{STAR}:{HEART}:1]", **values)),
    )
    plain, edited = (
        [engine.render([one], ignore_steps)[0] for one in batch]
        if values.get("exact")
        else engine.render(batch, ignore_steps)
        for batch in batches
    )
    assert difference(plain[0], edited[0]) == 0
    assert difference(plain[1], edited[1]) > 0
    assert difference(plain[0], edited[1]) > 0
