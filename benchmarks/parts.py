"""Parts of benchmarks.gpu: each a process with a share of the time, and a file of what it found."""

import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.folders import PROJECT
from picowatch.engine.protocol import EngineOptions

Found = dict[str, Any]


class Findings:
    """Findings so far, in a JSON file that is complete at any moment."""

    def __init__(self, path: Path, seconds: float) -> None:
        """`seconds` are those that finding may take."""
        self.failed = False
        self._path, self._allowed, self._began = path, seconds, time.monotonic()
        self._found: Found = {"finished": False, "seconds allowed": seconds, "skipped": {}}

    def add(self, name: str, value: object) -> None:
        """Write one more."""
        self._found |= {name: value, "seconds": round(time.monotonic() - self._began, 1)}
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(self._found, indent=1, default=str) + "\n")
        temporary.replace(self._path)

    def skip(self, name: str, reason: str) -> None:
        self.add("skipped", self._found["skipped"] | {name: reason})

    def left(self) -> float:
        return self._began + self._allowed - time.monotonic()

    def measure(self, ways: Mapping[str, Callable[[], Found]], growth: float = 1) -> None:
        """Note what each finds, or its error, if there is time for `growth` times the last one."""
        took = 0.0
        for name, way in ways.items():
            if self.left() < took * growth:
                self.skip(name, "no time left")
                continue
            began = time.monotonic()
            try:
                self.add(name, way())
            # The others are worth knowing, too.
            except Exception as error:
                self.failed = True
                self.add(name, {"error": repr(error), "from": traceback.format_exc(limit=-3)})
            took = time.monotonic() - began
            gc.collect()
            if torch := sys.modules.get("torch"):
                torch.cuda.empty_cache()  # does nothing where there is no card


class Part(Findings):
    """A part at work; `work` is a folder for all parts of a run."""

    def __init__(self, name: str, device: str, path: str, work: str, *, seconds: float) -> None:
        super().__init__(Path(path), seconds)
        self.device, self.on_cuda, self.work = device, device.startswith("cuda"), Path(work)
        self.add("part", f"{name} on {device}")

    def job(self, family: str, images: int, steps: int) -> jobs.Job:
        """Pictures of "demo", "sd15" or "sdxl"; on a CPU the last two are as small as the first."""
        checkpoint, side = jobs.DEMO, 128 if self.on_cuda else 64
        if self.on_cuda and family != "demo":
            checkpoint = jobs.full_size() if family == "sd15" else jobs.full_size_xl()
            side = 512 if family == "sd15" else 1024
        elif family == "sdxl":
            checkpoint = jobs.tiny_xl(self.work / "toy")
        return jobs.Job(checkpoint, side, jobs.pictures(images, steps), self.device)

    def batch(self, family: str, images: int, steps: int, **values: Any) -> list[Any]:
        return self.job(family, images, steps).requests(self.work / "models", **values)

    def engine(self, kind: Callable[[EngineOptions], Any] | None = None, **options: Any) -> Any:
        """An engine on the part's device, in this process unless its kind is another."""
        from picowatch.engine.drawing.renderer import Renderer

        models = self.work / "models"
        named: Any = {"models": models, "hash_cache": models / jobs.HASHES, "device": self.device}
        return (kind or Renderer)(EngineOptions(**named | options))


def run_parts(shares: Mapping[str, int], minutes: float, device: str, out: Path) -> bool:
    """Run parts in turn, by their shares of the time; return whether all of them ended well.

    What one leaves of its share is divided among those after it. While one is at work, the next
    one's process imports libraries, which can take ten seconds.
    """
    out.mkdir(parents=True, exist_ok=True)
    end, well = time.monotonic() + minutes * 60, True

    def begun(name: str) -> "subprocess.Popen[str]":
        command = ["-m", "benchmarks.gpu", "--here", name, device, str(out / f"{name}.json"), work]
        how: Any = {"stderr": subprocess.PIPE, "stdin": subprocess.PIPE, "errors": "replace"}
        return subprocess.Popen([sys.executable, *command], cwd=PROJECT, text=True, **how)

    with tempfile.TemporaryDirectory(prefix="picowatch-gpu-") as work:
        names = [*shares]
        following = begun(names[0])
        while names:
            left, process, path = end - time.monotonic(), following, out / f"{names[0]}.json"
            path.unlink(missing_ok=True)
            if names[1:]:
                following = begun(names[1])
            share = left * shares[names[0]] / sum(shares[name] for name in names)
            limit = max(0.0, min(left, 2 * share))
            try:
                _, told = process.communicate(f"{0.9 * share:.0f}\n", limit)
                words = f"failed: {told[-500:]}" if process.returncode else ""
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                words = f"killed after {limit:.0f} s"
            well = well and not words
            found = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(found | {"ended": words or "well"}, indent=1) + "\n")
            print(f"{names.pop(0):9} {words or 'finished'}", flush=True)
    return well
