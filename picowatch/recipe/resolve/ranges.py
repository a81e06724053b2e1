"""Ranges of numbers, as sweeps and seeds have them: `4..10 step 2`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from picowatch.errors import ValueInvalid

_NUMBER = r"([-+]?(?:\d{1,10}(?:\.\d{0,9})?|\.\d{1,9}))"
RANGE = re.compile(rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}(?:\s+step\s+{_NUMBER})?\s*")
# As A1111 (`1-13(+3)`) and people write it.
_LIKE_RANGE = re.compile(
    rf"{_NUMBER}\s*(?:\.\.|[-–—]|to)\s*{_NUMBER}"
    rf"(?:\s*\({_NUMBER}\)|\s*(?:step|by)\s*{_NUMBER})?"
)


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The numbers from `first` to `last`, both included, downwards too, in exact decimals."""

    first: Decimal
    last: Decimal
    step: Decimal  # above 0

    def __len__(self) -> int:
        return int(abs(self.last - self.first) / self.step) + 1

    def __iter__(self) -> Iterator[int | float]:
        signed = self.step if self.last >= self.first else -self.step
        return (_plain(self.first + index * signed) for index in range(len(self)))

    @property
    def is_whole(self) -> bool:
        """Whether all of its numbers are whole ones."""
        return all(_is_whole(number) for number in (self.first, self.step))


def range_in(value: object) -> NumberRange | None:
    """The range that a text is; None if it is not one. Raises ValueInvalid if its step is 0."""
    found = RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    step = abs(Decimal(found[3] or 1))
    if not step:
        raise ValueInvalid("a range's step must not be 0.")
    return NumberRange(Decimal(found[1]), Decimal(found[2]), step)


def meant_range(text: str) -> str:
    """Return the right spelling of a range; "" if the text looks like none."""
    found = _LIKE_RANGE.fullmatch(re.sub(r"(?<=\d),(?=\d)", ".", text.strip()))
    step = (found[3] or found[4] or "").lstrip("+-") if found else ""
    if not found or (step and not Decimal(step)):
        return ""
    return f"{found[1]}..{found[2]}" + (f" step {step}" if step else "")


def _is_whole(number: Decimal) -> bool:
    return number == int(number)


def _plain(number: Decimal) -> int | float:
    return int(number) if _is_whole(number) else float(number)
