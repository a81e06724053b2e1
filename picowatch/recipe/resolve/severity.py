"""Findings about values, and the one place that decides which are errors and which are warnings.

A rule yields a `Finding`: the field, the message, the value to use instead. About a value of the
recipe itself it is an error. Values that somebody else chose are replaced, with a warning: those of
a picture or of another program's text, and those of a folder's defaults that only the checkpoint
rules out.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.written import Layer, Origin, Position, Source, find_in

NOTHING: Final = object()
NOWHERE = Position(Source("", ""), 0, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """A value that cannot be used, why, and what to do about it."""

    field: str
    message: str
    remedy: str = ""
    # Used if somebody else chose the value; with NOTHING the recipe is refused in any case.
    instead: Any = NOTHING
    of_checkpoint: bool = True  # another checkpoint could use the value
    position: Position | None = None  # where to point, if not at the field's value
    used: str = ""  # the part of a prompt that a warning names instead of the value

    @property
    def error(self) -> str:
        """The message for the person who wrote the value."""
        return f"{self.message} {self.remedy}".rstrip()

    @property
    def warning(self) -> str:
        """The message for a person who did not write the value."""
        name = self.used if self.field.endswith("prompt") else self.instead
        if not isinstance(name, str | int | float) or not name:
            return f"{self.message} It was ignored."
        value = shown(f"{name:g}" if isinstance(name, float) else str(name))
        return f"{self.message} {value} is used instead."


@dataclass(frozen=True, slots=True)
class Reporter:
    """Decides about the findings of one layer; a field that it lacks is reported at `position`."""

    layer: Layer
    problems: Problems
    position: Position = NOWHERE
    warnings: list[str] = field(default_factory=list)

    def about(self, layer: Layer) -> "Reporter":
        """Return what reports to the same problems and warnings about another layer."""
        return Reporter(layer, self.problems, self.position, self.warnings)

    def replaces(self, finding: Finding) -> bool:
        """Return whether the value instead is used, with a warning; otherwise it is an error."""
        position = finding.position or self.position_of(finding.field)
        origin = self.origin_of(finding.field)
        may_replace = origin is Origin.FOREIGN or (
            origin is Origin.FOLDER and finding.of_checkpoint
        )
        if finding.instead is not NOTHING and may_replace:
            self.warnings.append(finding.warning + position.note)
            return True
        self.problems.add(position, finding.error)
        return False

    def wrong(
        self,
        name: str,
        message: str,
        instead: Any = NOTHING,
        position: Position | None = None,
        remedy: str = "",
    ) -> bool:
        """Decide as `replaces` does, about a value that no checkpoint could use."""
        return self.replaces(Finding(name, message, remedy, instead, False, position))

    def origin_of(self, name: str) -> Origin:
        written = self.layer.get(name) or self.layer.get(name.partition(".")[0])
        return written.origin if written else Origin.OWN

    def position_of(self, name: str) -> Position:
        """Return the position of a field's value, or for a missing part that of its mapping."""
        while name:
            if written := find_in(self.layer, name):
                return written.error_position
            name = name.rpartition(".")[0]
        return self.position
