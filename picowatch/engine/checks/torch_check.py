"""The engine's side of `picowatch doctor`: torch is looked at in another process.

A torch that is broken, hangs or crashes is a finding with its remedy. Imports no torch.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from picowatch.engine.process.deaths import how_it_died


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `picowatch doctor`: what is there, and where it is not well what to do."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy


TOO_LONG_SECONDS = 300.0  # to import everything from a slow disk
_BOOT = (
    "import sys; sys.path.append({root!r}); "
    "from {program} import main; main({device!r}, {precision!r}, {engines!r})"
)


def examine(
    device: str,
    precision: str,
    engines: int = 1,
    program: str = "picowatch.engine.checks.torch_check_main",
) -> list[Finding]:
    """What is found of torch, and of the devices of so many engines, under these settings."""
    root = str(Path(__file__).parents[3])
    boot = _BOOT.format(
        root=root, program=program, device=device, precision=precision, engines=engines
    )
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", boot],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"},
            timeout=TOO_LONG_SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        return [*_found(late.stdout or b""), _no_answer()]
    findings = _found(result.stdout)
    if result.returncode:
        said = result.stderr.decode(errors="replace").splitlines()
        findings.append(Finding("engine", *how_it_died(result.returncode, said)))
    return findings


def _found(lines: bytes) -> list[Finding]:
    return [Finding(**json.loads(line)) for line in lines.splitlines() if line.endswith(b"}")]


def _no_answer() -> Finding:
    return Finding(
        "engine",
        f"did not answer within {TOO_LONG_SECONDS:.0f} s",
        "Restart the computer: most often a driver hangs.",
    )
