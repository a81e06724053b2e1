"""A batch whose pictures are on their way from a GPU, and the next one that begins meanwhile."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import pytest
from picowatch.engine.process.wire import Ended, FromEngine, Ready, Render, Step, StepsDone
from PIL import Image

from picowatch.engine import child_main
from picowatch.engine.child import ChildEngine
from picowatch.engine.child_main import _Server
from picowatch.engine.protocol import OnStep, RenderedImage
from picowatch.errors import EngineDied, EngineStopped, RenderFailed
from tests.digest_engine import digest_picture, digest_pixels
from tests.engine.process.overlapping_engine import BEGAN_FILE, DIES
from tests.engine.requests import request
from tests.house import House, wait_for

STEPS = 4


@dataclass
class Pictures:
    """They come when they were asked for often enough, or fail."""

    asked: int
    found: list[RenderedImage] | Exception

    def has_come(self) -> bool:
        self.asked -= 1
        return self.asked < 0

    def images(self) -> list[RenderedImage]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@dataclass
class Renderer:
    """Gives pictures later where others are queued: in `come_after` looks, or `failures` first.

    A batch that is interrupted has no steps.
    """

    come_after: int = 1
    failures: list[Exception] = field(default_factory=list)
    rendered: list[str] = field(default_factory=list)

    def begin(self, work: Render, on_step: OnStep, interrupted: Callable[[], bool]) -> Any:
        self.rendered.append(work.batch[0].prompt)
        if interrupted():
            raise EngineStopped("interrupted")
        for done in range(1, STEPS + 1):
            on_step(done, STEPS)
        pictures = [digest_picture(one, len(work.batch)) for one in work.batch]
        if not work.waiting:
            return pictures
        return Pictures(self.come_after, self.failures.pop(0) if self.failures else pictures)


class Replies:
    """Notes what is sent, by the number of its batch."""

    def __init__(self) -> None:
        self.number = 0
        self.sent: list[tuple[int, FromEngine]] = []

    def send(self, message: FromEngine, number: int | None = None) -> None:
        self.sent.append((self.number if number is None else number, message))

    def step(self, done: int, total: int) -> None:
        self.send(Step(done, total))


def served(
    renderer: Renderer, *prompts: str, again: int = 0, interrupted: int | None = None
) -> list[tuple[int, FromEngine]]:
    """What is sent for these batches; the last one has no others behind it."""
    batches: SimpleQueue[Render] = SimpleQueue()
    for number, prompt in enumerate(prompts):
        batches.put(Render(number, (request(prompt),), len(prompts) - 1 - number))
    replies: Any = Replies()
    server = _Server(replies, lambda: renderer, batches, lambda number: number == interrupted)
    for _ in range(len(prompts) + again):
        server.render_next()
    sent: list[tuple[int, FromEngine]] = replies.sent
    return sent


def brief(sent: Sequence[tuple[int, FromEngine]]) -> str:
    return " ".join(
        f"{number}{type(message).__name__}"
        for number, message in sent
        if type(message) is not Ready
    )


def outcomes(sent: Sequence[tuple[int, FromEngine]]) -> dict[int, Any]:
    """What each batch ended with: once."""
    ended = [(number, one.outcome) for number, one in sent if isinstance(one, Ended)]
    assert len(ended) == len(dict(ended))
    return dict(ended)


@pytest.mark.parametrize(
    ("come_after", "expected"),
    [
        (1, "0StepsDone 1Step 1Step 0Ended 1Step 1Step 1Ended"),
        # The next one's steps are done before: its pictures wait for them.
        (9, "0StepsDone 1Step 1Step 1Step 1Step 0Ended 1Ended"),
    ],
)
def test_pictures_are_sent_between_the_steps_of_the_next_batch(
    come_after: int, expected: str
) -> None:
    """In the batches' order, each with its own."""
    sent = served(Renderer(come_after), "a", "b")
    assert brief(sent).removeprefix("0Step " * STEPS) == expected
    found = outcomes(sent)
    for number, prompt in enumerate("ab"):
        assert found[number] == [digest_picture(request(prompt), 1)]


def test_what_lacks_memory_beside_another_batch_is_rendered_by_itself() -> None:
    """From its first step, after the other one; the ladder is for it alone."""
    renderer = Renderer(1, [RuntimeError("CUDA out of memory. Tried to allocate 9 GiB.")])
    sent = served(renderer, "a", "b", again=1)
    assert renderer.rendered == ["a", "b", "a"]
    assert outcomes(sent) == {
        0: [digest_picture(request("a"), 1)],
        1: [digest_picture(request("b"), 1)],
    }


