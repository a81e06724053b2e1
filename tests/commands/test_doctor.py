"""`doctor`: each line OK, or not with its remedy."""

import errno
import json
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from picowatch.commands import doctor as doctor_module
from picowatch.commands.doctor import main
from picowatch.errors import EngineDied
from picowatch.outbox.lock import OutboxLock
from tests import digest_engine
from tests.catalog.files import checkpoint_shapes, write_model
from tests.commands.picowatch import PROJECT, picowatch
from tests.house import House

Checks = Callable[..., dict[str, Any]]


@pytest.fixture
def checks(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Checks:
    """The findings by name, from this process on the digest engine."""
    monkeypatch.setattr("tempfile.tempdir", str(house.folder))  # in memory, as conftest.py says

    def run(**values: Any) -> dict[str, Any]:
        options = Namespace(json=True)
        code = main(options, lambda: house.settings(**values), house.make_engine)
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] is (code == 0) is all(check["ok"] for check in found["checks"])
        assert all(check["ok"] is not bool(check["remedy"]) for check in found["checks"])
        return {check["name"]: check for check in found["checks"]}

    return run


def rendered_with(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Change what the engine says of the picture."""
    real = digest_engine.digest_picture
    monkeypatch.setattr(
        digest_engine, "digest_picture", lambda *given: replace(real(*given), **values)
    )


@pytest.mark.heavy  # what it imports takes 15 s; the tests below stand in for torch
def test_doctor_on_this_machine(tmp_path: Path) -> None:
    """The real thing: torch, the device and a picture by the demo model."""
    assert picowatch(tmp_path, "init").returncode == 0
    before = set(tmp_path.rglob("*"))
    answer = picowatch(tmp_path, "doctor")
    lines = answer.stdout.splitlines()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert all(line.startswith("OK      ") for line in lines)
    names = [line[8:20].strip() for line in lines]
    for name in ("Python", "system", "settings", "inbox", "outbox", "models",
                 "libraries", "device", "picture"):  # fmt: skip
        assert name in names
    assert "128x128 with the demo model in " in lines[-1]
    assert set(tmp_path.rglob("*")) == before, "it leaves nothing behind"


def test_a_broken_torch_and_bad_settings_are_lines_with_remedies(tmp_path: Path) -> None:
    """No traceback; everything else is still checked, with the defaults."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "inbox").mkdir()
    program = "raise ImportError('libcudart.so.13: cannot open shared object file')"
    (tmp_path / "broken/torch.py").write_text(program)
    (tmp_path / "picowatch.yaml").write_text("device: gpu\n")
    answer = picowatch(tmp_path, "doctor", PYTHONPATH=f"{tmp_path / 'broken'}:{PROJECT}")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "NOT OK  settings    picowatch.yaml, line 1, column 9: device 'gpu'" in answer.stdout
    assert "-> Fix that line." in answer.stdout
    assert "OK      outbox" in answer.stdout
    bad = answer.stdout[answer.stdout.index("NOT OK  picture") :]
    assert "libcudart.so.13" in bad and "Install picowatch again" in bad


def test_a_picture_that_fails_says_why(
    house: House, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its reason, with its remedy, in a line; the one for a full disk comes before that."""
    monkeypatch.setattr("picowatch.commands.doctor.LITTLE_SPACE", 1e18)
    died = EngineDied("The engine crashed (SIGILL).", "Update torch.")
    house.engine.before_batch = Mock(side_effect=died)
    monkeypatch.setattr(doctor_module, "versions", lambda: {"torch": "2.13.0", "diffusers": "0.4"})
    found = checks()
    assert found["libraries"]["text"] == "torch 2.13.0, diffusers 0.4"
    assert "Free some space" in found["outbox"]["remedy"]
    text = "The engine crashed (SIGILL). Update torch. That was attempt 2."
    assert found["picture"]["text"] == text
    assert found["picture"]["remedy"].startswith("If that does not help, start `picowatch run")
    with monkeypatch.context() as patch:
        empty = "picowatch.daemon.round.list_lines"  # as on a full disk
        patch.setattr(empty, lambda *given: given[2]._path.touch())
        assert checks()["picture"]["text"] == "no picture was rendered"
    full = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    monkeypatch.setattr("tempfile.mkdtemp", Mock(side_effect=full))
    picture = checks()["picture"]
    assert "No usable temporary directory" in picture["text"] and "TMPDIR" in picture["remedy"]


def test_what_is_missing_has_a_remedy(house: House, checks: Checks) -> None:
    """Models, a checkpoint, which may be named as in recipes, and an inbox."""
    models = checks(checkpoint="gone")["models"]
    assert "no checkpoint 'gone' in models/checkpoints" in models["text"] and models["remedy"]
    write_model(house.models / "checkpoints/DreamShaper_8.safetensors", checkpoint_shapes())
    assert checks(checkpoint="checkpoints/dream")["models"]["ok"]
    shutil.rmtree(house.models)
    models = checks()["models"]
    assert f"the folder {house.models} does not exist" in models["text"]
    assert "checkpoint: demo" in models["remedy"]
    house.inbox.rmdir()
    folders = checks()["folders"]
    assert "There is no inbox folder" in folders["text"]
    assert "picowatch init" in folders["remedy"]


def test_folders_and_settings_are_described(house: House, checks: Checks) -> None:
    """No hook is called for this picture, and no secret told: people paste it in bug reports."""
    (house.models / "checkpoints").mkdir(parents=True)
    (house.models / "checkpoints/old.ckpt").write_bytes(b"\x80\x02}q")
    called = house.folder / "called"
    touch = ["touch", str(called)]
    lock = OutboxLock(house.outbox)
    found = checks(stall_seconds=900.0, hooks={"picture": touch, "idle": touch})
    lock.release()
    assert re.fullmatch(r".*/inbox \(\w+\)", found["inbox"]["text"])
    assert found["outbox"]["text"].endswith("GB free, a picowatch is using it")
    assert "1 refused (see `picowatch models`)" in found["models"]["text"]
    settings = found["settings"]
    assert "hooks: {'picture': 'touch', 'idle': 'touch'}" in settings["text"]
    assert settings["ok"] and "stall_seconds: 900.0" in settings["text"]
    assert found["picture"]["ok"] and not called.exists()
    assert "compile" not in found


def test_a_cpu_that_cannot_compile_has_a_remedy(
    checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the recipes were to be compiled. Of a card it says whether graphs are used."""
    rendered_with(monkeypatch, device="cpu")
    monkeypatch.setattr("picowatch.commands.doctor.find_spec", lambda name: None)
    found = checks(compile=True)
    assert "not installed" in found["compile"]["text"]
    assert "[openvino]'" in found["compile"]["remedy"]
    assert "graphs" not in found
    for compiled, said in (("graph", "are used"), (False, "are not used")):
        rendered_with(monkeypatch, device="cuda:0", compiled=compiled)
        assert checks()["graphs"]["text"].endswith(said)
    assert "graphs" not in checks(graphs=False)


def test_a_card_that_torch_cannot_use_has_a_remedy(
    house: House, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the CPU was asked for."""
    rendered_with(monkeypatch, device="cpu", versions={"torch": "2.13.0", "diffusers": "0.42.1"})
    monkeypatch.setattr(doctor_module, "CARDS", [house.folder / "none"])
    found = checks()
    assert found["libraries"]["text"].startswith("torch 2.13.0, diffusers 0.42.1, picowatch ")
    assert found["device"]["ok"]
    monkeypatch.setattr(doctor_module, "CARDS", [house.folder])
    program = house.folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.159.04, 143156 MiB, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(house.folder), prepend=os.pathsep)
    found = checks()
    told = "NVIDIA H200, driver 580.159.04, 143156 MiB of 143771 MiB are free"
    assert found["card"]["text"] == told
    assert found["device"]["text"].endswith("though there is an NVIDIA card")
    assert "build of torch" in found["device"]["remedy"]
    assert checks(device="cpu")["device"]["ok"]
