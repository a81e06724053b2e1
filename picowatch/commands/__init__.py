"""Every command with its flags and examples; modules here have a function `main`.

The modules' own imports take up to a second, so nothing here imports them.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

_Argument = tuple[str, dict[str, Any]]  # what argparse's `add_argument` takes


class Command(NamedTuple):
    """A command of picowatch."""

    summary: str  # its line in the help
    examples: dict[str, str]  # lines to copy, with what they do
    # Only one of those in a list of their own may be given.
    arguments: Sequence[_Argument | list[_Argument]] = ()
    module: str = ""  # if it has another name


def path(text: str) -> Path:
    """Return a path; refuse the text of an unset variable, which would be the working directory."""
    if not text:
        raise ArgumentTypeError("it is empty")
    return Path(text)


def _name(text: str) -> str:
    """Return a name that may be a folder's, whose slash at the end counts."""
    path(text)
    return text


def home_path(text: str) -> Path:
    """Return a path with `~` expanded, which shells leave as it is in `--outbox=~/pictures`."""
    try:
        return path(text).expanduser() if text.startswith("~") else path(text)
    except RuntimeError as error:
        raise ArgumentTypeError(f"{text!r}: this user has no home folder") from error


def _switch(flag: str, words: str) -> _Argument:
    return flag, {"action": "store_true", "help": words}


def _value(name: str, words: str, **how: Any) -> _Argument:
    return name, {"help": words, **how}


def _paths(name: str, shown: str, words: str, nargs: str | None = "+", **how: Any) -> _Argument:
    return _value(name, words, **{"metavar": shown, "nargs": nargs, "type": path, **how})


