"""Reports the changes of picowatch's ledger in order, each once it is committed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from picowatch.ledger.database import Database
from picowatch.ledger.ledger import Ledger

HEARD = (
    "accept", "refuse", "forget", "archive", "rename", "claim", "hand_over", "finish", "fail",
    "put_back",
    "nothing_is_written", "picture_missing", "retry", "cancel", "prioritise",
    "pause", "resume", "want_again",
)  # fmt: skip


class Witness:
    """Wraps the ledger's methods from outside.

    `hear` gets the name, the arguments, the keyword arguments and the result of each committed
    call. `before_commit` may raise what a full disk raises; it gets whether anything changed.
    """

    def __init__(
        self,
        hear: Callable[[str, tuple[Any, ...], dict[str, Any], Any], None],
        before_commit: Callable[[bool], None],
    ) -> None:
        self._hear, self._before_commit = hear, before_commit
        self.forget()

    def forget(self) -> None:
        """Forget everything, because the process died."""
        self._depth = 0
        self._pending: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        for name in HEARD:
            patch.setattr(Ledger, name, self._heard(name, getattr(Ledger, name)))
        patch.setattr(Database, "transaction", self._transaction(Database.transaction))

    def _heard(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(ledger: Ledger, *arguments: Any, **named: Any) -> Any:
            with ledger.transaction():
                result = original(ledger, *arguments, **named)
                self._pending.append((name, arguments, named, result))
            return result

        return call

    def _transaction(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def transaction(database: Database) -> Iterator[Any]:
            outermost, told = False, 0
            try:
                with original(database) as sql:  # from here on no other thread is in here
                    outermost = not self._depth
                    mark, before = len(self._pending), sql.total_changes
                    self._depth += 1
                    try:
                        yield sql
                        if outermost:
                            self._before_commit(sql.total_changes != before)
                    except BaseException:
                        del self._pending[mark:]
                        raise
                    finally:
                        self._depth -= 1
                        told = len(self._pending)
            except BaseException:
                if outermost:
                    del self._pending[:told]
                raise
            if outermost:
                calls, self._pending = self._pending[:told], self._pending[told:]
                for call in calls:
                    self._hear(*call)

        return transaction
