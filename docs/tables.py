"""Writes the tables of docs/ from the code: `make docs`. A test keeps them current."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, TiffTags

from picowatch.cli import parsers
from picowatch.commands import COMMANDS
from picowatch.files.decoding import Original
from picowatch.metadata.exif import EXIF_TYPES, NOT_KEPT, Directory, exif_bytes, name_of
from picowatch.metadata.iptc import FIELDS
from picowatch.outbox.encoding import How
from picowatch.outbox.names import FORMATS
from picowatch.outbox.photo_metadata import KEPT, NO_PLACE, photo_metadata
from picowatch.recipe.fields import DEFAULTS, ROWS, json_schemas
from picowatch.recipe.samplers import SAMPLERS
from picowatch.settings.settings import DAILY, Settings
from picowatch.sources import FOLDERS

DOCS = Path(__file__).parent


_USUAL: dict[object, str] = {MISSING: "required", None: "off", "": "none", (): "none"}


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *lines])


def recipe_table(daily: bool) -> str:
    """The recipe fields that most people use, or the others: what they take, defaults, aliases.

    Only the first sentence says what a field does: its section in the page has the rest.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, row in ROWS.items():
        if row.daily is not daily:
            continue
        default = DEFAULTS[name]
        cells = (
            row.does.split(". ")[0].removesuffix("."),
            row.wanted or _takes(json_schemas()[name]),
            row.default_text or _USUAL.get(default) or _shown(default),
        )
        rows.setdefault(cells, []).extend(f"`{alias}`" for alias in (name, *row.aliases))
    columns = ("field, and aliases", "what it does", "takes", "default")
    return _table(columns, ((", ".join(names), *cells) for cells, names in rows.items()))


def _takes(schema: dict[str, object]) -> str:
    options = schema.get("anyOf")
    if isinstance(options, list):
        return " or ".join(filter(None, (_takes(option) for option in options)))
    if "const" in schema:
        return f"`{schema['const']}`"
    if isinstance(schema.get("enum"), list):
        return ", ".join(f"`{value}`" for value in schema["enum"] if value)  # type: ignore[attr-defined]
    if "minimum" in schema and "maximum" in schema:
        step = f", multiples of {schema['multipleOf']}" if "multipleOf" in schema else ""
        return f"{schema['minimum']}–{schema['maximum']}{step}"
    words = {"string": "text", "boolean": "true or false", "integer": "a whole number",
             "number": "a number", "array": "a list", "null": ""}  # fmt: skip
    return words[str(schema["type"])]


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return str(default)


def sampler_table() -> str:
    """Every sampler by its automatic schedule type, and by whether it draws noise."""
    rows = []
    for automatic in dict.fromkeys(sampler.automatic for sampler in SAMPLERS):
        of_type = [sampler for sampler in SAMPLERS if sampler.automatic == automatic]
        still, noisy = (
            ", ".join(f"`{sampler.name}`" for sampler in of_type if sampler.noisy is noise)
            for noise in (False, True)
        )
        rows.append((f"`{automatic}`", still, noisy))
    table = _table(("automatic schedule type", "samplers without noise", "with noise"), rows)
    twice = ", ".join(f"`{sampler.name}`" for sampler in SAMPLERS if sampler.evaluations == 2)
    return f"{table}\n\nThese evaluate the model twice a step: {twice}."


def settings_table(daily: bool) -> str:
    """The settings that most people use, or the others."""
    rows = []
    for name, field in Settings.model_fields.items():
        if (name in DAILY) is daily:
            default = "" if field.default is None else _shown(field.default)
            rows.append((f"`{name}`", field.description or "", f"`{default}`" if default else ""))
    return _table(("setting", "what it does", "default"), rows)


def command_table() -> str:
    """Every command with its own flags."""
    rows = []
    shared = {"--help", "--debug", *(f"--{folder}" for folder in (*FOLDERS, "settings"))}
    for name, command in parsers()[1].items():
        flags = [
            f"`{action.option_strings[-1]}` {action.help}"
            for action in command._actions
            if action.option_strings and action.option_strings[-1] not in shared
        ]
        called = f"`{(command.usage or '').replace(' [FLAG]…', '')}`"
        rows.append((called, COMMANDS[name].summary, "; ".join(flags)))
    return _table(("command", "does", "flags"), rows)


