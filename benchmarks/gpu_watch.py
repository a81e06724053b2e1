"""What nvidia-smi says of a card while something runs: share of busy time, memory at most."""

import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_MILLISECONDS = 100
QUERY = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]


@dataclass(slots=True)
class Watched:
    """Samples of one stretch of time; empty where there is no card."""

    busy: list[float] = field(default_factory=list)
    used_mebibytes: list[float] = field(default_factory=list)

    @property
    def idle_percent(self) -> float | None:
        """Of a sample's time in which no kernel ran, in the mean of all samples."""
        return 100 - statistics.fmean(self.busy) if self.busy else None

    @property
    def peak_mebibytes(self) -> float | None:
        return max(self.used_mebibytes) if self.used_mebibytes else None


@contextmanager
def watching(device: str) -> Iterator[Watched]:
    """Fill in the samples at the end; what the card held before counts as nothing."""
    watched = Watched()
    if not device.startswith("cuda"):
        yield watched
        return
    command = ["nvidia-smi", "-i", device.partition(":")[2] or "0", *QUERY]
    before = _samples(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "samples"
        with told.open("wb") as file:
            looking = subprocess.Popen([*command, "-lms", str(SAMPLE_MILLISECONDS)], stdout=file)
        try:
            yield watched
        finally:
            looking.terminate()
            looking.wait()
        held = before[0][1] if before else 0.0
        for busy, used in _samples(told.read_text()):
            watched.busy.append(busy)
            watched.used_mebibytes.append(used - held)


def _samples(text: str) -> list[tuple[float, float]]:
    """Busy percent and MiB of each whole line; a card that does not tell says "[N/A]"."""
    samples = []
    for line in text.splitlines(keepends=True):
        with suppress(ValueError):
            busy, used = map(float, line.split(","))
            if line.endswith("\n"):  # the last one may be cut
                samples.append((busy, used))
    return samples
