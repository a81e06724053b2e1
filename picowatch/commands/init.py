"""`picowatch init`: folders, a commented picowatch.yaml, example recipes."""

from importlib import resources
from pathlib import Path

from picowatch.catalog.models import FOLDERS
from picowatch.settings import FILE_NAME, settings_text

LIVE_DEFAULTS = """\
# Recipes in this folder overtake what waits: save here what you want to see now.
priority: 10
"""


def init(folder: Path) -> int:
    """Make what is missing; what is there is never overwritten."""
    for name in ("inbox", "inbox/live", "outbox", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for kind in (*FOLDERS.values(), "wildcards"):
        (folder / "models" / kind).mkdir(exist_ok=True)
    _write(folder / FILE_NAME, settings_text())
    _write(folder / "inbox/live/_defaults.yaml", LIVE_DEFAULTS)
    examples = resources.files("picowatch").joinpath("assets/examples")
    for example in sorted(examples.iterdir(), key=lambda file: file.name):
        _write(folder / "inbox" / example.name, example.read_text("utf-8"))
    print("Start `picowatch run`, save a recipe in inbox/, and look into outbox/.")
    return 0


def _write(path: Path, text: str) -> None:
    if path.exists():
        print(f"kept {path}")
        return
    path.write_text(text, encoding="utf-8")
    print(f"made {path}")
