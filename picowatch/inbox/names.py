"""Which names in the inbox are recipes, which are defaults, and which are never looked at."""

import re

ENDINGS = (".yaml", ".yml", ".txt")
DEFAULTS_NAME = "_defaults.yaml"
SKIPPED_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "node_modules"}
# Syncthing's, and Dropbox's and Nextcloud's, names for the loser of two edits.
CONFLICT_COPY = re.compile(r"\.sync-conflict-|conflicted copy", re.IGNORECASE)


def is_recipe_name(name: str) -> bool:
    """Whether a file of this name (without its folders) is a recipe."""
    return (
        name.lower().endswith(ENDINGS)
        and not name.startswith((".", "~", "#", "_"))
        and not CONFLICT_COPY.search(name)
    )


def is_conflict_copy(name: str) -> bool:
    """Whether a sync tool left this recipe as the loser of two edits; it is never run."""
    return (
        name.lower().endswith(ENDINGS)
        and not name.startswith((".", "~", "#", "_"))
        and CONFLICT_COPY.search(name) is not None
    )


def is_looked_into(folder: str) -> bool:
    """Whether a folder of this name (without its parents) may hold recipes."""
    return not folder.startswith(".") and folder.lower() not in SKIPPED_FOLDERS


def is_recipe_path(path: str) -> bool:
    """Whether a path below the inbox, with forward slashes, is a recipe's."""
    *folders, name = path.split("/")
    return is_recipe_name(name) and all(is_looked_into(folder) for folder in folders)
