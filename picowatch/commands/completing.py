"""What a shell completes after a flag or a command: files, recipes, checkpoints. Imports little."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Completer = Callable[..., list[str]]

_MOST = 200  # names in a list that nobody reads to its end
_RECIPES = (".yaml", ".yml", ".txt", ".json", ".csv")
_CHECKPOINTS = (".safetensors", ".sft", ".gguf")


def files(*endings: str) -> Completer:
    """Files with these endings, and folders."""

    def found(prefix: str, **__: Any) -> list[str]:
        folder, _, begun = prefix.rpartition("/")
        above = f"{folder}/" if "/" in prefix else ""
        with suppress(OSError):
            return [
                f"{above}{entry.name}{'/' * entry.is_dir()}"
                for entry in os.scandir(above or ".")
                if entry.name.startswith(begun)
                and (entry.is_dir() or entry.name.casefold().endswith(endings))
                and (begun or not entry.name.startswith("."))
            ]
        return []

    return found


def recipes(parsed_args: Namespace, **_: Any) -> list[str]:
    """Recipes in the inbox, as `retry` takes them."""
    inbox = _folder(parsed_args, "inbox")
    return _first(path for path in _below(inbox) if path.endswith(_RECIPES))


def queued_recipes(parsed_args: Namespace, **_: Any) -> list[str]:
    """Recipes in the inbox, and its folders, as `cancel` takes them."""
    inbox = _folder(parsed_args, "inbox")
    folders = (path for path in _below(inbox) if (inbox / path).is_dir())
    return _first(folders) + recipes(parsed_args)


def checkpoints(parsed_args: Namespace, **_: Any) -> list[str]:
    """Installed checkpoints, without their endings."""
    folder = _folder(parsed_args, "models") / "checkpoints"
    with suppress(OSError):
        names = (
            path.stem if path.suffix in _CHECKPOINTS else path.name
            for path in folder.iterdir()
            if path.suffix in _CHECKPOINTS or (path / "model_index.json").exists()
        )
        return ["demo", *_first(names)]
    return ["demo"]


def _below(inbox: Path) -> Iterator[str]:
    """What is in the inbox, without what no recipe's name begins with."""
    for path in inbox.rglob("*"):
        below = path.relative_to(inbox)
        if not any(part[0] in "._~#" for part in below.parts):
            yield below.as_posix()


def _folder(parsed_args: Namespace, name: str) -> Path:
    """The folder as the command would find it; its default if the settings cannot be read."""
    from picowatch.errors import PicowatchError
    from picowatch.settings import load_folders

    given: Path | None = getattr(parsed_args, name)
    if given is not None:
        return given
    with suppress(PicowatchError):
        settings, _ = load_folders({}, os.environ, parsed_args.settings)
        folder: Path = getattr(settings, name)
        return folder
    return Path(name)


def _first(names: Iterable[str]) -> list[str]:
    def found() -> Iterator[str]:
        with suppress(OSError):
            yield from names

    return sorted(name for name, _ in zip(found(), range(_MOST), strict=False))
