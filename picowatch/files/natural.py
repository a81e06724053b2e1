"""The order in which people number files: frame 2 before frame 10."""

import re

_NUMBERS = re.compile(r"(\d+)")

NaturalKey = tuple[tuple[tuple[int, str], ...], ...]


def natural_key(path: str) -> NaturalKey:
    """Sorts paths folder by folder, without regard to case, and numbers in them by their value."""
    return (*(_key(part.casefold()) for part in path.split("/")), _key(path))


def _key(name: str) -> tuple[tuple[int, str], ...]:
    """Texts and numbers take turns in it, so that only like is compared with like."""
    parts = _NUMBERS.split(name)
    return tuple(
        (int(part), part) if index % 2 and len(part) < 1000 else (0, part)
        for index, part in enumerate(parts)
    )
