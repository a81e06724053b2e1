"""Takes finished files out of the inbox: the setting `when_done`."""

import logging

from picowatch.daemon.run import Run
from picowatch.files.inside import OtherBytes, checked_blocks, sha256_of, unlink_below
from picowatch.files.names import is_picture_name
from picowatch.files.pictures import MAX_BYTES
from picowatch.inbox.files import FileChanged, FileUnreadable, complete_file
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.reading import sidecars_of, size_and_time_at
from picowatch.ledger.rows import KnownRecipe

log = logging.getLogger("picowatch")


class Archive:
    """Takes files out of the inbox if their bytes are those that were accepted."""

    def __init__(self, run: Run, inbox: Inbox) -> None:
        self.settings, self.ledger, self.outbox = run.settings, run.ledger, run.outbox
        self.inbox = inbox

    def take_away(self, path: str, known: KnownRecipe) -> bool:
        """Archive or delete a recipe whose images all succeeded; False if it is to be tried again.

        A dropped picture's sidecars go with it: they would be the prompt or the mask of the next
        picture of that name.
        """
        if self.settings.when_done == "keep" or self._is_saved_again(path, known):
            return True
        if not self.inbox.folder:
            return False
        sidecars = self._sidecars(path, known)
        files = {} if sidecars is None else {path: known.digest, **sidecars}
        # All are archived before the first is removed: a full disk interrupts this.
        kept = {file: self._keep(file, its, path) for file, its in files.items()}
        if kept.get(path) and self._take_out(path, known.digest):
            log.info("%s: done, %s", path, kept[path])
            self.ledger.archive(path)
            for file, its in files.items():
                if kept[file] and file != path:
                    self._take_out(file, its)
        return self.inbox.is_there()  # if not, the file may come back with the inbox

    def _is_saved_again(self, recipe: str, known: KnownRecipe) -> bool:
        """Whether a newer save waits to be accepted: even the same bytes may request new seeds."""
        if is_picture_name(recipe):
            return False
        found = size_and_time_at(self.settings.inbox, recipe)
        return found is not None and found.written_since(known.size_and_time)

    def _sidecars(self, path: str, known: KnownRecipe) -> dict[str, str] | None:
        """Return the sidecars of a dropped picture, with the sha256 of each.

        None if one has come or changed since the picture was accepted.
        """
        if not is_picture_name(path):
            return {}
        inbox, found = self.settings.inbox, size_and_time_at(self.settings.inbox, path)
        if found is None or found.sidecars not in (0, known.size_and_time.sidecars):
            return None
        digests = {}
        try:
            for sidecar in sidecars_of(inbox, path):
                with complete_file(inbox, sidecar) as (file, _):
                    digests[sidecar] = sha256_of(file, MAX_BYTES)
        except (FileUnreadable, FileChanged, FileNotFoundError):
            return None
        return digests

    def _keep(self, file: str, digest: str, recipe: str) -> str:
        """Archive a file if set; return what happens to it, "" if it has other bytes now."""
        if self.settings.when_done == "delete":
            return "deleted"
        blocks = checked_blocks(self.settings.inbox, file, digest, MAX_BYTES)
        try:
            return f"moved to {self.outbox.archive(file, digest, blocks, recipe)}"
        except OtherBytes:
            return ""

    def _take_out(self, file: str, digest: str) -> bool:
        """Remove a file with these bytes from the inbox, unless it is a link.

        Returns whether that worked.
        """
        inbox = self.settings.inbox
        try:
            return unlink_below(inbox, file, lambda found: sha256_of(found, MAX_BYTES) == digest)
        except FileNotFoundError:
            return False  # taken out already, perhaps before a crash
        except OSError as error:
            log.warning("%s: done, but it stays in the inbox: %s", file, error.strerror)
            return False
