"""picowatch: save a recipe, find its pictures."""

import os

__version__ = "0.2.0"

# pydantic searches all installed packages for plugins, which takes longer than a check, and no
# foreign code may run where recipes are read. https://docs.pydantic.dev/latest/concepts/plugins/
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
