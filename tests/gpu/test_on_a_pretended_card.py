"""Families, rungs and what recipes can say, where mixing devices is an error as on a card."""

import subprocess
import sys

import pytest
import torch

from tests.commands.picowatch import PROJECT, clean_environment

# Besides each family: packed weights, those that edit, and stored pictures with LoRAs, whose layers
# must come with the others, ControlNets and hires.
PACKED = "engine/test_sdnq.py::test_a_packed_folder_draws_what_its_weights_in_full_draw"
EDITS = "engine/test_edits.py::test_every_rung_edits_the_same"
PICTURES = "engine/test_rungs.py::test_every_rung_draws_the_stored_picture"


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
@pytest.mark.parametrize(
    ("tests", "which"),
    [
        *(("gpu/steps.py", ()), ("gpu/memory.py", ()), (EDITS, ()), (PACKED, ())),
        (PICTURES, ("-m", "", "-k", "lora-control or hires-latent or sdxl-lora")),
    ],
)
def test_nothing_forgets_to_move_a_tensor(tests: str, which: tuple[str, ...]) -> None:
    """The pretended card is a plugin of pytest, in a process of its own."""
    command = ["-m", "pytest", "-q", "-p", "tests.gpu.pretended", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, *command, *(which or ("-m", "")), f"tests/{tests}"],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-5000:]
