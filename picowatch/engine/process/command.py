"""How picowatch starts other processes of its own, and how it ends them."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from picowatch.engine.process.failures import StderrTail

if TYPE_CHECKING:
    from picowatch.engine.options import EngineOptions
    from picowatch.engine.process.child import ChildEngine

ENGINE_PROGRAM = "picowatch.engine.process.child_main"
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
    "PYTHON_COLORS": "0",  # of tracebacks, which are read here
    # Deterministic cuBLAS, for `exact`; it is read when CUDA starts.
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # What Apple's GPUs cannot compute, the CPU does:
    # https://docs.pytorch.org/docs/stable/mps_environment_variables.html
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    # MKL then gives the rows of a matrix the same bits wherever they stand (oneMKL Developer
    # Guide, "Specifying Code Branches"). Without, a picture depends on its position in a batch
    # of 3. No cost could be measured.
    "MKL_CBWR": "AUTO,STRICT",
}
# Users may set these differently, the first also by OMP_WAIT_POLICY. How long threads spin before
# they sleep, in libgomp's rounds: a compromise. By two threads a demo picture takes 0.4 s on idle
# cores and 1.2 s beside another program whose threads spin. With 10,000 rounds it takes 0.35 s on
# idle ones, and beside that program none was done in 20 s (benchmarks/RESULTS.md).
_DEFAULTS = {
    "GOMP_SPINCOUNT": "1000",
    # glibc gives what is larger than a threshold back to the system at once, and takes pages again
    # for the next layer's result: 7,000 page faults a step and a fifth of its time for a part of a
    # batch of the demo model. What is larger than 64 MB, as few weights are, still goes back. It
    # takes both (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}


def python_command(program: str, *arguments: str | int) -> list[str]:
    """A command that calls `main` of a module with these arguments.

    -P keeps the user's folder off the path: a torch.py in it would be imported instead of torch.
    The package's own parent comes last, because an installed package is found without it.
    """
    root = str(Path(__file__).absolute().parents[3])
    code = f"import sys; sys.path.append({root!r}); from {program} import main; main(*{arguments})"
    return [sys.executable, "-P", "-c", code]


def engine_process(program: str = "") -> "ChildProcess":
    """A new engine's process, by this program if not by its own; raises OSError."""
    environment = _DEFAULTS | os.environ | _ENVIRONMENT
    if "OMP_WAIT_POLICY" in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        del environment["GOMP_SPINCOUNT"]  # libgomp would not read the other
    return ChildProcess(program or ENGINE_PROGRAM, environment)


class ChildProcess:
    """A process that serves this one over a socket, in a session of its own.

    So Ctrl-C on the terminal is for the daemon alone, and all that the process starts ends with it.
    """

    def __init__(
        self, program: str, environment: Mapping[str, str], folder: str | None = None
    ) -> None:
        """Start it; raises OSError. `main` of that module is called with its end's handle.

        Its working folder is `folder`, or this process' own.
        """
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                python_command(program, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(theirs.fileno(),),
                cwd=folder,
                start_new_session=True,
            )
        self.id = self._process.pid
        assert self._process.stderr is not None
        try:
            self.stderr = StderrTail(self._process.stderr)
        except OSError:
            self.kill()
            self._process.communicate()
            raise

    def status(self) -> int | None:
        """Its exit status, as subprocess gives it (negative: signal); None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit status once it has ended; None if it still runs after that time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def kill(self) -> None:
        """End it and whatever it started, even if it ended before them.

        macOS answers with PermissionError where only a dead process is left.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.id, signal.SIGKILL)


class EarlyEngine:
    """The process of the first engine, started before anybody can say what it has to do.

    It imports torch meanwhile, which takes longer than everything else before a first picture. So
    this module imports little. The process is ended if no engine is made.
    """

    def __init__(self) -> None:
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Start the process, once."""
        with suppress(OSError):  # whoever needs an engine later says what is wrong
            self._process = self._process or engine_process()

    def close(self) -> None:
        """It is not needed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def make_engine(self, options: "EngineOptions") -> "ChildEngine":
        """An engine with these options; the first one gets the process."""
        from picowatch.engine.process.child import ChildEngine

        process, self._process = self._process, None
        return ChildEngine(options, early=process)
