"""picowatch: save a recipe, find its pictures."""

__version__ = "0.1.0"
