"""Which names in the inbox are recipes, which are defaults, and which are never looked at."""

import re

ENDINGS = (".yaml", ".yml", ".txt")
DEFAULTS_NAME = "_defaults.yaml"
# Made and deleted by `status --check`: whether the daemon hears of new files.
PROBE_PREFIX = ".picowatch-probe-"
# Deeper ones are no one's work; following them without end would end picowatch.
MAX_DEPTH = 64
SKIPPED_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "node_modules"}
# macOS's safe save on a share: "(A Document Being Saved By TextEdit)" holds the new text, under
# the document's own name, until it takes the document's place.
SAVING_FOLDER = "(a document being saved by "
# Syncthing's, and Dropbox's and Nextcloud's, names for the loser of two edits.
CONFLICT_COPY = re.compile(r"\.sync-conflict-|conflicted copy", re.IGNORECASE)


def is_recipe_name(name: str) -> bool:
    """Whether a file of this name (without its folders) is a recipe."""
    return _looks_like_a_recipe(name) and why_skipped(name) is None


def is_txt(path: str) -> bool:
    """Whether a recipe is lines of prompts, not YAML."""
    return path.lower().endswith(".txt")


def _looks_like_a_recipe(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith((".", "~", "#", "_"))


def why_skipped(name: str) -> str | None:
    """Why a file that looks like a recipe is never run; None for all others."""
    if not _looks_like_a_recipe(name):
        return None
    if CONFLICT_COPY.search(name):
        return "it is a conflict copy of a sync tool"
    if not _is_utf8(name):
        return "its name is not valid UTF-8; rename it"
    return None


def is_looked_into(folder: str) -> bool:
    """Whether a folder of this name (without its parents) may hold recipes."""
    if folder.startswith(".") or folder.lower() in SKIPPED_FOLDERS:
        return False
    return not folder.lower().startswith(SAVING_FOLDER) and _is_utf8(folder)


def _is_utf8(name: str) -> bool:
    """Other bytes in a name reach Python as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_recipe_path(path: str) -> bool:
    """Whether a path below the inbox, with forward slashes, is a recipe's."""
    *folders, name = path.split("/")
    is_reached = len(folders) <= MAX_DEPTH and all(is_looked_into(folder) for folder in folders)
    return is_reached and is_recipe_name(name)
