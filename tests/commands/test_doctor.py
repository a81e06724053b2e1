"""`doctor`: each line OK, or not with its remedy."""

import json
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picowatch.commands import doctor as doctor_module
from picowatch.commands.doctor import doctor
from picowatch.errors import EngineDied, SettingsInvalid
from picowatch.outbox.lock import OutboxLock
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests import digest_engine
from tests.catalog.files import checkpoint_shapes, write_model
from tests.commands.picowatch import PROJECT, picowatch, start
from tests.house import House


def checks(house: House, capsys: pytest.CaptureFixture[str], **values: Any) -> dict[str, Any]:
    """The findings by name, from this process on the digest engine."""
    code = doctor(lambda: house.settings(**values), as_json=True, make_engine=house.make_engine)
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is (code == 0) is all(check["ok"] for check in found["checks"])
    assert all(check["ok"] is not bool(check["remedy"]) for check in found["checks"])
    return {check["name"]: check for check in found["checks"]}


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


@pytest.mark.parametrize("how", ["raises", "crashes", "ends"])
def test_a_broken_torch_is_a_line_with_its_remedy(tmp_path: Path, how: str) -> None:
    """No traceback, whatever the import does; everything else is still checked."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "inbox").mkdir()
    (tmp_path / "broken/torch.py").write_text(
        {
            "raises": "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "crashes": f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})",
            "ends": "raise SystemExit('no licence')",
        }[how]
    )
    path = f"{tmp_path / 'broken'}:{PROJECT}"
    answer = picowatch(tmp_path, "doctor", PYTHONPATH=path)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "OK      outbox" in answer.stdout
    said = {
        "raises": ("libcudart.so.13", "Install picowatch again"),
        "crashes": ("crashed (SIGSEGV)", "install them again"),
        "ends": ("It said: no licence", "install them again"),
    }[how]
    bad = answer.stdout[answer.stdout.index("NOT OK  picture") :]
    assert all(words in bad for words in said), bad


def test_a_picture_that_fails_says_why(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the error file's text; a disk that is nearly full has its remedy before that."""
    monkeypatch.setattr("picowatch.commands.doctor.LITTLE_SPACE", 1e18)

    def die(batch: Sequence[ImageRequest]) -> None:
        raise EngineDied("The engine crashed (SIGILL).")

    house.engine.before_batch = die
    found = checks(house, capsys)
    picture = found["picture"]
    assert "Free some space" in found["outbox"]["remedy"]
    assert "The engine crashed (SIGILL)." in picture["text"]
    assert not picture["ok"]


