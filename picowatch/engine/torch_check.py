"""The engine's side of `picowatch doctor`: torch, its devices and their memory.

`check_torch` checks them in another process, so that a torch that is broken or crashes is a line
with its remedy. That process runs `main`, which prints each line as JSON as soon as it is
known: a library that crashes loses none of those before it. Imports no torch by itself.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from picowatch.engine.failures import explain_exit

NVIDIA = Path("/proc/driver/nvidia/version")
WSL = Path("/dev/dxg")  # the graphics card of Windows
_INSTALL = "choose a build at https://pytorch.org/get-started/locally/"
LITTLE_GPU_MEMORY = 1.5e9
# As in constraints.txt.
TESTED = {
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "peft": "0.21.2",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `picowatch doctor`: what was found, and the remedy if it is not OK."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy


def check_torch(device: str, precision: str, engines: int = 1) -> list[Check]:
    """What is found of torch, and of the devices of so many engines, under these settings."""
    # -P keeps the user's folder off the path: a torch.py in it would be imported instead of torch.
    # The package's own parent comes last, because an installed package is found without it.
    root = str(Path(__file__).absolute().parents[2])
    code = f"import sys; sys.path.append({root!r}); from {__name__} import main; "
    code += f"main{(device, precision, engines)}"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"},
    )
    lines = result.stdout.splitlines()
    checks = [Check(**json.loads(line)) for line in lines if line.endswith(b"}")]
    if result.returncode:
        stderr = result.stderr.decode(errors="replace").splitlines()
        checks.append(Check("engine", *explain_exit(result.returncode, stderr)))
    return checks


def main(device: str, precision: str, engines: int) -> None:
    """Print what is found for so many engines on this machine."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries may print
        for check in _checks(device, precision, engines):
            print(json.dumps(asdict(check)), file=out, flush=True)


def _checks(device: str, precision: str, engines: int) -> Iterator[Check]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # whatever it raises is the result
        text = f"cannot be imported: {type(error).__name__}: {error}"
        yield Check("torch", text, f"Install it again: {_INSTALL}.")
        return
    yield _torch(torch)
    others = [name for name in TESTED if name != "torch"]
    yield Check("libraries", ", ".join(f"{name} {noted(name, version(name))}" for name in others))
    yield from _devices(torch, device, precision, engines)


def noted(name: str, found: str) -> str:
    """A library's version, with a note if it is newer than the one that was tested."""
    theirs, ours = (list(map(int, re.findall(r"\d+", one)[:2])) for one in (found, TESTED[name]))
    return f"{found} (newer than {TESTED[name]}, which was tested)" if theirs > ours else found


def _torch(torch: Any) -> Check:
    """The build fits what the machine has."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    if torch.version.hip:
        built = f"ROCm {torch.version.hip}"
    text = f"{noted('torch', torch.__version__)}, built for {built}"
    has_card = NVIDIA.exists() or WSL.exists()
    if torch.version.cuda and not has_card:
        text += "; there is no NVIDIA card, so the much smaller build for the CPU is enough"
    if has_card and built == "the CPU":
        return Check(
            "torch", f"{text}, though there is an NVIDIA card", f"For the card, {_INSTALL}."
        )
    if has_card and torch.version.cuda and not torch.cuda.is_available():
        return Check(
            "torch",
            f"{text}, which cannot use the NVIDIA card here",
            "Update the driver, or install a build for an older CUDA: "
            "https://pytorch.org/get-started/previous-versions/.",
        )
    return Check("torch", text)


def _devices(torch: Any, device: str, precision: str, engines: int) -> Iterator[Check]:
    """The devices that the settings mean, their memory, and the number format on them."""
    from picowatch.engine.devices import choose_target, precision_name
    from picowatch.errors import RenderFailed

    targets = {}
    for ordinal in range(engines):
        try:
            target = choose_target(device, precision, ordinal)  # type: ignore[arg-type]
        except RenderFailed as error:
            yield Check("device", error.message, error.remedy or "Set device: auto.")
            return
        targets[target.name] = target
    for target in targets.values():
        cpu = target.device.type == "cpu"
        threads = f", {torch.get_num_threads()} threads" if cpu else ""
        yield Check("device", f"{target.name}{threads} (device: {device})")
        if target.device.type == "cuda":
            yield _gpu_memory(*torch.cuda.mem_get_info(target.device))
    large, small = precision_name(target.large_unet_dtype), precision_name(target.dtype)
    used = (
        large if large == small else f"{large} for the UNet of full-size checkpoints, else {small}"
    )
    yield Check("precision", f"{used} (precision: {precision})")


def _gpu_memory(free: float, total: float) -> Check:
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB of the card's memory are free"
    short = free < LITTLE_GPU_MEMORY
    remedy = "Close other programs that use the card (nvidia-smi)." if short else ""
    return Check("card memory", text, remedy)
