"""The machine with its user, and the model that is told what picowatch does."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from picowatch.daemon.accept import Accepting
from picowatch.ledger.rows import PutBack
from tests.meetings import checks
from tests.meetings.machine import PATIENCE, Habits
from tests.meetings.recipes import TEMPLATE, Entry, Picture, Text
from tests.meetings.user import User, Version

SETTLED_SECONDS = 6.0  # after which everything that was done to the inbox is handled
HUNG_SECONDS = 600.0  # an engine without a sign of life is ended after that
DEATHS = 4  # of the daemon with an image in progress, after which the next one sets it aside
IN_THE_OUTBOX = {"command", "lose_picture", "damage", "foreign", "lock_ledger"}
PROBE = "probe.yaml"

Action = tuple[Any, ...]


class World(User):
    """A run of the machine."""

    def __init__(self, base: Path, seed: int, habits: Habits) -> None:
        super().__init__(base, seed, habits)
        self.paused = False
        self.missed: set[str] = set()  # dropped pictures that were not there at their turn
        self.again: dict[str, str] = {}  # what a command has read again, and how ("read", "saved")

    def do(self, action: Action) -> None:
        """Do an action, unless it is impossible now."""
        name, *given = action
        self.counts[name] += 1
        if self.outbox_away and name in IN_THE_OUTBOX:
            return
        self._look_into_the_inbox()
        getattr(self, f"do_{name}")(*given)

    def expect(self, holds: object, words: str) -> None:
        """Note a finding unless a condition holds."""
        if not holds:
            self.findings.append(words)

    def _wrap_picowatch(self, patch: pytest.MonkeyPatch) -> None:
        super()._wrap_picowatch(patch)
        handle = Accepting._safely

        def remember(accepting: Accepting, change: Any, inventory: Any) -> Any:
            """Remember the defaults and templates that are read together with a recipe."""
            if (seen := getattr(change, "size_and_time", None)) is not None:
                self.defaults_read[change.path, seen.mtime_ns] = dict(self.defaults)
                if template := self.template_of(change.path):
                    self.templates_read[change.path, seen.mtime_ns] = template
            return handle(accepting, change, inventory)

        patch.setattr(Accepting, "_safely", remember)

    # -- saves, as the ledger tells of them

    def hear(self, name: str, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        try:
            getattr(self, f"_heard_{name}")(*given, result=result, **named)
        except Exception as error:  # the daemon's thread must not see it
            self.findings.append(f"{name}{given[:2]}: {type(error).__name__}: {error}")

    def _heard_accept(self, save: Any, entries: object, *, result: object, **_: Any) -> None:
        before = self.handled.get(save.path)
        version = self._handled_now(save.path, save.digest, save.size_and_time.mtime_ns)
        if version is None:
            return
        found = self.meaning(save.path, version)
        self.expect(found is not None, f"{save.path} was accepted although it is wrong")
        same = before is not None and before.digest == version.digest
        is_asked = self.again.pop(save.path, "") == "saved"
        is_again = same and not is_asked and isinstance(version.text, Picture)
        self.model.saved(save.path, found or [], is_again=is_again)

    def _heard_refuse(self, save: Any, problem: object, *, result: object, **_: Any) -> None:
        if save.path.endswith(TEMPLATE) and not save.size_and_time.mtime_ns:
            return  # of a picture under it
        version = self._handled_now(save.path, save.digest, save.size_and_time.mtime_ns)
        if version is None:
            return
        just_changed = self.away or self.sim.now - self.pictures_changed_at < 3.0
        is_wrong = self.meaning(save.path, version) is None
        self.again.pop(save.path, None)
        self.expect(just_changed or is_wrong, f"{save.path} was refused although it is right")
        self.model.rejected(save.path)

    def _handled_now(self, path: str, digest: str, mtime: int) -> Version | None:
        """Return the version that was accepted or refused, which must be a new one."""
        last = self.handled.get(path)
        candidates = [
            version
            for version in self.versions.get(path, ())
            if (version.digest, version.mtime) == (digest, mtime)
            # What was moved over another recipe may be older than that.
            and (last is None or version.serial > last.serial or self.files.get(path) is version)
        ]
        if not candidates:
            recipe = self.model.recipes.get(path)
            is_back = last is not None and last.digest == digest
            if is_back and ((recipe and not recipe.valid) or path in {*self.missed, *self.again}):
                self.missed.discard(path)
                return last  # it was renamed, or what it lacked has come, or it is back
            self.expect(False, f"{path} was handled although nobody saved it")
            return None
        version = candidates[0]
        other, known = version.source, self.handled.get(version.source)
        is_new = last is None  # over another recipe it is an edit of that
        if is_new and known and known.digest == digest and self.model.recipes[other].valid:
            unseen = other in self.ghosts and known.mtime != version.mtime  # … it was written to
            is_there = other == path or other in self.files
            self.expect(is_there or unseen, f"{other} was renamed to {path}, which was made anew")
        self.handled[path] = version
        self.written_again.discard(path)
        return version

    def _heard_forget(self, path: str, *, result: object) -> None:
        self.again.pop(path, None)
        known, there = self.handled.pop(path, None), self.files.get(path)
        if known is not None and there is not None:
            was_away = path in self.left or there.serial != known.serial
            self.expect(was_away, f"{path} was forgotten although it is there")
        elif known is not None and self.model.recipes[path].valid:
            twins = any(version.digest == known.digest for version in self.handled.values())
            for other, version in self.files.items():
                new = self.handled.get(other)
                is_unseen = new is None or new.serial < version.serial
                is_moved = version.source and is_unseen and version.digest == known.digest
                self.expect(twins or not is_moved, f"{path} is forgotten, not renamed to {other}")
        self.model.deleted_recipe(path)

    def _heard_archive(self, path: str, *, result: object) -> None:
        self.again.pop(path, None)
        known, there = self.handled.pop(path, None), self.files.get(path)
        is_taken = self.habits.when_done != "keep" and not (self.there / path).exists()
        self.expect(is_taken, f"{path} was archived although it is to stay")
        if known is not None and there is not None and there.digest == known.digest:
            del self.files[path]
        self.model.deleted_recipe(path)

    def _heard_rename(self, old: str, new: str, at: Any, folder: str, *, result: object) -> None:
        known = self.handled.pop(old, None)
        self.again.pop(new, None)
        if old in self.again:
            self.again[new] = self.again.pop(old)
        if old in self.missed:
            self.missed.discard(old)
            self.missed.add(new)
        is_there = old in self.files and old not in self.left
        candidates = [
            version
            for version in self.versions.get(new, ())
            if known and (version.digest, version.mtime) == (known.digest, at.mtime_ns)
        ]
        self.expect(candidates and not is_there, f"{old} was taken for renamed to {new}")
        if candidates:
            self.handled[new] = candidates[-1]
        self.model.renamed(old, new)

    def _heard_want_again(self, recipes: Sequence[str], *, result: object, as_saved: bool) -> None:
        """Take `retry --all` or `make DIR`: recipes are read again, if idle as if saved."""
        for path in self.handled.keys() & {*recipes}:
            is_new = as_saved and not self.model.is_unfinished(path)
            self.again[path] = "saved" if is_new else max(self.again.get(path, ""), "read")

    def _heard_prioritise(self, path: str, priorities: list[int], *, result: object) -> None:
        """Take a recipe that was moved to a folder with other defaults."""
        self.model.prioritised(path, priorities)

    # -- images

    def _heard_claim(self, *_: object, result: Any) -> None:
        self.expect(not (self.paused and result), "an image was started in a pause")
        self.model.started(result)

    def _heard_hand_over(self, batch: Any, *, result: set[int]) -> None:
        self.model.drawn(result)

    def _heard_nothing_is_written(self, *, result: object) -> None:
        self.model.nothing_is_drawn()

    def _heard_finish(self, batch: Any, listed: object, *, result: object) -> None:
        for image in batch:
            self.model.ended(image.id, "done")
            self.counts["pictures"] += 1

    def _heard_fail(self, image_id: int, reason: str, *, result: object, **_: Any) -> None:
        if image := self.model.by_id.get(image_id):
            made_of = image.prompt, image.seed or 0
            hung = self.sim.now - self.began.get(made_of, self.sim.now) > HUNG_SECONDS
            is_blamed = made_of in self.blamed or hung or image.deaths >= DEATHS
            self.expect(is_blamed, f"{image} failed: {reason}")
        self.model.ended(image_id, "failed")

    def _heard_put_back(
        self, image_id: int, why: PutBack = PutBack.NO_FAULT, *, result: object, **_: Any
    ) -> None:
        self.model.ended(image_id, "queued", death=why is PutBack.DAEMON_DIED)

    def _heard_picture_missing(self, image: Any, *, result: object) -> None:
        """Take a dropped picture that was moved or deleted; a move may be noticed later."""
        self.model.ended(image.id, "cancelled")
        known = self.model.by_id.get(image.id)
        self.missed.add(known.recipe if known else image.recipe)

    def _heard_retry(self, *_: object, result: dict[str, int]) -> None:
        self.model.retried(result)

    def _heard_cancel(self, recipes: Sequence[str], *, result: object) -> None:
        self.model.cancelled(recipes)

    def _heard_pause(self, since: float, *, result: object) -> None:
        self.paused = True

    def _heard_resume(self, *, result: object) -> None:
        self.paused = False

    # -- what has to hold

    def do_wait(self, seconds: float) -> None:
        super().do_wait(seconds)
        is_free = self.is_up() and not self.away
        if seconds >= SETTLED_SECONDS and is_free and not list(self.not_handled()):
            self.left.clear()
            self.findings += checks.of_the_work(self)

    def finish(self) -> None:
        """Remove all obstacles, let everything be rendered, and check the result."""
        ends: list[Action] = [
            ("trouble", None), ("lock_ledger", False), ("inbox", True, False),
            ("outbox", True, False), ("pace", 0.0, 0.0), ("hold", False), ("bad", (), False),
            ("start",),
        ]  # fmt: skip
        self.fault = None
        for name, *given in ends:
            getattr(self, f"do_{name}")(*given)
        self.do_wait(SETTLED_SECONDS)
        if self.process is None:
            return
        self.do_command("resume", None)
        self.do_save(PROBE, Text((Entry("a probe", seed=1, steps=(1,)),)))
        quiet = self.sim.run(self._is_done, PATIENCE)
        self.notice_death()
        self._look_into_the_inbox()
        if self.process is None:
            return
        if not quiet:
            waiting = [str(image) for image in self.model.images if image.state == "queued"]
            unanswered = list(self.not_handled())
            self.findings.append(f"not all is made: {waiting[:3]} {unanswered} {self.status()}")
        self.do_wait(SETTLED_SECONDS + 1000 * self.habits.slowness)
        self.findings += checks.while_it_runs(self)
        self.do_stop()
        self.findings += checks.at_the_end(self)

    def _is_done(self) -> bool:
        counts = self.model.counts()
        is_quiet = not any(path.exists() for path in self.commands)
        return is_quiet and not counts["queued"] + counts["running"] and not [*self.not_handled()]

    def _look_into_the_inbox(self) -> None:
        """Find files that were archived or deleted because of a setting."""
        for path, version in list(self.files.items()):
            if (self.there / path).exists():
                continue
            del self.files[path]
            known = self.handled.get(path)
            is_taken = self.habits.when_done != "keep"
            is_other = known and known.digest != version.digest
            self.expect(is_taken and not is_other, f"{path} vanished from the inbox")

    def not_handled(self) -> Iterator[str]:
        self._look_into_the_inbox()
        for path, version in self.files.items():
            known = self.handled.get(path)
            is_handled = known and (known.digest, known.mtime) == (version.digest, version.mtime)
            if not version.text.is_empty and not is_handled:
                yield f"{path} is neither accepted nor refused"
        for path in self.again.keys() & self.files.keys():
            if not self.files[path].text.is_empty and self._has_template(path):
                yield f"{path} is not read again"
        for path in self.handled.keys() - self.files.keys() - self.ghosts:
            yield f"{path} is not forgotten"

    def _has_template(self, path: str) -> bool:
        """Whether a dropped picture's template is valid; other recipes need none."""
        template = self.template_of(path)
        return template is None or not (template.broken or template.is_empty)

    def status(self) -> Any:
        return json.loads((self.outbox / ".picowatch/status.json").read_text())["images"]
