"""Which files of the inbox are other versions than the ledger's, or can be used now."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from picowatch.inbox.files import FileChanged, FileUnreadable, complete_file, defaults_for
from picowatch.inbox.names import PICTURES_NAME, is_dropped, is_template
from picowatch.inbox.reading import read_dropped
from picowatch.ledger.rows import KnownRecipe, SizeAndTime
from picowatch.outbox.start_images import NamedPictures

# What `waits_for` begins with:
READABLE = "readable "  # of a recipe that cannot be read; the reason follows
PICTURES = "pictures "  # of a recipe whose pictures cannot be used; these follow
PROMPT = "prompt "  # of a dropped picture without one; its template and that one's digest follow


@dataclass(slots=True)
class Differences:
    """Compares files with their rows of the ledger.

    `templates` are folders, and the digests of their templates; "" for one that cannot be used now.
    `named` are the pictures that templates name: they are not dropped pictures.
    """

    pictures_of: Callable[[str], NamedPictures]
    root: Path
    templates: Mapping[str, str]
    named: Collection[str] = ()

    def differs(
        self, path: str, size_and_time: SizeAndTime, known: KnownRecipe | None
    ) -> tuple[bool, str | None]:
        """Whether a file is to be read, and the state of what it waits for, if that has changed."""
        if (
            known
            and not known.again
            and known.outcome == "accepted"
            and known.size_and_time == size_and_time
        ):
            return False, None  # almost all files
        if not size_and_time.size:
            return False, None  # it is not ready yet
        template = self.template_of(path)
        if is_dropped(path) and (not template or path in self.named):
            return False, None  # it is accepted once its template is right
        if known is None or known.again or size_and_time.written_since(known.size_and_time):
            return True, None
        if known.waits_for is None:
            return False, None
        state = self._state_of(path, known.waits_for)
        return state != known.waits_for, state

    def template_of(self, path: str) -> str:
        """Return the digest of the template that applies to a path; "" without a usable one."""
        return self.templates.get(self.template_folder(path), "")

    def template_folder(self, path: str) -> str:
        """Return the folder of the template that applies to a path, or ""."""
        folder = path.rpartition("/")[0]
        while folder and folder not in self.templates:
            folder = folder.rpartition("/")[0]
        return folder

    def _state_of(self, path: str, waits_for: str) -> str:
        """Return the present state of what a recipe waits for."""
        if waits_for.startswith(PROMPT):
            folder = self.template_folder(path)
            return prompt_of(f"{folder}/{PICTURES_NAME}", self.templates[folder])
        if waits_for.startswith(PICTURES):
            refused = waits_for.removeprefix(PICTURES)
            return f"{PICTURES}{self.pictures_of(path).look_again(refused)}"
        return f"{READABLE}{self._why_unreadable(path)}"

    def _why_unreadable(self, path: str) -> str:
        try:
            with complete_file(self.root, path):
                defaults_for(self.root, path)
            if is_dropped(path):
                read_dropped(self.root, path)
        except FileUnreadable as error:
            return str(error)
        except (FileChanged, FileNotFoundError):
            pass
        return ""


def prompt_of(template: str, digest: str) -> str:
    """Return what a dropped picture without a prompt waits for."""
    return f"{PROMPT}{template} {digest}"


def usable_templates(
    found: Mapping[str, SizeAndTime], known: Mapping[str, KnownRecipe]
) -> dict[str, str]:
    """Return the digests of templates by their folders; "" for one that cannot be used now."""
    there = {}
    for path in filter(is_template, (*found, *known)):
        row, size_and_time = known.get(path), found.get(path)
        is_usable = (
            row is not None
            and size_and_time is not None
            and row.outcome == "accepted"
            and not size_and_time.written_since(row.size_and_time)
        )
        there[path.rpartition("/")[0]] = row.digest if row and is_usable else ""
    return there
