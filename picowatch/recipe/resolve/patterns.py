"""Pictures named by a pattern: `image: frames/*.png` is one image for each match.

A recipe with a pattern is read as if it stood there once for every picture, with that picture's
name. With a sweep or a contact sheet the pictures are one more axis of it, so that they all have
one seed and one sheet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import PICTURE_FIELDS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import Pictures, as_written
from picowatch.recipe.read.plain import TRUE_OR_FALSE
from picowatch.recipe.resolve.control import CONTROL, control_images, with_control_image
from picowatch.recipe.resolve.start_image import read_path
from picowatch.recipe.resolve.sweep import Value, WrittenAxis, is_written_pattern
from picowatch.recipe.written import Layer, Written

MASK_MARK = ".mask"  # 0001.mask.png is the mask of 0001.png


@dataclass(frozen=True, slots=True)
class _Named:
    """A field of a recipe that names a picture; of `control` the entry with this index."""

    field: str
    written: Written
    index: int = 0

    def with_path(self, layer: Layer, path: str) -> Layer:
        """The layer with another picture there."""
        written = replace(self.written, value=as_written(path))
        if self.field == CONTROL:
            return with_control_image(self.index, layer, written)
        return {**layer, self.field: written}


def read_patterns(layer: Layer, pictures: Pictures, problems: Problems) -> WrittenAxis | None:
    """The pictures that the entry's patterns stand for, as an axis; None if it has no pattern.

    Several patterns are followed together: see `_pairs`. What is wrong goes to `problems`, and
    leaves the axis without values.
    """
    patterns = [named for named in _named(layer) if is_written_pattern(named.written)]
    if not patterns:
        return None
    found = [_matches(named, pictures, problems) for named in patterns]
    if not all(found):
        return WrittenAxis(patterns[0].field, ())
    first, *others = patterns
    paths = found[0]
    companions = []
    for other, theirs in zip(others, found[1:], strict=True):
        paired = _pairs(paths, theirs)
        if paired is None:
            problems.add(other.written.error_position, _unpaired(first, paths, other, theirs))
            return WrittenAxis(first.field, ())
        companions.append(paired)
    values = []
    for text, *chosen in zip(_labels(paths), paths, *companions, strict=True):
        changed = layer
        for named, path in zip(patterns, chosen, strict=True):
            changed = named.with_path(changed, path)
        overlay = {name: w for name, w in changed.items() if layer.get(name) is not w}
        values.append(Value(text, overlay))
    return WrittenAxis(first.field, tuple(values))


def wants_one_sheet(layer: Layer) -> bool:
    """Whether the pictures of a pattern belong on one contact sheet."""
    grid = layer["grid"].value if "grid" in layer else False
    return grid is True or (isinstance(grid, str) and TRUE_OR_FALSE.get(grid.casefold()) is True)


def named_pictures(layer: Layer) -> list[Written]:
    """The start image, the mask and the pictures that ControlNets follow, as written."""
    found = (named for named in _named(layer) if named.field != "mask" or "image" in layer)
    return [named.written for named in found if isinstance(named.written.value, str)]


def _named(layer: Layer) -> Iterator[_Named]:
    """Where an entry names pictures, the start image first."""
    for field in PICTURE_FIELDS:
        if field in layer:
            yield _Named(field, layer[field])
    for index, written in control_images(layer):
        yield _Named(CONTROL, written, index)


def _matches(named: _Named, pictures: Pictures, problems: Problems) -> Sequence[str]:
    """What a pattern stands for; nothing if that is a problem."""
    pattern = read_path(named.field, {named.field: named.written}, pictures, problems)
    if not pattern:
        return ()
    try:
        found = pictures.matches(pattern)
    except PictureUnreadable as error:
        problems.add(named.written.error_position, str(error))
        return ()
    if named.field == "mask" or MASK_MARK in pattern.rpartition("/")[2].lower():
        return found
    return [path for path in found if not _stem(path).endswith(MASK_MARK)]


def _pairs(paths: Sequence[str], others: Sequence[str]) -> Sequence[str] | None:
    """The companion of each path: of the same name if any has one, else of the same place.

    None if they do not pair.
    """
    by_stem: dict[str, list[str]] = {}
    for other in others:
        by_stem.setdefault(_bare_stem(other), []).append(other)
    found = [by_stem.get(_bare_stem(path), []) for path in paths]
    if any(found):
        return [one[0] for one in found] if all(len(one) == 1 for one in found) else None
    return others if len(others) == len(paths) else None


def _unpaired(first: _Named, paths: Sequence[str], other: _Named, theirs: Sequence[str]) -> str:
    counts = f"{first.field} matches {len(paths):,} pictures, {other.field} matches {len(theirs):,}"
    names = {_bare_stem(path) for path in theirs}
    alone = [path for path in paths if _bare_stem(path) not in names]
    if alone and len(alone) < len(paths):
        return (
            f"{counts}, and '{shown(alone[0])}' has none of its name. Give every picture its "
            f"{other.field}: the same name, with any ending."
        )
    return (
        f"{counts}. They pair by name (0001.png with 0001.png or 0001.mask.png), or, if no name "
        "is the same, in their order: then there must be as many of both."
    )


def _labels(paths: Sequence[str]) -> list[str]:
    """How the pictures are called on a contact sheet: by their names, if these differ."""
    names = [path.rpartition("/")[2] for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].lower()


def _bare_stem(path: str) -> str:
    """The name without its ending and a mask's mark, as names are compared."""
    return _stem(path).removesuffix(MASK_MARK)
