"""What a check of the machine finds. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `picowatch doctor`: what is there, and where it is not well what to do."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy
