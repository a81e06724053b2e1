"""Dropped pictures meet what recipes meet: scripts in which each image is accounted for."""

import pytest

from tests.meetings.recipes import Entry, Picture, Text
from tests.meetings.test_pairs import found
from tests.meetings.world import Action

ONE = Text((Entry("one", seed=1, steps=(1,)),), 1)
RANDOM = Text((Entry("any", steps=(1,)),), 2)
SWEEP = Text((Entry("a sweep", seed=1, count=2, steps=(1, 2)),), 3)
BROKEN = Text((Entry("one", seed=1, steps=(1,)),), 4, broken=True)
FRAMES = tuple(f"frames/a/{number}.png" for number in range(4))


def template(text: Text, folder: str = "frames") -> Action:
    return ("save", f"{folder}/_pictures.yaml", text, "in place")


def drop(path: str, colour: int) -> Action:
    return ("save", path, Picture(colour=colour), "in place")


def frames(text: Text = ONE) -> list[Action]:
    """A template, and pictures under it that all wait: the engine is held."""
    dropped = [drop(path, colour) for colour, path in enumerate(FRAMES)]
    return [("hold", True), template(text), *dropped, ("wait", 8.0)]


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("text", [ONE, RANDOM, SWEEP], ids=["seed", "random", "sweep"])
def test_frames_that_are_touched_copied_and_renamed_are_rendered_once(
    text: Text, events: bool
) -> None:
    """Touch x rename x copy x batch x sweep: while they wait, and after they were rendered."""
    meets: list[Action] = [
        ("again", FRAMES[0], "touch"),
        ("again", FRAMES[1], "by rename"),
        ("move", FRAMES[2], "frames/a/moved.png"),
        ("copy", FRAMES[3], "frames/b/copy.png"),
        ("wait", 8.0),
    ]
    again: list[Action] = [
        ("hold", False),
        ("wait", 8.0),
        ("again", FRAMES[0], "touch"),
        ("move", FRAMES[1], "frames/b/1.png"),
        ("move_folder", "frames/a", "frames/c"),
        ("wait", 8.0),
    ]
    assert not found(*frames(text), *meets, *again, events=events, batch_size=3)


@pytest.mark.parametrize("engines", [1, 3])
def test_frames_that_are_replaced_deleted_or_cancelled_are_not_rendered_as_they_were(
    engines: int,
) -> None:
    """Replace x delete x cancel x retry: also at the moment in which their turn comes."""
    assert not found(
        *frames(),
        drop(FRAMES[0], 9),
        ("delete", FRAMES[1]),
        ("command", "cancel", FRAMES[2]),
        ("hold", False),
        ("wait", 8.0),
        ("again", FRAMES[2], "touch"),
        ("hold", True),
        drop(FRAMES[3], 10),
        ("wait", 4.0),
        drop(FRAMES[3], 11),
        ("hold", False),
        ("wait", 8.0),
        engines=engines,
    )


def test_a_frame_that_is_away_when_its_turn_comes_is_rendered_when_it_is_back() -> None:
    """Delete x claim x the same bytes again: nobody saw that it was gone."""
    assert not found(
        *frames(),
        ("delete", FRAMES[0]),
        ("hold", False),
        ("wait", 1.0),
        drop(FRAMES[0], 0),
        ("wait", 8.0),
    )


@pytest.mark.parametrize("restart", [False, True])
def test_frames_that_are_elsewhere_at_their_turn_are_rendered_when_they_are_back(
    restart: bool,
) -> None:
    """Move x claim x move back x restart: as they were, so that nobody wrote to them."""
    assert not found(
        *frames(),
        ("move_folder", "frames/a", "elsewhere"),
        ("hold", False),
        ("wait", 1.0),
        *([("stop",)] if restart else []),
        ("move_folder", "elsewhere", "frames/a"),
        ("start",),
        ("wait", 8.0),
    )


@pytest.mark.parametrize("new", [SWEEP, BROKEN], ids=["another", "wrong"])
def test_a_template_that_changes_while_frames_wait_holds_for_those_saved_later(new: Text) -> None:
    """Template x queue x touch: what waits is rendered as it was requested."""
    assert not found(
        *frames(),
        template(new),
        ("wait", 4.0),
        drop("frames/late.png", 20),
        ("wait", 4.0),
        ("again", FRAMES[0], "touch"),
        ("wait", 8.0),
        ("hold", False),
        ("wait", 8.0),
        template(SWEEP),
        ("wait", 8.0),
    )


def test_frames_that_fail_are_rendered_by_a_retry_and_by_a_touch() -> None:
    """Retry x failed frames, with an engine that dies for one of them."""
    assert not found(
        ("bad", ("one",), False),
        *frames(),
        ("hold", False),
        ("wait", 8.0),
        ("bad", ("one",), True),
        ("command", "retry", FRAMES[0]),
        ("wait", 8.0),
        ("bad", (), False),
        ("again", FRAMES[1], "touch"),
        ("command", "retry", None),
        ("wait", 8.0),
    )


@pytest.mark.parametrize("text", [ONE, RANDOM], ids=["seed", "random"])
def test_frames_of_a_lost_ledger_are_rendered_once(text: Text) -> None:
    """Lost ledger x rendered, waiting, renamed and deleted frames."""
    assert not found(
        *frames(text),
        ("hold", False),
        ("wait", 8.0),
        ("move", FRAMES[0], "frames/b/0.png"),
        ("hold", True),
        drop("frames/late.png", 20),
        ("wait", 8.0),
        ("kill",),
        ("delete", FRAMES[1]),
        ("ledger", "lost"),
        ("hold", False),
        ("start",),
        ("wait", 8.0),
        ("again", FRAMES[2], "touch"),
        ("wait", 8.0),
    )


def test_a_frame_that_is_moved_before_it_is_answered_is_not_refused() -> None:
    """Its bytes were read, and it is gone when its size is looked at."""
    assert not found(
        template(ONE),
        drop(FRAMES[0], 4),
        ("wait", 3.0),
        ("move", FRAMES[0], FRAMES[1]),
        ("wait", 8.0),
        switching=0.3,
    )


@pytest.mark.parametrize("how", ["archive", "delete"])
@pytest.mark.parametrize("engines", [1, 3])
def test_frames_that_are_archived_or_deleted_may_come_again(how: str, engines: int) -> None:
    """`when_done` x touch x the same name again x crash in the middle."""
    assert not found(
        *frames(),
        ("again", FRAMES[0], "touch"),
        ("hold", False),
        ("wait", 8.0),
        ("die", "while a recipe is taken out of the inbox", 1),
        drop(FRAMES[0], 0),
        drop(FRAMES[1], 30),
        ("wait", 8.0),
        ("start",),
        ("wait", 8.0),
        when_done=how,
        engines=engines,
    )


@pytest.mark.parametrize(
    "point",
    [
        "before a save is read",
        "before the round of saves is committed",
        "in the middle of a claim",
        "before a dropped picture's copy is in place",
        "before a dropped picture's copy is deleted",
        "before the ledger says done",
    ],
)
def test_a_crash_between_frames_loses_and_repeats_none(point: str) -> None:
    """Crash x frames that are renamed, replaced and deleted before the next start."""
    assert not found(
        ("die", point, 3),
        *frames(),
        ("hold", False),
        ("wait", 8.0),
        ("move", FRAMES[0], "frames/b/0.png"),
        drop(FRAMES[1], 40),
        ("delete", FRAMES[2]),
        ("start",),
        ("wait", 8.0),
    )
