"""A desk beside a running daemon: programs save recipes on it, and it counts what is made."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.house import House, wait_for

STEPS = 30  # a recipe that is read too early has `steps: 3`, or none
# Longer than any of these programs pauses within one save. The product's half second would hide
# recipes that are read too early.
SETTLE_SECONDS = 0.2
SENTINELS = "sentinel"


def recipe(prompt: str) -> str:
    """Return a recipe's text, of which each beginning is another valid recipe."""
    return f"prompt: {prompt}\nsteps: {STEPS}\n"


class Desk:
    """Counts the runs of the recipes that programs save in the house's inbox."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.inbox = house.inbox
        self._expected: dict[str, list[str]] = {}
        self._sentinels = 0

    def expect_run(self, name: str, *prompts: str) -> None:
        """Wait for one run of a recipe's bytes as they are now, with pictures of `prompts`."""
        expected = self._expected.setdefault(name, [])
        expected += prompts
        wait_for(
            lambda: len(self._pictures(name)) >= len(expected),
            f"{prompts} of {name}\n{self.house.log()}",
        )
        chunks = [self.house.chunk(picture) for picture in self._pictures(name)]
        assert [chunk.request.prompt for chunk in chunks] == expected, self.house.log()
        digest = hashlib.sha256((self.inbox / name).read_bytes()).hexdigest()
        newest = chunks[-len(prompts) :]
        assert {chunk.save_digest for chunk in newest} == {digest}, "not the final bytes"
        if name.endswith(".yaml"):
            assert {chunk.request.steps for chunk in newest} == {STEPS}

    def make_another(self) -> None:
        """Save another recipe and wait for its picture: a scan, and more than a settle time."""
        self._sentinels += 1
        name = f"{SENTINELS}/{self._sentinels}.txt"
        self.house.save(name, "a sentinel\n")
        wait_for(lambda: self._pictures(name), "the sentinel's picture")

    def expect_nothing_more(self, *, deletions: int = 0) -> None:
        """Check that each save was accepted once, and that nothing more comes or goes wrong.

        What is noticed before another recipe is accepted before it.
        """
        self.make_another()
        self.expect_only_what_was_made()
        log = self.house.log()
        for name, prompts in self._expected.items():
            told = re.findall(rf" {re.escape(name)}: saved, (.*)", log)
            queued = [int(words.split()[0]) for words in told if " queued" in words]
            assert sum(queued) == len(prompts), log
            assert 0 not in queued, log
            assert len(told) == len(queued), log
        assert log.count(": deleted, ") <= deletions, log
        assert ": renamed to " not in log, log

    def expect_only_what_was_made(self) -> None:
        made = [path for path in self.house.pictures() if not path.startswith(f"{SENTINELS}/")]
        assert made == sorted(path for name in self._expected for path in self._pictures(name))
        counts = {name: len(self._pictures(name)) for name in self._expected}
        assert counts == {name: len(prompts) for name, prompts in self._expected.items()}
        assert " error " not in self.house.log(), self.house.log()
        assert not list(self.house.outbox.rglob("*.error.txt"))

    def _pictures(self, name: str) -> list[str]:
        return self.house.pictures(str(Path(name).with_suffix("")))


@contextmanager
def desk_of(house: House) -> Iterator[Desk]:
    """Give a desk while the daemon runs; at the end a restart must find nothing new."""
    desk = Desk(house)
    with house.running(settle_seconds=SETTLE_SECONDS):
        yield desk
    assert house.once()
    desk.expect_only_what_was_made()
