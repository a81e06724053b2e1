"""The field `seed`: a number, random, a range of numbers, or a list of them."""

from picowatch.recipe.fields import MAX_SEED
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.resolve.layers import seed_in
from picowatch.recipe.resolve.ranges import RANGE, NumberRange
from picowatch.recipe.resolve.severity import Finding, Judge
from picowatch.recipe.written import Layer, Position, Written

_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"


def read_seed(layer: Layer, judge: Judge) -> None:
    """Put the seed that is meant, or all seeds, into the layer; wrong ones are taken out."""
    written = layer.pop("seed", None)
    if written is None:
        return
    is_list = isinstance(written.value, tuple)
    seed: object
    if is_list:
        seed = _seeds_of(written, judge)
    elif isinstance(written.value, NumberRange):
        seed = tuple(written.value)
    else:
        seed = seed_in(written)
        if seed is None:
            _report(wrong_value("seed", written), written.error_position, judge)
    if isinstance(seed, tuple) and "count" in layer:
        kind = "list" if is_list else "range"
        what = f"count and a {kind} of seeds together: the {kind} makes one image for each seed. "
        _report(what + "Remove count.", layer["count"].name_position, judge)
    if seed is not None:
        layer["seed"] = written.with_value(seed)


def _seeds_of(written: Written, judge: Judge) -> tuple[int, ...] | None:
    seeds: dict[int, None] = {}
    for part in written.parts:
        seed = seed_in(part)
        if RANGE.fullmatch(str(part.value)):
            what = "a list cannot contain a range. Write the range alone, or each seed."
            _report(what, part.position, judge)
        elif not isinstance(seed, int):
            _report(wrong_value("seed", part, _ONE_SEED), part.position, judge)
        elif seed in seeds:
            what = f"the seed {seed} is listed twice: both images would be the same. Keep one."
            _report(what, part.position, judge)
        else:
            seeds[seed] = None
    if not written.parts:
        what = "the list of seeds is empty. Write 'seed: random' or seeds."
        _report(what, written.position, judge)
    return tuple(seeds) if len(seeds) == len(written.parts) > 0 else None


def _report(message: str, position: Position, judge: Judge) -> None:
    judge.replaces(Finding("seed", message, position=position))
