"""The process that compiles: one at a time for each file, and nothing left of those that died."""

import os
import signal
import subprocess
import sys
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from picowatch.engine.compiled.compile_main import failure_of
from tests.house import wait_for

# What reads a job imports torch and diffusers, so something else stands in its place.
_INSTEAD_OF_COMPILING = """
import pathlib, sys, types
from picowatch.engine.compiled import compile_main
reading = types.SimpleNamespace(CompileJob=types.SimpleNamespace(from_json=str))
sys.modules["picowatch.engine.compiled.compile_job"] = reading
def compile(job, package):
    assert not list(package.parent.iterdir()), "something was left"
    if job == "without a compiler":
        raise RuntimeError("nvcc was not found")
    if job == "without memory":
        raise RuntimeError("CUDA error: out of memory")
    package.write_text(job)
compile_main._compile = compile
compile_main.compile_once(sys.argv[1], pathlib.Path(sys.argv[2]))
"""


def run(target: Path, job: str = "a job", *, check: bool = True) -> None:
    command = [sys.executable, "-c", _INSTEAD_OF_COMPILING, job, str(target)]
    subprocess.run(command, check=check, timeout=120, stderr=subprocess.DEVNULL)


def test_what_another_process_compiles_is_left_to_it(tmp_path: Path) -> None:
    """Two engines on one machine often want the same at the same time."""
    target = tmp_path / "unet.pt2"
    with target.with_suffix(".lock").open("a") as lock:
        flock(lock, LOCK_EX)
        run(target)
        assert not target.exists()
    run(target)
    assert target.read_text() == "a job"
    target.write_text("made before")
    run(target)
    assert target.read_text() == "made before"


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    """Engines are ended by SIGKILL, and what they compile with them."""
    left = tmp_path / "unet.work"
    left.mkdir()
    (left / "half.so").write_text("half")
    run(tmp_path / "unet.pt2")
    assert (tmp_path / "unet.pt2").exists()
    assert not left.exists()


def test_a_compilers_words_are_kept_unless_memory_ran_out(tmp_path: Path) -> None:
    """`doctor` shows them; memory comes back, so that forbids nothing."""
    for job, words in (("without memory", None), ("without a compiler", "nvcc was not found")):
        target = tmp_path / job / "unet.pt2"
        target.parent.mkdir()
        run(target, job, check=False)
        assert not target.exists()
        failure = failure_of(target)
        assert (failure.read_text() if failure.exists() else None) == (
            words and f"RuntimeError: {words}"
        )


_ENGINE = """
import subprocess, sys
from picowatch.engine.compiled.compiled import _pipe_until_we_end
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdin=_pipe_until_we_end())
"""
_COMPILING = """
import os, pathlib, subprocess, sys
from picowatch.engine.compiled.compile_main import end_with_the_engine
end_with_the_engine()
compiler = subprocess.Popen(["sleep", "600"])
new = pathlib.Path(sys.argv[1] + ".new")
new.write_text(f"{os.getpid()} {compiler.pid}")
new.rename(sys.argv[1])
compiler.wait()
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.heavy
def test_what_compiles_ends_with_a_killed_engine(tmp_path: Path) -> None:
    """With the compiler that it started."""
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", _ENGINE, _COMPILING, str(pids)]
    with subprocess.Popen(command, start_new_session=True) as engine:
        wait_for(pids.exists)
        of_compiling = [int(pid) for pid in pids.read_text().split()]
        assert all(map(_runs, of_compiling))
        os.kill(engine.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(_runs, of_compiling)))
