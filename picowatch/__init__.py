"""picowatch: save a recipe, find its pictures."""

import os

__version__ = "0.2.0"

# pydantic looks through all installed packages for plugins, which takes longer than a check; and
# nobody else's code is to run where recipes are read. https://docs.pydantic.dev/latest/concepts/plugins/
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
