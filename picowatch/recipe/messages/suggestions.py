"""Suggestions for misspelt names, and lists of names."""

import difflib
import re
from collections.abc import Iterable, Sequence

# Below this, suggestions are noise: 'lora' for 'colour', 'tiling' for 'rating'.
_ALIKE = 0.7
_MAX_COMPARED = 100


def closest(written: str, names: Iterable[str]) -> str | None:
    """Return the name most similar to a text, None if none is close; case does not count."""
    spellings = {name.casefold(): name for name in reversed(list(names))}
    found = difflib.get_close_matches(written[:_MAX_COMPARED].casefold(), spellings, 1, _ALIKE)
    return spellings[found[0]] if found else None


def did_you_mean(written: str, names: Iterable[str], before: str = "") -> str:
    """Return "Did you mean 'x'? ", or ""; `before` goes before the name, like a flag's hyphens."""
    name = closest(written, names)
    return f"Did you mean '{before}{name}'? " if name else ""


def squeezed(name: str) -> str:
    """Return the letters and digits in lower case, for names in which nothing else counts."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def listed(names: Sequence[str], last: str = "and", most: int = 10) -> str:
    """Return "a, b and c", or "a, b and 20 more" for more than `most` names."""
    if not names:
        return ""
    if len(names) > most + 1:  # a name is better than "1 more"
        names = [*names[:most], f"{len(names) - most} more"]
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
