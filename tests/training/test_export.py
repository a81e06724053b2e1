"""A run that begins with an exported model."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from training.export import begin_with, export_model

DEMO = Path(__file__).parents[2] / "picowatch/assets/demo"


def test_a_run_that_begins_with_a_model_exports_that_model(tmp_path: Path) -> None:
    """And one that has begun keeps its own weights."""
    run, exported = tmp_path / "run", tmp_path / "exported"
    begin_with(DEMO, run)
    export_model(run, exported)
    files = [file.relative_to(DEMO) for file in DEMO.rglob("*.safetensors")]
    assert len(files) == 3
    for file in files:
        ours, theirs = load_file(exported / file), load_file(DEMO / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), file
    before = (run / "denoiser.state.pt").read_bytes()
    begin_with(exported, run)
    assert (run / "denoiser.state.pt").read_bytes() == before