def test_what_lacked_memory_waits_for_no_others_and_is_not_interrupted_with_them() -> None:
    """A queue may go on for hours, and an interruption is of one batch."""
    renderer = Renderer(1, [RuntimeError("CUDA out of memory. Tried to allocate 9 GiB.")])
    sent = served(renderer, "a", "b", "c", again=1)
    assert renderer.rendered == ["a", "b", "a", "c"]
    assert outcomes(sent) == {n: [digest_picture(request(p), 1)] for n, p in enumerate("abc")}
    renderer = Renderer(9, [RuntimeError("CUDA out of memory. Tried to allocate 9 GiB.")])
    found = outcomes(served(renderer, "a", "b", again=1, interrupted=1))
    assert isinstance(found[1], EngineStopped)
    assert found[0] == [digest_picture(request("a"), 1)]


def test_a_picture_that_fails_fails_its_own_batch() -> None:
    """Not the one whose steps are made."""
    found = outcomes(served(Renderer(1, [RenderFailed("one single colour", "")]), "a", "b"))
    assert isinstance(found[0], RenderFailed)
    assert found[1] == [digest_picture(request("b"), 1)]


def test_a_broken_gpu_ends_the_engine_with_the_batch_that_was_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are rendered by another process; to ask whether they have come may say so first."""
    error = RuntimeError("unknown error")
    monkeypatch.setattr(child_main, "broken_gpu", lambda: f"CUDA error: {error}")
    monkeypatch.setattr(Pictures, "has_come", Mock(side_effect=error))
    sent: list[Any] = []
    monkeypatch.setattr(Replies, "send", lambda self, *told: sent.append(told))
    with pytest.raises(SystemExit):
        served(Renderer(1, [error]), "a", "b")
    ended, number = sent[-1]
    assert number == 0
    assert isinstance(ended.outcome, EngineDied)


def test_pictures_are_sent_although_no_other_batch_comes() -> None:
    """The daemon's queue may have been emptied meanwhile."""
    batches: SimpleQueue[Render] = SimpleQueue()
    batches.put(Render(0, (request("a"),), 1))
    replies: Any = Replies()

    class Last(SimpleQueue[Render]):
        """Ends the test where the engine would wait for ever."""

        def get(self, block: bool = True, timeout: float | None = None) -> Render:
            if timeout is None and batches.empty():
                raise InterruptedError
            return batches.get(block, timeout)

    server = _Server(replies, lambda: Renderer(3), Last(), lambda _: False)
    server.render_next()
    with pytest.raises(InterruptedError):
        server.render_next()
    assert brief(replies.sent).endswith("0StepsDone 0Ended")
    assert StepsDone() in [message for _, message in replies.sent]


PROGRAM = "tests.engine.process.overlapping_engine"


@pytest.fixture
def overlapping(house: House) -> House:
    """Its engine's pictures come while the next batch makes its steps."""
    house.make_engine = lambda options: ChildEngine(options, PROGRAM)
    return house


def began(house: House) -> list[list[str]]:
    text = (house.models / BEGAN_FILE).read_text()
    return [line.split() for line in text.splitlines()]


def assert_all_there(house: House, seeds: range) -> None:
    """Each picture once, with its own pixels."""
    found: dict[int, str] = {}
    for picture in house.pictures():
        one = house.chunk(picture).request
        found[one.seed] = picture
        with Image.open(house.outbox / picture) as image:
            assert image.tobytes() == digest_pixels(one)
    assert len(house.pictures()) == len(found)
    assert sorted(found) == [*seeds]
    images = house.status()["images"]
    assert (images["done"], images["failed"], images["queued"]) == (len(seeds), 0, 0)


def test_every_picture_of_a_queue_is_published_once(overlapping: House) -> None:
    """Each batch but the first begins beside the one before it."""
    overlapping.save("a.yaml", "prompt: a\nseed: 1\ncount: 6\nsteps: 8\n")
    overlapping.once(batch_size=1)
    assert_all_there(overlapping, range(1, 7))
    assert [how for _, how in began(overlapping)] == ["alone", *["beside"] * 5]


def test_a_stop_and_a_death_in_between_lose_nothing(overlapping: House) -> None:
    """Only the batch that was drawn and the one in progress are rendered again."""
    overlapping.save("a.yaml", f"prompt: {DIES}\nseed: 4\nsteps: 8\n---\nprompt: a\nseed: 5\n")
    overlapping.save("b.yaml", "prompt: b\nseed: 1\ncount: 3\nsteps: 8\npriority: 1\n")
    with overlapping.running(batch_size=1):
        wait_for(lambda: (overlapping.models / BEGAN_FILE).exists(), "the engine")
        wait_for(lambda: len(began(overlapping)) >= 2, "a batch beside another one")
    overlapping.once(batch_size=1)
    assert_all_there(overlapping, range(1, 6))
    times = Counter(int(seed) for seed, _ in began(overlapping))
    assert sum(times.values()) <= 5 + 2 + 2, "two at the stop and two at the death at most"
