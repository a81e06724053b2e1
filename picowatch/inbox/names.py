"""Which names in the inbox are recipes, which are defaults, and which are ignored."""

import re
from collections.abc import Iterator

from picowatch.files import names
from picowatch.recipe.messages.suggestions import closest

ENDINGS = (".yaml", ".yml", ".json", ".csv", ".txt")
SIDECAR_ENDINGS = (".yaml", ".yml", ".txt")  # of a dropped picture's prompt and fields
MASK = f"{names.MASK_MARK}.png"
SIDECARS = (*SIDECAR_ENDINGS, MASK)
DEFAULTS_NAME = "_defaults.yaml"
# In a folder with this template every picture is a request, there and below (dropped.py).
PICTURES_NAME = "_pictures.yaml"
TEMPLATE_NAMES = (DEFAULTS_NAME, PICTURES_NAME)
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
# Names about which nothing is said, whatever their case, and whose they are.
SILENT = {
    "hidden, or an editor's lock or backup": r"\..*|.*~|#.*#|~\$.*|.*\.sw[a-p]|.*\.bak",
    "vim's or JetBrains' while they save": r"4913|.*___jb_(old|tmp)___",
    "being copied or downloaded": (
        r".*\.(part|partial|filepart|crdownload|download|opdownload|tmp|temp)"
    ),
    "a system's own": r"(eh)?thumbs\.db|desktop\.ini|icon\r",
    "a camera's or photo program's": r".*\.(xmp|aae|thm|pp3|dop|ctg|lrv|cos|\w+_original)",
    "private": r"[_~#].*",  # but recipes and pictures are not silent
}
_SILENT = re.compile("|".join(SILENT.values()), re.IGNORECASE | re.DOTALL)
RECIPES_ARE = "recipes are .yaml, .yml, .json, .csv and .txt"
# Of a text or mask under a template:
BELONGS_TO_NONE = (
    "it belongs to no picture: what lies beside a picture has its name and ends in .txt, .yaml, "
    f".yml or .mask.png, and recipes belong in a folder without {PICTURES_NAME}"
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
    looks_like_one = name.lower().endswith(ENDINGS) and not name.startswith((".", "~", "#", "_"))
    return looks_like_one and _why_unusual(name) is None


def syntax_of(path: str) -> str:
    """Return how a recipe is read, by its name: `yaml`, `json`, `csv` or `txt`."""
    return path.lower().rpartition(".")[2].replace("yml", "yaml")


def is_dropped(path: str) -> bool:
    """Whether a path that the inbox reports is a dropped picture's, not a recipe's."""
    return names.is_picture_name(path) or names.is_other_picture_name(path)


def is_template(path: str) -> bool:
    """Whether a path that the inbox reports is a template for dropped pictures."""
    return path.endswith(PICTURES_NAME) and path.rpartition("/")[2] == PICTURES_NAME


def sidecar_paths(picture: str) -> list[str]:
    """Return where a dropped picture's sidecars may be; `_pictures.jpg` has no `_pictures.yaml`."""
    paths = [f"{names.stem_of(picture)}{ending}" for ending in SIDECARS]
    return [path for path in paths if path.rpartition("/")[2] not in TEMPLATE_NAMES]


def may_be_dropped(name: str) -> bool:
    """Whether a file of this name is a request under a template."""
    return is_dropped(name) and not names.is_mask_name(name) and why_not_taken(name) is None


def may_matter(path: str) -> bool:
    """Whether a change of this file may change what is requested; editors write others, too."""
    name = path.rpartition("/")[2]
    is_one = name.lower().endswith(ENDINGS) or is_dropped(name)  # _DSC1.txt belongs to _DSC1.jpg
    return is_one and not name.startswith((".", "~", "#")) and is_reached(path)


def folders_above(path: str) -> Iterator[str]:
    """Yield the folders that a path below the inbox lies in, the inner ones first."""
    while path := path.rpartition("/")[0]:
        yield path


def is_reached(path: str) -> bool:
    """Whether the folders of a path below the inbox are searched."""
    folders = path.split("/")[:-1]
    return len(folders) <= MAX_DEPTH and all(why_not_searched(name) is None for name in folders)


def why_not_taken(name: str, *, is_under_template: bool = False) -> str | None:
    """Return why a file of this name is not taken, "" if nobody wonders; None for all others.

    These are recipes, pictures, masks, templates and defaults, and under a template texts.
    """
    lower = name.lower()
    if is_dropped(name):
        if name.startswith("."):
            return ""
        if name.startswith(("~", "#")):
            return f"its name begins with {name[0]}; rename it"
    elif name in TEMPLATE_NAMES:
        return None
    elif lower.endswith(ENDINGS) and name.startswith("_"):
        return _why_unusual(name) or _why_private(lower)
    elif lower.endswith(ARCHIVE_ENDINGS) and not name.startswith((".", "~", "#")):
        return "it is an archive; unpack it, and drop the pictures or recipes that are in it"
    elif _SILENT.fullmatch(name):
        return ""
    elif lower.endswith(".tsv"):
        return "rename it to .csv, where tabs may separate cells, too"
    elif not lower.endswith(ENDINGS):
        return f"it is no picture, and {RECIPES_ARE}" if is_under_template else RECIPES_ARE
    elif is_under_template and not lower.endswith(SIDECAR_ENDINGS):
        return f"recipes belong in a folder without {PICTURES_NAME}"
    return _why_unusual(name)


def _why_private(name: str) -> str:
    """Return why a file with a recipe's suffix is not run, whose name begins with an underscore."""
    stem = name
    while stem.endswith(ENDINGS):  # Windows hides .txt, also in _pictures.yaml.txt
        stem = stem.rpartition(".")[0]
    if similar := closest(stem, map(names.stem_of, TEMPLATE_NAMES)):
        too = "; JSON is valid there, too" if name.endswith(".json") else ""
        return f"to use it as {similar}.yaml, rename it{too}"
    return "its name begins with _; rename it to have it run"


def _why_unusual(name: str) -> str | None:
    if CONFLICT_COPY.search(name):
        return "it is a conflict copy of a sync tool"
    if not _is_utf8(name):
        return "its name is not valid UTF-8; rename it"
    return None


def why_not_searched(folder: str) -> str | None:
    """Return why a folder of this name is skipped, "" if nobody wonders; None if it is not."""
    name = folder.lower()
    if name.startswith((".", SAVING_FOLDER)) or name in names.SKIPPED_FOLDERS:
        return ""
    return None if _is_utf8(folder) else "the folder's name is not valid UTF-8; rename it"


def _is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8; in Python other bytes are lone surrogates."""
    return name == name.encode(errors="ignore").decode()


def is_recipe_path(path: str) -> bool:
    """Whether a path below the inbox, with forward slashes, is a recipe's."""
    return is_reached(path) and is_recipe_name(path.rpartition("/")[2])
