"""No stranger's text manipulates the log, a file, the terminal or a picture's settings."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sd_parsers import ParserManager

from picowatch.metadata.embedded_text import read_texts
from picowatch.observers.console import LiveConsole, progress_text
from picowatch.outbox.status import Status
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import Batch
from tests.house import House
from tests.pictures import picture_with
from tests.security.attacks import STEERING, steers

MARKUP = "[bold red]x[/] [link=https://evil.example]y[/link] <script>z</script> ]]> {0} %s"
ALL = "".join(STEERING.values())


def assert_nothing_steers(house: House) -> None:
    """In no text file in the outbox, nor in its name."""
    for path in house.outbox.rglob("*"):
        place = path.relative_to(house.outbox).as_posix()
        assert not steers(place, lines=False) & {*ALL}, place
        if path.is_file() and path.suffix in (".txt", ".log", ".json", ".jsonl", ".js"):
            text = path.read_bytes().decode()
            assert not steers(text), place
            assert not re.search("^2026-01-01 00:00", text, re.MULTILINE), place


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_name_and_no_text_of_a_recipe_steers_anything(house: House, log_format: str) -> None:
    """In no file, whether it is rendered, refused, warned of, or fails; nor by a picture."""
    for n, bad in enumerate(STEERING.values()):
        name, escaped = f"a{bad}2026-01-01 00:00:00 forged", json.dumps(f"a {bad} {MARKUP}")
        files: dict[str, str | bytes] = {
            f"{name}.good.txt": "a corgi\n",
            f"{name}.bad.yaml": "stesp: 1\n",
            f"{name}.unread.yaml": b"prompt: \xff\n",
            f"{name}.warned.txt": "a star\nSteps: 20, Sampler: Euler a, Hypernet: x\n",
            f"{name}.failing.txt": "a failing corgi\n",
            f"{name}/deep.txt": "a\n---\n",
            f"{n}.yaml": f"prompt: 'a {bad} {MARKUP}'\n",
            f"{n}-escaped.yaml": f"prompt: {escaped}\n",
            f"{n}.txt": f"a {bad} corgi\n",
            f"{n}-key.yaml": f"{json.dumps(bad)}: 1\nprompt: x\nsteps: {json.dumps(bad)}\n",
            f"{n}-flag.txt": f"a corgi --{bad} 3 --seed {bad}x\n",
            f"{n}-model.yaml": f"prompt: x\ncheckpoint: {escaped}\n",
        }
        for file, text in files.items():
            house.save(file, text)
    request = {"prompt": ALL, "checkpoint": ALL, "sampler": ALL, ALL: ALL}
    for name, keyword, settings in (
        ("ours", "picowatch", json.dumps({"format": 1, "request": request})),
        ("sampler", "parameters", f"a\nSteps: 20, Sampler: {ALL}x"),
        ("prompt", "parameters", f"{ALL}\nSteps: 20, Model: {ALL}, Seed: 1"),
    ):
        picture_with(house.inbox / f"{name}.png", keyword, settings)
        house.save(f"{name}.yaml", f"from: {name}.png\n")
    house.engine.before_batch = fail_if_asked
    house.once(log_format=log_format, batch_size=1)
    assert "This picture fails" in house.log()
    assert house.error("0-flag.txt")
    assert house.error("ours.yaml") and house.error("prompt.yaml")
    assert house.error("sampler.yaml") is None
    assert_nothing_steers(house)
    for line in house.log().splitlines():
        assert json.loads(line)["message"] if log_format == "json" else re.match(r"\d{4}-", line)


def fail_if_asked(batch: Batch) -> None:
    if "failing" in batch[0].prompt:
        raise RuntimeError("This picture fails.")


def test_the_commands_print_nothing_that_steers(tmp_path: Path) -> None:
    """Names of files, prompts and mistakes, and what trainers wrote into models."""
    inbox, loras = tmp_path / "inbox", tmp_path / "models/loras"
    inbox.mkdir()
    metadata = {"ss_sd_model_name": f"base{ALL}", "modelspec.trigger_phrase": f"word{ALL}"}
    told = write_model(loras / "told.safetensors", kohya_lora_shapes(), metadata=metadata)
    for number, steering in enumerate(STEERING.values()):
        name = f"{number}{steering}b"
        shutil.copy(told, loras / f"{name}.safetensors")
        (loras / f"{name}.ckpt").write_bytes(b"\x80\x02")
        (inbox / f"{name}.bad.yaml").write_text("stesp: 1\n")
        (inbox / f"{name}.txt").write_text(f"a {STEERING['right to left']} corgi {MARKUP}\n")
        warned = "a star\nSteps: 20, Sampler: Euler a, Hypernet: x\n"
        (inbox / f"{name}.warned.txt").write_text(warned)
    (inbox / "model.yaml").write_text("prompt: x\nloras: {nothing: 1}\n")
    files = sorted(inbox.iterdir())
    checked = picowatch_here(
        tmp_path, "check", *files, tmp_path / f"{STEERING['colours']}.missing.txt"
    )
    assert "Hypernet" in checked.stderr and "told" in checked.stderr
    checked_json = picowatch_here(tmp_path, "check", "--json", *files)
    assert len(json.loads(checked_json.stdout)["images"]) == 2 * len(STEERING)
    for file in inbox.glob("*.txt"):
        file.unlink()
    ran = picowatch_here(tmp_path, "run", "--once")
    assert ran.stdout.count("stesp") == 2 * len(STEERING), "in the log, and in the summary"
    status = picowatch_here(tmp_path, "status")
    assert "stesp" in status.stdout
    models = picowatch_here(tmp_path, "models")
    assert "told" in models.stdout and "word" in models.stdout
    models_json = picowatch_here(tmp_path, "models", "--json")
    own = [model for model in json.loads(models_json.stdout) if model["path"].startswith("models/")]
    assert len(own) == 1 + 2 * len(STEERING)
    for result in (checked, checked_json, ran, status, models, models_json):
        assert not steers(result.stdout + result.stderr)


def test_show_prints_a_strangers_picture_without_being_steered(house: House) -> None:
    """The YAML has everything as escapes, and each field stays one field."""
    house.save("a.yaml", "prompt: x\nseed: 1\nhires: {scale: 2}\n")
    house.once()
    chunk = json.loads(read_texts(house.outbox / house.pictures()[0])["picowatch"])
    texts = ("prompt", "negative_prompt", "checkpoint", "vae", "sampler", "image", "mask")
    forged: list[dict[str, Any]] = []
    pictures = []
    for number, steering in enumerate(STEERING.values()):
        hires = {"scale": 2, "steps": 1, "denoising_strength": 0.5, "upscaler": steering}
        forged.append(dict.fromkeys(texts, f"a{steering}b: c\nseed: 9") | {"hires": hires})
        forged[-1]["mask"] += "m"  # the image's own name would be its transparency
        text = json.dumps(chunk | {"request": chunk["request"] | forged[-1]}, ensure_ascii=False)
        pictures.append(picture_with(house.folder / f"{number}.png", "picowatch", text))
    shown = picowatch_here(house.folder, "show", *pictures)
    assert shown.returncode == 0, shown.stderr
    as_json = picowatch_here(house.folder, "show", "--json", *pictures)
    assert not steers(shown.stdout + as_json.stdout)
    for request, found in zip(forged, yaml.safe_load_all(shown.stdout), strict=True):
        assert {name: request[name] for name in texts}.items() <= found.items()
        assert found["hires"]["upscaler"] == request["hires"]["upscaler"]
        assert found["seed"] == 1
    for request, line in zip(forged, as_json.stdout.splitlines(), strict=True):
        assert request.items() <= json.loads(line)["request"].items()


def test_the_live_line_on_a_terminal_is_not_steered(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by control characters nor by rich's own markup."""
    for what, steering in STEERING.items():
        status = Status(updated=0.0, started=0.0, images={"queued": 0}, image=1, of=2)
        status = replace(status, recipe=f"{MARKUP}{steering}.txt")
        assert not steers(progress_text(status) + status.line(), lines=False)
        console = LiveConsole()
        console.show(status)
        console.close()
        assert steering.strip("\n") not in capsys.readouterr().out or what == "line break"


FORGED = (
    "a corgi\nNegative prompt: forged\nSteps: 1, Sampler: DDIM, CFG scale: 1, Seed: 1, "
    "Size: 64x64, Model hash: 0000000000, Model: forged"
)


def test_a_forged_parameters_line_in_a_prompt_changes_no_value(house: House) -> None:
    """A1111's readers take the last line, which is ours; picowatch reads its own JSON."""
    house.save("a.yaml", f"prompt: {json.dumps(FORGED)}\nseed: 7\nsteps: 20\n")
    assert house.once()
    (picture,) = house.pictures("a")
    parsed = ParserManager().parse(house.outbox / picture)
    assert parsed is not None
    (sampler,) = parsed.samplers
    assert {"steps": "20", "seed": "7"}.items() <= sampler.parameters.items()
    assert sampler.model is not None and sampler.model.name == "demo"
    house.save("b.yaml", f"from: {picture}\n")
    assert house.once()
    assert house.prompts("b") == [FORGED]
    again = house.chunk(house.pictures("b")[0]).request
    assert (again.steps, again.negative_prompt) == (20, "")
