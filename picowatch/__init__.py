"""picowatch: save a recipe, find its pictures."""

import os

try:
    from picowatch._version import __version__ as __version__
except ImportError:  # a folder that nothing was built or installed from
    __version__ = "unknown"

# pydantic searches all installed packages for plugins, which takes longer than a check, and no
# foreign code may run where recipes are read. https://docs.pydantic.dev/latest/concepts/plugins/
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
