"""Reports the changes of picowatch's ledger in order, each once it is committed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from picowatch.ledger import accept, contact_sheets, control, followups, queries, queue
from picowatch.ledger.ledger import Ledger

HEARD = {
    accept: ("accept", "refuse", "forget", "rename", "prioritise"),
    queue: ("claim", "hand_over", "finish", "fail", "put_back", "picture_missing"),
    control: ("retry", "cancel", "pause", "resume", "want_again"),
    followups: ("archive",),
    contact_sheets: ("follow_moved",),
    queries: ("seen",),
}


class Witness:
    """Wraps the ledger's functions from outside.

    `hear` gets the name, the arguments, the keyword arguments and the result of each committed
    call. `before_commit` may raise what a full disk raises, `after_commit` what a disk raises whose
    last sync failed; they are called if anything changed.
    """

    def __init__(
        self,
        hear: Callable[[str, Any, Any, Any], None],
        before_commit: Callable[[], None],
        after_commit: Callable[[], None],
    ) -> None:
        self._hear, self._before_commit, self._after_commit = hear, before_commit, after_commit
        self.forget()

    def forget(self) -> None:
        self._pending: list[tuple[int, str, Any, Any, Any]] = []  # with the transaction's depth
        self.opened: list[Ledger] = []
        self._changes = 0

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        for module, names in HEARD.items():
            for name in names:
                patch.setattr(module, name, self._heard(name, getattr(module, name)))
        prepare, undo = Ledger._prepare, Ledger._undo
        keep, commit = Ledger._keep, Ledger._commit

        def prepared(database: Ledger) -> None:
            self.opened.append(database)
            prepare(database)
            self._changes = database.changes

        def undone(database: Ledger, depth: int) -> None:
            self._pending = [call for call in self._pending if call[0] <= depth]
            self._changes = database.changes
            undo(database, depth)

        def kept(database: Ledger, depth: int) -> None:
            keep(database, depth)
            self._pending = [(min(call[0], depth), *call[1:]) for call in self._pending]

        def committed(database: Ledger) -> None:
            is_changed = database.changes != self._changes
            if is_changed:
                self._before_commit()
            commit(database)
            calls, self._pending, self._changes = self._pending, [], database.changes
            for _, *call in calls:
                self._hear(*call)
            if is_changed:
                self._after_commit()

        wrappers = {"_prepare": prepared, "_undo": undone, "_keep": kept, "_commit": committed}
        for name, replaced in wrappers.items():
            patch.setattr(Ledger, name, replaced)

    def _heard(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(ledger: Ledger, *given: Any, **named: Any) -> Any:
            arguments = [[*value] if isinstance(value, Iterator) else value for value in given]
            with ledger.transaction():
                result = original(ledger, *arguments, **named)
                self._pending.append((ledger._depth, name, arguments, named, result))
            return result

        return call
