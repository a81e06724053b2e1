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
SIDECAR_ENDINGS = (".yaml", ".yml", ".txt")  # of a dropped picture's prompt and fields
DEFAULTS_NAME = "_defaults.yaml"
# In a folder with this template every picture is a request, there and below (dropped.py).
PICTURES_NAME = "_pictures.yaml"
TEMPLATE_NAMES = (DEFAULTS_NAME, PICTURES_NAME)
# How similar a misspelt name is, including its suffix: _default.yaml is, _draft.yaml is not.
_MISSPELT = 0.88
# Suffixes of files that people put beside recipes, or take for recipes.
OTHER_ENDINGS = (
    *("", ".py", ".md", ".toml", ".ini"),
    *(".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods"),
)
# Nobody intends deeper folders, and endless recursion would crash picowatch.
MAX_DEPTH = 64
# macOS's safe save on a share: the folder "(A Document Being Saved By TextEdit)" holds the new text
# under the document's own name until it replaces the document.
SAVING_FOLDER = "(a document being saved by "
# Names that Syncthing, Dropbox and Nextcloud, ownCloud and Seafile give to the loser of two edits.
CONFLICT_COPY = re.compile(
    r"\.sync-conflict-|conflicted copy|_conflict-\d{8}-\d{6}|\(SFConflict ", re.IGNORECASE
)


def is_recipe_name(name: str) -> bool:
    """Whether a file of this name (without its folders) is a recipe."""
    return _looks_like_a_recipe(name) and _why_unusual(name) is None


def syntax_of(path: str) -> str:
    """Return how a recipe is read, by its name: `yaml`, `json`, `csv` or `txt`."""
    return path.lower().rpartition(".")[2].replace("yml", "yaml")


def is_dropped(path: str) -> bool:
    """Whether a path that the inbox reports is a dropped picture's, not a recipe's."""
    return is_picture_name(path) or is_other_picture_name(path)


def is_template(path: str) -> bool:
    """Whether a path that the inbox reports is a template for dropped pictures."""
    return path.endswith(PICTURES_NAME) and path.rpartition("/")[2] == PICTURES_NAME


def may_be_dropped(name: str) -> bool:
    """Whether a file of this name is a request under a template."""
    return _looks_dropped(name) and _why_unusual(name) is None


def why_not_dropped(name: str) -> str | None:
    """Return why a file is ignored under a template, if that may surprise; None for all others."""
    if is_recipe_name(name) and not name.lower().endswith(SIDECAR_ENDINGS):
        return f"recipes belong in a folder without {PICTURES_NAME}"
    return _why_unusual(name) if _looks_dropped(name) else None


def may_matter(path: str) -> bool:
    """Whether a change of this file may change what is requested; editors write others, too."""
    name = path.rpartition("/")[2]
    is_one = name in TEMPLATE_NAMES or is_recipe_name(name) or is_dropped(name)
    return is_one and is_reached(path)


def _looks_dropped(name: str) -> bool:
    return is_dropped(name) and not _is_private(name) and not is_mask_name(name)


def is_reached(path: str) -> bool:
    """Whether the folders of a path below the inbox are searched."""
    folders = path.split("/")[:-1]
    return len(folders) <= MAX_DEPTH and all(why_not_searched(one) is None for one in folders)


def _looks_like_a_recipe(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not _is_private(name)


def _is_private(name: str) -> bool:
    return name.startswith((".", "~", "#", "_"))


def why_skipped(name: str) -> str | None:
    """Return why a file that looks like a recipe is never run; None for all others."""
    if _looks_like_a_recipe(name):
        return _why_unusual(name)
    stem, dot, ending = name.lower().rpartition(".")
    if name.startswith("_") and name not in TEMPLATE_NAMES and dot + ending in ENDINGS:
        for meant in get_close_matches(f"{stem}.yaml", TEMPLATE_NAMES, 1, _MISSPELT):
            return f"to use it as {meant}, rename it; JSON is valid there, too"
        return "its name begins with _; rename it to have it run"
    is_other = (dot + ending if dot else "") in OTHER_ENDINGS and not _is_private(name)
    return "recipes are .yaml, .yml, .json, .csv and .txt" if is_other else None


def _why_unusual(name: str) -> str | None:
    if CONFLICT_COPY.search(name):
        return "it is a conflict copy of a sync tool"
    if not _is_utf8(name):
        return "its name is not valid UTF-8; rename it"
    return None


def why_not_searched(folder: str) -> str | None:
    """Return why a folder of this name is skipped, "" if nobody wonders; None if it is not."""
    name = folder.lower()
    if name.startswith((".", SAVING_FOLDER)) or name in SKIPPED_FOLDERS:
        return ""
    return None if _is_utf8(folder) else "the folder's name is not valid UTF-8; rename it"


def _is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8; in Python other bytes are lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_recipe_path(path: str) -> bool:
    """Whether a path below the inbox, with forward slashes, is a recipe's."""
    return is_reached(path) and is_recipe_name(path.rpartition("/")[2])


def why_path_skipped(path: str) -> str | None:
    """Return `why_skipped` for a path below the inbox; None in folders that are not searched."""
    return why_skipped(path.rpartition("/")[2]) if is_reached(path) else None
