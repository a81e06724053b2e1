"""Which names in the inbox are recipes, which are defaults, and which are ignored."""

import re

ENDINGS = (".yaml", ".yml", ".txt")
DEFAULTS_NAME = "_defaults.yaml"
# What people put beside recipes, or mistake for one.
OTHER_ENDINGS = {
    ".json": "recipes are .yaml, .yml and .txt; a recipe in JSON is YAML, too: rename it to .yaml",
    ".py": "recipes are .yaml, .yml and .txt",
}
# Created and deleted by `status --check`, to see whether the daemon notices new files.
PROBE_PREFIX = ".picowatch-probe-"
# Deeper folders are no user's intention; endless recursion would crash picowatch.
MAX_DEPTH = 64
SKIPPED_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "node_modules"}
# macOS's safe save on a share: "(A Document Being Saved By TextEdit)" holds the new text, under
# the document's own name, until it replaces the document.
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
    return name.lower().endswith(ENDINGS) and not _is_private(name)


def _is_private(name: str) -> bool:
    return name.startswith((".", "~", "#", "_"))


def why_skipped(name: str) -> str | None:
    """Why a file that looks like a recipe is never run; None for all others."""
    if not _looks_like_a_recipe(name):
        ending = name[name.rfind(".") :].lower()
        return None if _is_private(name) else OTHER_ENDINGS.get(ending)
    if CONFLICT_COPY.search(name):
        return "it is a conflict copy of a sync tool"
    if not _is_utf8(name):
        return "its name is not valid UTF-8; rename it"
    return None


def why_not_searched(folder: str) -> str | None:
    """Why a folder is skipped, if that would surprise a user; None for all others."""
    if _is_ignored(folder) or _is_utf8(folder):
        return None
    return "the folder's name is not valid UTF-8; rename it"


def is_searched(folder: str) -> bool:
    """Whether a folder of this name (without its parents) may hold recipes."""
    return not _is_ignored(folder) and _is_utf8(folder)


def _is_ignored(folder: str) -> bool:
    name = folder.lower()
    return name.startswith((".", SAVING_FOLDER)) or name in SKIPPED_FOLDERS


def _is_utf8(name: str) -> bool:
    """Other bytes in a name reach Python as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_recipe_path(path: str) -> bool:
    """Whether a path below the inbox, with forward slashes, is a recipe's."""
    return _is_reached(path) and is_recipe_name(path.rpartition("/")[2])


def why_path_skipped(path: str) -> str | None:
    """The same as `why_skipped` for a path below the inbox; None for what is never looked at."""
    return why_skipped(path.rpartition("/")[2]) if _is_reached(path) else None


def _is_reached(path: str) -> bool:
    folders = path.split("/")[:-1]
    return len(folders) <= MAX_DEPTH and all(is_searched(folder) for folder in folders)
