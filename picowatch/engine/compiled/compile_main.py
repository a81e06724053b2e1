"""The process that compiles a UNet while the engine renders, with what that leaves of the CPU.

The result is a package of AOTInductor: code without weights, which the engine loads in
milliseconds and gives a copy of its own weights.
https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
"""

import os
import shutil
import signal
import threading
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TYPE_CHECKING

from picowatch.engine.failures import out_of_memory

if TYPE_CHECKING:
    from picowatch.engine.compiled.compile_job import CompileJob

_NICE = 19
# Without the second, short vectors (the last bias) are compiled in.
_WITHOUT_WEIGHTS = {
    "aot_inductor.package_constants_in_so": False,
    "always_keep_tensor_constants": True,
}


def main(job: str, target: str) -> None:
    """Compile a job (JSON) to a file, as long as the engine runs."""
    end_with_the_engine()
    compile_once(job, Path(target))


def end_with_the_engine() -> None:
    """End once standard input does, with the compilers that were started.

    The engine leads this process' group, and a killed one leaves only these in it.
    """
    leader = os.getppid() == os.getpgrp()

    def watch() -> None:
        while os.read(0, 1):
            pass
        if leader:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compile_once(job: str, target: Path) -> None:
    """Compile a job to a file, which appears when it is complete.

    Several engines may want the same: one process compiles it, the others end at once. Temporary
    files are in a folder that is deleted afterwards; a killed process may have left one.
    """
    os.nice(_NICE)
    with target.with_suffix(".lock").open("a") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError:
            return
        if target.exists():
            return
        folder = target.with_suffix(".work")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        os.environ["TRITON_CACHE_DIR"] = f"{folder}/triton"
        # Here, so that torch reads the environment above.
        from picowatch.engine.compiled.compile_job import CompileJob

        try:
            _compile(CompileJob.from_json(job), folder / "unet.pt2")
            (folder / "unet.pt2").rename(target)
        except Exception as error:
            if not out_of_memory(error):
                failure_of(target).write_text(f"{type(error).__name__}: {error}")
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def failure_of(package: Path) -> Path:
    """The file with the compiler's words, if a package could not be compiled.

    A package's name has the versions of all that compiles it: others try again.
    """
    return package.with_suffix(".failure")


def _compile(job: "CompileJob", package: Path) -> None:
    import torch
    from torch._inductor import aoti_compile_and_package

    from picowatch.engine.compiled.compile_job import PlainUnet, example_inputs, unet_to_compile

    torch.set_num_threads(job.threads)
    with torch.no_grad():
        unet = PlainUnet(unet_to_compile(job))
        program = torch.export.export(unet, example_inputs(job))
        aoti_compile_and_package(
            program, package_path=str(package), inductor_configs=_WITHOUT_WEIGHTS
        )
