"""Moved to picowatch.recipe.numbers."""

import re

from picowatch.recipe.numbers import number, plain_number

__all__ = ["DECIMAL", "TRUE_OR_FALSE", "WHOLE", "number", "plain_number"]

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
TRUE_OR_FALSE = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