def test_bad_settings_are_a_line(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rest is checked with the defaults."""

    def load() -> Settings:
        raise SettingsInvalid("picowatch.yaml, line 1: device 'gpu': it must be auto.")

    monkeypatch.chdir(house.folder)
    assert doctor(load, as_json=False, make_engine=house.make_engine) == 1
    shown = capsys.readouterr().out
    assert "NOT OK  settings    picowatch.yaml, line 1: device 'gpu'" in shown
    assert "-> Fix that line." in shown
    assert "OK      picture" in shown


def test_folders_that_are_missing_have_a_remedy(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without models, recipes that name no checkpoint are refused; `init` makes an inbox."""
    house.models.rmdir()
    models = checks(house, capsys)["models"]
    assert f"the folder {house.models} does not exist" in models["text"]
    assert "checkpoint: demo" in models["remedy"]
    house.inbox.rmdir()
    folders = checks(house, capsys)["folders"]
    assert "There is no inbox folder" in folders["text"]
    assert "picowatch init" in folders["remedy"]


def test_each_folder_is_described(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file system, room, who works there, what is installed; only a CPU compiles."""
    (house.models / "checkpoints").mkdir(parents=True)
    (house.models / "checkpoints/old.ckpt").write_bytes(b"\x80\x02}q")
    lock = OutboxLock(house.outbox)
    found = checks(house, capsys)
    lock.release()
    assert re.fullmatch(r".*/inbox \(\w+\)", found["inbox"]["text"])
    assert found["outbox"]["text"].endswith("GB free, a picowatch is using it")
    assert "1 refused (see `picowatch models`)" in found["models"]["text"]
    assert "compile" not in found


def test_settings_are_shown_and_tried(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint may be named as in recipes; one that is not there has its remedy."""
    found = checks(house, capsys, checkpoint="gone", stall_seconds=900.0)
    assert "no checkpoint 'gone' in models/checkpoints" in found["models"]["text"]
    assert found["models"]["remedy"] and found["settings"]["ok"]
    assert "stall_seconds: 900.0" in found["settings"]["text"]
    write_model(house.models / "checkpoints/DreamShaper_8.safetensors", checkpoint_shapes())
    for name in ("dreamshaper_8.safetensors", "dream", "checkpoints/DreamShaper_8"):
        assert checks(house, capsys, checkpoint=name)["models"]["ok"]


def test_a_check_calls_no_hook_and_says_no_secret(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its picture is nobody's news, and what it says is pasted into bug reports."""
    called = house.folder / "called"
    touch = ["touch", str(called)]
    found = checks(house, capsys, hooks={"picture": touch, "idle": touch})
    assert found["picture"]["ok"]
    assert not called.exists()
    assert "hooks: {'picture': 'touch', 'idle': 'touch'}" in found["settings"]["text"]


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What renders the picture says that it is a CPU."""
    real = digest_engine.digest_picture
    monkeypatch.setattr(
        digest_engine, "digest_picture", lambda *given: replace(real(*given), device="cpu")
    )


@pytest.mark.usefixtures("on_the_cpu")
def test_a_cpu_that_could_compile_is_told_how(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has asked for it and does not get it has to do something."""
    monkeypatch.setattr("picowatch.commands.doctor.find_spec", lambda name: None)
    off = checks(house, capsys)["compile"]
    assert off["ok"] and off["text"].endswith("[openvino]'")
    on = checks(house, capsys, compile=True)["compile"]
    assert "not installed" in on["text"] and "[openvino]'" in on["remedy"]
    monkeypatch.setattr("picowatch.commands.doctor.find_spec", lambda name: name)
    assert checks(house, capsys)["compile"]["text"].startswith("off")
    assert checks(house, capsys, compile=True)["compile"]["text"] == "by OpenVINO"


@pytest.mark.usefixtures("on_the_cpu")
def test_a_card_that_is_not_used_has_its_remedy(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a build of torch for the CPU, or an old driver; not where the CPU was asked for."""
    monkeypatch.setattr("picowatch.commands.doctor.CARDS", [house.folder])
    device = checks(house, capsys)["device"]
    assert device["text"].endswith("though there is an NVIDIA card")
    assert "build of torch" in device["remedy"]
    assert checks(house, capsys, device="cpu")["device"]["ok"]


def test_the_findings_reach_a_pipe_as_they_are_found(tmp_path: Path) -> None:
    """Users see progress, and may end it."""
    (tmp_path / "inbox").mkdir()
    with start(tmp_path, "doctor", stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith("OK      picowatch")
        process.stdout.close()
        assert process.stderr.read() == ""


def test_unusual_libraries_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Newer ones than those of constraints.txt, and five gigabytes for a card that is not there."""
    pinned = (PROJECT / "constraints.txt").read_text().splitlines()
    for name, version in doctor_module.TESTED.items():
        assert f"{name}=={version}" in pinned
    versions = {**doctor_module.TESTED, "diffusers": "99.1"}
    monkeypatch.setattr(doctor_module, "_is_for_cuda", lambda: True)
    monkeypatch.setattr(doctor_module, "CARDS", [tmp_path / "none"])
    noted = doctor_module._noted(versions)
    assert "; diffusers is newer than 0.42.1, which was tested; torch is built for CUDA" in noted
    monkeypatch.setattr(doctor_module, "CARDS", [tmp_path])
    assert "CUDA" not in doctor_module._noted(doctor_module.TESTED)