# Of EXIF's main directory; all others that a TIFF may have there are kept, too.
_MAIN_TAGS = (
    *("ImageDescription", "Make", "Model", "XResolution", "YResolution", "ResolutionUnit"),
    *("Software", "DateTime", "Artist", "HostComputer", "Copyright", "Rating", "RatingPercent"),
    *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
)
_VALUES = {
    TiffTags.BYTE: b"\1",
    TiffTags.ASCII: "2026",
    TiffTags.SHORT: 1,
    TiffTags.RATIONAL: 1.0,
    TiffTags.UNDEFINED: b"2026",
}


def tag_table() -> str:
    """Which EXIF tags pictures have from a photo that has all of them, and in which formats."""
    numbers = {name: number for number, name in ExifTags.TAGS.items()}
    main = {numbers[name]: TiffTags.lookup(numbers[name]).type or 1 for name in _MAIN_TAGS}
    gps: dict[int, int] = {
        int(tag): TiffTags.lookup(tag, ExifTags.IFD.GPSInfo).type or 1 for tag in ExifTags.GPS
    }
    types = {0: main, ExifTags.IFD.Exif: EXIF_TYPES, ExifTags.IFD.GPSInfo: gps}
    exif: dict[int, Directory] = {
        directory: {tag: (kind, _VALUES[kind]) for tag, kind in tags.items()}
        for directory, tags in types.items()
    }
    columns = {file: _kept(exif, file, KEPT) for file in FORMATS}
    without_place = _kept(exif, "png", NO_PLACE)
    rows: dict[tuple[str, ...], list[str]] = {}
    for directory, tags in types.items():
        for tag in sorted(tags):
            having = [file for file, kept in columns.items() if (directory, tag) in kept]
            which = "yes" if len(having) == len(columns) else ", ".join(having) or "no"
            cells = which, "yes" if (directory, tag) in without_place else "no"
            rows.setdefault(cells, []).append(name_of(directory, tag))
    rows["no", "no"] = sorted({ExifTags.TAGS[tag] for tag in NOT_KEPT.intersection(ExifTags.TAGS)})
    head = ("EXIF tags", "kept", "with `no_place`")
    return _table(head, ((", ".join(listed), *cells) for cells, listed in rows.items()))


def _kept(exif: dict[int, Directory], kind: str, keep: str) -> set[tuple[int, int]]:
    """Return directories and tags that Pillow reads in a picture of a photo with these tags."""
    photo, result, pixels = BytesIO(), BytesIO(), Image.new("RGB", (8, 8))
    pixels.save(photo, "WEBP", exif=exif_bytes(exif))
    metadata = photo_metadata(photo, keep)
    file = f"a{FORMATS[kind].ending}"
    how = How(file, {}, photo=metadata)
    result.write(how.encode(Original(pixels)))
    with Image.open(result) as picture:
        main = picture.getexif()
        found = {(0, tag) for tag in main}
        for directory in exif:
            found |= {(directory, tag) for tag in main.get_ifd(directory)} if directory else set()
    return found


def iptc_list() -> str:
    """Which property of XMP each field of IPTC-IIM becomes."""
    pairs = (f"`{name}` 2:{number:02}" for number, name in FIELDS.items())
    return f"{', '.join(pairs)}."


TABLES: dict[str, Callable[[], str]] = {
    "commands": command_table,
    "EXIF tags": tag_table,
    "IPTC fields": iptc_list,
    "recipe fields": partial(recipe_table, daily=True),
    "more recipe fields": partial(recipe_table, daily=False),
    "samplers": sampler_table,
    "settings": partial(settings_table, daily=True),
    "more settings": partial(settings_table, daily=False),
}


def written(text: str) -> str:
    """A page with its tables as the code gives them now, each between its two marks."""
    names = "|".join(map(re.escape, TABLES))
    marks = re.compile(f"(<!-- ({names}) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def pages() -> list[Path]:
    """Every page that may hold tables."""
    return sorted(DOCS.glob("*.md"))


if __name__ == "__main__":
    for page in pages():
        page.write_text(written(page.read_text()))
