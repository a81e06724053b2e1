"""Why a run cannot go on: one reason, whichever thread finds it."""

from picowatch.work.result import RunResult


def test_the_first_reason_counts() -> None:
    """What fails later most often follows from it."""
    result = RunResult()
    result.cannot_go_on("the disk is full")
    result.cannot_go_on("the engine cannot start")
    assert result.reason == "the disk is full"
    assert not result.succeeded
    assert not result.restart


def test_a_reason_that_another_daemon_gets_over_counts_more() -> None:
    """A damaged ledger fails in many ways before it is known to be damaged."""
    result = RunResult()
    result.cannot_go_on("saves cannot be answered")
    result.cannot_go_on("the ledger is damaged", ledger_corrupt=True)
    result.cannot_go_on("the outbox was replaced", restart=True)
    assert result.reason == "the ledger is damaged"
    assert result.ledger_corrupt
    assert result.restart


def test_what_failed_is_no_reason_to_end() -> None:
    """A refused save and a failed image end nothing, but such a run did not succeed."""
    result = RunResult()
    assert result.succeeded
    result.count_failure()
    assert not result.succeeded
    assert not result.reason
