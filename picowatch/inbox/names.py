"""Which names in the inbox are recipes, which are defaults, and which are ignored."""

import re
from difflib import get_close_matches

from picowatch.files.names import (
    SKIPPED_FOLDERS,
    is_mask_name,
    is_other_picture_name,
    is_picture_name,
)

ENDINGS = (".yaml", ".yml", ".json", ".csv", ".txt")
SIDECAR_ENDINGS = (".yaml", ".yml", ".txt")  # of what says more about a dropped picture
DEFAULTS_NAME = "_defaults.yaml"
# In a folder with this template every picture is a request, there and below (dropped.py).
PICTURES_NAME = "_pictures.yaml"
TEMPLATE_NAMES = (DEFAULTS_NAME, PICTURES_NAME)
# How alike a misspelt one is, endings included: _default.yaml is, _draft.yaml is not.
_MISSPELT = 0.88
# What people put beside recipes, or mistake for one.
_RECIPES_ARE = "recipes are .yaml, .yml, .json, .csv and .txt"
OTHER_ENDINGS = dict.fromkeys(
    ("", ".py", ".md", ".toml", ".ini", ".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods"),
    _RECIPES_ARE,
)
# What systems, browsers and cameras put beside dropped pictures.
JUNK_ENDINGS = (
    *(".db", ".ini", ".lnk", ".tmp", ".part", ".partial", ".crdownload", ".download"),
    *(".xmp", ".aae", ".thm", ".lrv"),
)
# Deeper folders are no user's intention; endless recursion would crash picowatch.
MAX_DEPTH = 64
# macOS's safe save on a share: "(A Document Being Saved By TextEdit)" holds the new text, under
# the document's own name, until it replaces the document.
SAVING_FOLDER = "(a document being saved by "
# The loser of two edits, as Syncthing, Dropbox and Nextcloud, ownCloud and Seafile name it.
CONFLICT_COPY = re.compile(
    r"\.sync-conflict-|conflicted copy|_conflict-\d{8}-\d{6}|\(SFConflict ", re.IGNORECASE
)


def is_recipe_name(name: str) -> bool:
    """Whether a file of this name (without its folders) is a recipe."""
    return _looks_like_a_recipe(name) and _why_unusual(name) is None


def syntax_of(path: str) -> str:
    """How a recipe is read, by its name: `yaml`, `json`, `csv` or `txt` (lines of prompts)."""
    return path.lower().rpartition(".")[2].replace("yml", "yaml")


def is_dropped(path: str) -> bool:
    """Whether a path that the inbox reports is a dropped picture's, not a recipe's."""
    return is_picture_name(path) or is_other_picture_name(path)


def is_template(path: str) -> bool:
    """Whether a path that the inbox reports is a template for dropped pictures."""
    return path.endswith(PICTURES_NAME) and path.rpartition("/")[2] == PICTURES_NAME


def may_be_dropped(name: str) -> bool:
    """Whether a file of this name is a request where a template says so."""
    return _looks_dropped(name) and _why_unusual(name) is None


def why_not_dropped(name: str) -> str | None:
    """Why a file that looks like a dropped picture is never one; None for all others."""
    return _why_unusual(name) if _looks_dropped(name) else None


def ignored_ending(name: str) -> str | None:
    """The ending of a file that is nothing where pictures are dropped, if that may surprise."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if _is_private(name) or is_dropped(name) or ending in ("", *JUNK_ENDINGS, *SIDECAR_ENDINGS):
        return None
    return ending


def _looks_dropped(name: str) -> bool:
    return is_dropped(name) and not _is_private(name) and not is_mask_name(name)


def is_reached(path: str) -> bool:
    """Whether the folders of a path below the inbox are searched."""
    folders = path.split("/")[:-1]
    return len(folders) <= MAX_DEPTH and all(is_searched(folder) for folder in folders)


def _looks_like_a_recipe(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not _is_private(name)


def _is_private(name: str) -> bool:
    return name.startswith((".", "~", "#", "_"))


def why_skipped(name: str) -> str | None:
    """Why a file that looks like a recipe is never run; None for all others."""
    if not _looks_like_a_recipe(name):
        ending = name[name.rfind(".") :].lower()
        meant = f"{name[: -len(ending)].lower()}.yaml"
        if meant in TEMPLATE_NAMES and ending in ENDINGS and name != meant:
            return f"it must be called {meant}, which may contain JSON, too"
        if ending in ENDINGS and name.startswith("_") and name not in TEMPLATE_NAMES:
            alike = get_close_matches(meant, TEMPLATE_NAMES, 1, _MISSPELT)
            return f"if it is meant to be {alike[0]}, rename it" if alike else None
        return None if _is_private(name) else OTHER_ENDINGS.get(ending if "." in name else "")
    return _why_unusual(name)


def _why_unusual(name: str) -> str | None:
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
    return is_reached(path) and is_recipe_name(path.rpartition("/")[2])


def why_path_skipped(path: str) -> str | None:
    """The same as `why_skipped` for a path below the inbox; None for what is never looked at."""
    return why_skipped(path.rpartition("/")[2]) if is_reached(path) else None
