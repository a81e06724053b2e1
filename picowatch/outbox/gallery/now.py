"""now.js: what runs, what waits and what went wrong, for the gallery while it is open."""

import json
from dataclasses import asdict
from pathlib import Path

from picowatch.files.atomic import write_atomically
from picowatch.outbox.problems import Problems
from picowatch.outbox.status import Status

SHOWN = (
    "updated", "recipe", "image", "of", "step", "steps", "seconds_left", "trouble", "images",
    "paused", "waiting",
)  # fmt: skip


class NowFile:
    """Writes it; never durably, for it is written again within seconds."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self._root = root
        self._path = root / ".picowatch" / "gallery" / "now.js"
        self._problems = problems

    def write(self, status: Status) -> None:
        """Replace it by what there is to say now."""
        values = asdict(status)
        problems, more = self._problems.shown()
        told = {name: values[name] for name in SHOWN} | {
            "runs": not status.ended,
            "line": status.line(),
            "preview": (self._root / "preview.png").is_file(),
            "problems": [asdict(problem) for problem in problems],
            "more_problems": more,
        }
        text = f"now({json.dumps(told, ensure_ascii=True)});\n"
        write_atomically(self._path, text.encode(), durable=False)
