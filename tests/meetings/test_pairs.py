"""Pairs of features that did not get on, each as the shortest script that shows it."""

from tests.meetings.play import Script, play
from tests.meetings.recipes import Entry, Text
from tests.meetings.world import Action, Habits

GOOD = Text((Entry("a", seed=1, count=2, steps=(1,)),), 1)
BROKEN = Text((Entry("a", seed=1, count=2, steps=(1,)),), 2, broken=True)


def found(*actions: Action, **habits: object) -> list[str]:
    """What is wrong after these actions."""
    return play(Script(0, Habits(**habits), actions))  # type: ignore[arg-type]


def test_an_error_file_of_an_uncommitted_answer_does_not_outlive_its_recipe() -> None:
    """Crash x rename: the recipe is elsewhere at the next start, and was never known here."""
    assert not found(
        ("die", "before the round of saves is committed", 1),
        ("save", "a.yaml", BROKEN, "in place"),
        ("wait", 1.5),
        ("delete", "a.yaml"),
    )