_names = partial(_paths, type=_name)
_FROM = _value(
    "--from",
    "also take names from FILE (- is standard input): one a line, any as a JSON string",
    dest="list",
    metavar="FILE",
    type=path,
)
_JSON = _switch("--json", "print JSON")
_control = partial(Command, module="control")
COMMANDS = {
    "init": Command(
        "Create the folders, a commented picowatch.yaml and example recipes.",
        {
            "picowatch init pictures": "then: cd pictures && picowatch run",
            "picowatch init --with photos": "adds folders that resize or edit dropped pictures",
        },
        [
            _paths("folder", "DIR", "the folder to create them in (here)", "?", default=Path()),
            _value(
                "--with",
                "photos: also create folders in the inbox that work on dropped pictures",
                dest="ready",
                choices=("photos",),
            ),
        ],
    ),
    "run": Command(
        "Watch the inbox and render recipes until Ctrl-C or SIGTERM.",
        {
            "picowatch run": "watch ./inbox, show progress",
            "picowatch run --once": "render what is there, then exit: for cron",
            "picowatch run --quiet --log-format json": "for a service",
        },
        [
            _switch("--once", "render what is in the inbox now, then exit"),
            [
                _switch("--quiet", "show only warnings and errors"),
                _switch("--verbose", "show and log every detail"),
            ],
            _value("--log-format", "format of log and console lines", choices=("text", "json")),
        ],
    ),
    "doctor": Command(
        "Check the machine and time a test image: OK or a remedy.",
        {"picowatch doctor": "include its output in bug reports"},
        [_JSON],
    ),
    "make": Command(
        "Put recipes into the inbox, wait, and print the paths of their pictures.",
        {
            "picowatch make corgi.yaml": "prints outbox/corgi/0001-….png",
            "echo 'a red circle' | picowatch make --rm -": "leaves no recipe behind",
            "picowatch make --json --name ads/may ad.yaml": "seeds, sizes and errors for a script",
            "picowatch make inbox/photos": "all recipes or dropped pictures of a folder",
        },
        [
            _paths("files", "FILE", "recipe files, or folders of the inbox; - is standard input"),
            _switch("--json", "print one JSON object"),
            _value(
                "--name",
                "name of the recipe and of its pictures' folder; may contain folders",
                default="",
            ),
            _switch("--rm", "remove the recipes from the inbox at the end"),
        ],
    ),
    "check": Command(
        "Validate recipes and list the images they would render.",
        {
            "picowatch check inbox/*.yaml": "mistakes, and what would be rendered",
            "picowatch check inbox": "all recipes and dropped pictures, summed up",
            "picowatch check --json corgi.yaml": "every field of every image, and problems",
        },
        [
            _paths("files", "FILE", "recipes, templates, dropped pictures, or folders of them"),
            _switch("--json", "print every resolved field, and problems, as JSON"),
        ],
    ),
    "show": Command(
        "Print a picture's recipe as YAML, ready for the inbox, or why it was drawn.",
        {
            "picowatch show outbox/corgi/0001-7.png": "its recipe",
            "picowatch show --why outbox/corgi/0001-7.png": "why, and what is new in it",
            "picowatch show --why inbox/corgi.yaml": "the same for each image of a recipe",
            "picowatch show photo.png > inbox/again.yaml": "also from A1111, ComfyUI and others",
        },
        [
            _paths("pictures", "PICTURE", "pictures with metadata; with --why, recipes, too", "*"),
            _FROM,
            [
                _switch("--all", "print fields with defaults, too"),
                _switch("--why", "print which save asked for it, and what changed since the last"),
            ],
            [
                _switch("--json", "print all metadata as JSON"),
                _switch("--new-seed", "print recipes that ask for a random seed"),
            ],
        ],
    ),
    "status": Command(
        "Show what is rendering and what is queued.",
        {
            "picowatch status": "what is running, the queue, the last errors",
            "picowatch status inbox/photos": "how much of a folder is done, what failed",
            "picowatch status 'night*'": "the same of all recipes that match",
            "picowatch status --watch": "the same, until Ctrl-C",
            "picowatch status --check": "exit code 1 in trouble, 4 if paused",
        },
        [
            _names("name", "NAME", "a recipe, photo, folder or 'glob*' of the inbox", "?"),
            _switch("--all", "list every failure and ignored file, not only twenty"),
            [
                _JSON,
                _switch("--watch", "keep updating until Ctrl-C"),
                _switch(
                    "--check", "for health checks: test that picowatch runs and is in no trouble"
                ),
            ],
        ],
    ),
    "pause": _control(
        "Render nothing until `resume`; images in progress are finished.",
        {"picowatch pause": "finish what is in progress, then render nothing"},
    ),
    "resume": _control("Continue after `pause`.", {"picowatch resume": "continue after a pause"}),
    "cancel": _control(
        "Cancel the queued images of a recipe, a folder or a 'glob*'.",
        {
            "picowatch cancel inbox/night/a.yaml": "the queued images of a recipe",
            "picowatch cancel night": "… of a folder",
            "picowatch cancel 'draft*'": "… of all recipes that match",
            "picowatch cancel .": "… of all recipes",
        },
        [_names("recipes", "RECIPE", "recipes, folders or 'globs*'; . means all")],
    ),
    "retry": _control(
        "Try failed images and refused files again, of the given recipes or of all.",
        {
            "picowatch retry": "all that failed",
            "picowatch retry inbox/corgi.yaml": "the failed images of a recipe",
            "picowatch retry --all inbox/photos": "a folder again, as its template is now",
        },
        [
            _names("recipes", "RECIPE", "recipes, folders or 'globs*' in the inbox (all)", "*"),
            _FROM,
            _switch("--all", "also what is done, as if it had been saved again"),
        ],
    ),
    "delete": _control(
        "Delete pictures, also from the gallery; they are not rendered again.",
        {
            "picowatch delete outbox/corgi/0002-8.png": "also from the gallery",
            "picowatch delete outbox/corgi": "all pictures of a folder",
            "picowatch delete --from bad.txt": "those that a file lists",
        },
        [_paths("pictures", "PICTURE", "pictures in the outbox, or folders of them", "*"), _FROM],
    ),
    "keep": _control(
        "Move or copy pictures into a folder of the outbox, with what lies beside them.",
        {
            "picowatch keep best outbox/corgi/0002-8.png": "moves it into outbox/best",
            "picowatch keep --copy best outbox/corgi": "copies of all pictures of a folder",
        },
        [
            _paths("folder", "FOLDER", "a folder of the outbox, which may be new", None),
            _paths("pictures", "PICTURE", "pictures in the outbox, or folders of them", "*"),
            _FROM,
            _switch("--copy", "copy them; they also stay where they are"),
        ],
    ),
    "models": Command(
        "List installed models, and refused files with the reason.",
        {"picowatch models": "what is installed, and what was refused"},
        [_JSON],
    ),
    "convert": Command(
        "Write pickled models (.pth, .ckpt) as .safetensors; runs no code.",
        {"picowatch convert models/upscalers/4x.pth": "writes 4x.safetensors beside it"},
        [_paths("files", "FILE", "pickled models"), _switch("--force", "replace existing files")],
    ),
    "schema": Command(
        "Print the JSON Schema that editors use to check recipes.",
        {"picowatch schema --installed --output recipe.json": "for an editor's completion"},
        [
            _value(
                "kind",
                "recipe, defaults or settings (recipe)",
                metavar="KIND",
                nargs="?",
                choices=("recipe", "defaults", "settings"),
                default="recipe",
            ),
            _switch("--installed", "include the names of installed models"),
            _value("--output", "write to a file", metavar="FILE", type=path),
        ],
    ),
}
