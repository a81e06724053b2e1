"""`picowatch make`: what it prints where the settings cannot be read."""

import json
from argparse import Namespace
from collections.abc import Callable

from picowatch.commands.requests import make
from picowatch.errors import PicowatchError
from picowatch.settings import Settings


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    try:
        settings = load()
    except PicowatchError as error:
        if not options.json:
            raise
        found = {"done": False, "errors": [error.with_remedy], "recipes": []}
        print(json.dumps(found, indent=1))
        return error.exit_code
    return make(
        settings,
        options.files,
        name=options.name or "",
        remove=options.rm,
        as_json=options.json,
    )
