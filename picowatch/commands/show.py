"""`picowatch show`: the recipe of a picture, ready for the inbox."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from picowatch.errors import PictureUnreadable
from picowatch.metadata import PICOWATCH, escaped_json, read_chunk, read_texts, recipe_yaml
from picowatch.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--json", action="store_true", help="print all metadata as JSON")


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return show(options.pictures, as_json=options.json)


def show(pictures: Sequence[Path], as_json: bool) -> int:
    """Print each picture's recipe as a YAML document, or its whole chunk."""
    for number, path in enumerate(pictures):
        text = read_texts(path).get(PICOWATCH)
        if text is None:
            raise PictureUnreadable(
                f"{path} was not made by picowatch, or its metadata were removed."
            )
        try:
            chunk = read_chunk(text)
        except PictureUnreadable as error:
            raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from None
        if as_json:
            print(escaped_json(text))
        else:
            print(("---\n" if number else "") + recipe_yaml(chunk.request), end="")
    return 0
