"""Families, rungs and what recipes can say, where mixing devices is an error as on a card."""

import subprocess
import sys

import pytest
import torch

from tests.commands.picowatch import PROJECT, clean_environment

# Each family and variant, each rung with references, and stored pictures with LoRAs, ControlNets,
# start images and hires.
FAMILIES = "engine/test_flows.py::test_steps_are_reported_and_a_batch_ends_within_one"
RUNGS = "engine/test_edits.py::test_every_rung_edits_the_same"
PICTURES = "engine/test_rungs.py::test_every_rung_draws_the_stored_picture"


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
@pytest.mark.parametrize(
    ("tests", "which"),
    [
        *((FAMILIES, ""), (RUNGS, ""), (PICTURES, "not heavy")),
        *(("gpu/steps.py", ""), ("gpu/memory.py", "")),
    ],
)
def test_nothing_forgets_to_move_a_tensor(tests: str, which: str) -> None:
    """The pretended card is a plugin of pytest, in a process of its own."""
    command = ["-m", "pytest", "-q", "-p", "tests.gpu.pretended", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, *command, "-m", which, f"tests/{tests}"],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-5000:]
