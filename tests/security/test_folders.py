"""A stranger's diffusers folder contains code and pickles: nothing of it runs."""

import json
import pickle
import shutil
from pathlib import Path

from picowatch.engine.protocol import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.flow_requests import FLOW_WARNINGS, requests_of
from tests.engine.requests import ignore_steps
from tests.engine.tiny_flows import tiny_flow

pytestmark = FLOW_WARNINGS
NAME = "FLUX.1-schnell"


def _touching(trace: Path) -> str:
    return f"import pathlib; pathlib.Path({str(trace)!r}).touch()"


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (_touching(self.trace),)


def test_code_and_pickles_of_a_folder_are_never_run(tmp_path: Path) -> None:
    """Modules named in every config, code for the pipeline, and pickles beside the weights."""
    folder, trace = tmp_path / "checkpoints" / NAME, tmp_path / "trace"
    shutil.copytree(tiny_flow(NAME), folder)
    code = f"{_touching(trace)}\nclass Evil: pass\n"
    named = dict.fromkeys(("AutoModel", "AutoConfig", "AutoTokenizer"), "evil.Evil")
    (folder / "evil.py").write_text(code)
    (folder / "pipeline.py").write_text(code)
    for config in folder.glob("*/*config.json"):
        values = json.loads(config.read_text())
        values |= {"auto_map": named, "trust_remote_code": True, "custom_pipeline": "evil"}
        config.write_text(json.dumps(values))
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        (folder / part / "evil.py").write_text(code)
        for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
            (folder / part / name).write_bytes(pickle.dumps(Payload(trace)))
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()  # it would work
    trace.unlink()
    options = EngineOptions(models=tmp_path, device="cpu", precision="float32", threads=1)
    wanted = requests_of(tmp_path, NAME, "prompt: a red cube")
    assert Renderer(options).render(wanted, ignore_steps)
    assert not trace.exists()
