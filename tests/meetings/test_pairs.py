"""Pairs of features that did not get on, each as the shortest script that shows it."""

import errno

import pytest

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


def test_trying_failed_images_again_keeps_the_error_of_an_invalid_save() -> None:
    """Retry x invalid save: the error file says what is wrong with the save, and still is."""
    assert not found(
        ("bad", ("a",), False),
        ("save", "a.yaml", GOOD, "in place"),
        ("wait", 3.0),
        ("save", "a.yaml", BROKEN, "in place"),
        ("wait", 3.0),
        ("bad", (), False),
        ("command", "retry", None),
        ("wait", 3.0),
    )


def test_a_failure_does_not_take_the_place_of_an_invalid_saves_error() -> None:
    """Failed image x invalid save: who fixes the recipe has to know what is wrong with it."""
    assert not found(
        ("hold", True),
        ("bad", ("a",), False),
        ("save", "a.yaml", GOOD, "in place"),
        ("wait", 3.0),
        ("save", "a.yaml", BROKEN, "in place"),
        ("wait", 3.0),
        ("hold", False),
        ("wait", 3.0),
    )


def test_what_a_crash_left_is_repaired_though_the_next_start_could_not() -> None:
    """Crash x read-only outbox x end: the start after that one still knows of the crash."""
    assert not found(
        ("die", "atomic: rename", 1),
        ("wait", 3.0),
        ("trouble", errno.EROFS),
        ("start",),
        ("wait", 3.0),
        ("stop",),
    )


@pytest.mark.parametrize("pause", [0.4, 0.6, 0.9])
def test_a_recipe_moved_twice_between_two_looks_at_a_share_is_renamed(pause: float) -> None:
    """Rename x rename, by polling: the second comes after the first is settled."""
    assert not found(
        ("save", "live/c.yaml", GOOD, "in place"),
        ("wait", 8.0),
        ("move", "live/c.yaml", "c.yaml"),
        ("wait", pause),
        ("move", "c.yaml", "a.yaml"),
    )


def test_a_recipe_moved_three_times_between_looks_at_a_share_is_renamed() -> None:
    """Rename x rename x rename of its folder, by polling: each before the last one is settled."""
    assert not found(
        ("save", "c.txt", GOOD, "by rename"),
        ("wait", 8.0),
        ("move", "c.txt", "a.txt"),
        ("wait", 1.2),
        ("move", "a.txt", "live/c.txt"),
        ("wait", 0.6),
        ("move_folder", "live", "cats"),
        slowness=0.02,
    )


def test_an_error_file_does_not_outlive_its_recipe_and_the_ledger() -> None:
    """Lost ledger x deleted recipe: the new ledger knows neither."""
    assert not found(
        ("save", "a.yaml", BROKEN, "in place"),
        ("wait", 3.0),
        ("stop",),
        ("delete", "a.yaml"),
        ("ledger", "lost"),
    )


def test_a_save_while_the_outbox_is_away_does_not_keep_the_daemon_busy() -> None:
    """Outbox away x save: it was due at once, all the while."""
    assert not found(
        ("wait", 3.0),
        ("save", "a.yaml", GOOD, "in place"),
        ("wait", 1.2),
        ("outbox", False, False),
        ("wait", 8.0),
    )


def test_a_ledger_and_an_outbox_lost_at_once_leave_nothing_where_the_outbox_was() -> None:
    """Lost ledger x outbox away: it starts with a new one once the outbox is back."""
    assert not found(
        ("wait", 9.5),
        ("ledger", "lost"),
        ("wait", 0.8),
        ("outbox", False, False),
        ("wait", 3.0),
    )


def test_a_recipe_that_is_renamed_back_after_a_crash_has_its_error_file() -> None:
    """Rename of a refused recipe x crash x rename: the ledger never heard of either rename."""
    assert not found(
        ("save", "b.yaml", BROKEN, "in place"),
        ("wait", 3.0),
        ("die", "before the round of saves is committed", 1),
        ("move", "b.yaml", "a.yaml"),
        ("wait", 8.0),
        ("move", "a.yaml", "b.yaml"),
    )


def test_a_model_that_comes_while_the_ledger_is_locked_is_found() -> None:
    """Locked ledger x model: the save that is tried again looks at the models again."""
    assert not found(
        ("wait", 0.6),
        ("lock_ledger", True),
        ("save", "a.yaml", Text((Entry("a", seed=1, steps=(1,), lora=True),), 1), "in place"),
        ("wait", 1.5),
        ("lora", True),
        ("wait", 3.0),
    )


def test_a_deletion_at_the_moment_the_inbox_is_back_is_one_that_nobody_saw() -> None:
    """Before picowatch has looked at it again: as while the inbox was away."""
    assert not found(
        ("save", "a.yaml", GOOD, "in place"),
        ("wait", 8.0),
        ("inbox", False, False),
        ("wait", 1.5),
        ("inbox", True, False),
        ("delete", "a.yaml"),
    )


def test_a_recipe_with_the_name_of_an_archived_one_keeps_nothing_of_that() -> None:
    """Archive x refused save x good save: its random seeds are drawn as those of a new recipe."""
    wrong = Text((Entry("any", steps=(1,)),), 3, broken=True)
    assert not found(
        ("save", "a.yaml", Text((Entry("any", steps=(1,)),), 4), "in place"),
        ("wait", 8.0),
        ("save", "a.yaml", wrong, "in place"),
        ("wait", 8.0),
        ("save", "a.yaml", Text((Entry("any", steps=(1,)), Entry("b", seed=1)), 5), "in place"),
        when_done="archive",
    )


@pytest.mark.parametrize("change", [("move", "a.yaml", "b.yaml"), ("move", "a.yaml", "none.md")])
def test_a_refused_recipe_that_is_back_before_the_disk_is_has_its_error_file(
    change: Action,
) -> None:
    """Rename or deletion of a refused recipe x full disk x the same back: nothing was committed."""
    assert not found(
        ("save", "a.yaml", BROKEN, "in place"),
        ("wait", 8.0),
        ("trouble", errno.EIO),
        change,
        ("wait", 8.0),
        ("move", change[2], "a.yaml"),
    )
