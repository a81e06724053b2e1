"""No stranger's text manipulates the log, a file, the terminal or a picture's settings."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

from picowatch.metadata import read_texts
from picowatch.observers.console import LiveConsole, progress_text
from picowatch.outbox.status import Status
from tests.catalog.files import header, kohya_lora_shapes
from tests.commands.picowatch import picowatch
from tests.house import House
from tests.security.attacks import STEERING, steers

MARKUP = "[bold red]x[/] [link=https://evil.example]y[/link] <script>z</script> ]]> {0} %s"
RIGHT_TO_LEFT = STEERING["right to left"]


def texts_of(house: House) -> dict[str, str]:
    """Every text file in the outbox, by its place."""
    found = {}
    for path in house.outbox.rglob("*"):
        if path.is_file() and path.suffix in (".txt", ".log", ".json", ".jsonl", ".js"):
            found[path.relative_to(house.outbox).as_posix()] = path.read_bytes().decode()
    return found


@pytest.mark.parametrize("what", STEERING)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_recipes_name_steers_nothing(house: House, what: str, log_format: str) -> None:
    """It does so in no file, whether the recipe is rendered, refused, warned of, or fails."""
    name = f"a{STEERING[what]}2026-01-01 00:00:00 forged"
    house.save(f"{name}.good.txt", "a corgi\n")
    house.save(f"{name}.bad.yaml", "stesp: 1\n")
    house.save(f"{name}.unread.yaml", b"prompt: \xff\n")
    house.save(f"{name}.warned.txt", "a star\nSteps: 20, Sampler: Euler a, Hypernet: x\n")
    house.save(f"{name}.failing.txt", "a failing corgi\n")
    house.save(f"{name}/deep.txt", "a\n---\n")
    house.once(log_format=log_format)
    for place, text in texts_of(house).items():
        assert not steers(text), place
        assert not steers(place, lines=False) & set(STEERING[what]), place
        assert not [line for line in text.splitlines() if line.startswith("2026-01-01 00:00")]
    for line in house.log().splitlines():
        assert json.loads(line)["message"] if log_format == "json" else re.match(r"\d{4}-", line)


@pytest.mark.parametrize("what", STEERING)
def test_a_prompt_steers_nothing(house: House, what: str) -> None:
    """Most of it is refused with its position; the rest is shown as escapes or plain text."""
    hostile = STEERING[what]
    house.save("yaml.yaml", f"prompt: 'a {hostile} {MARKUP}'\n")
    house.save("escaped.yaml", f"prompt: {json.dumps(f'a {hostile} {MARKUP}')}\n")
    house.save("line.txt", f"a {hostile} corgi\n")
    house.save("key.yaml", f"{json.dumps(hostile)}: 1\nprompt: x\nsteps: {json.dumps(hostile)}\n")
    house.save("flag.txt", f"a corgi --{hostile} 3 --seed {hostile}x\n")
    house.save("names.yaml", f"prompt: x\ncheckpoint: {json.dumps('x' + hostile)}\n")
    house.once()
    for place, text in texts_of(house).items():
        assert not steers(text), place


def test_a_pictures_settings_steer_nothing(house: House) -> None:
    """A stranger's picture can hold what no recipe may: refused or left out, shown as escapes."""
    hostile = "".join(STEERING.values())
    chunks = PngImagePlugin.PngInfo()
    request = {"prompt": hostile, "checkpoint": hostile, "sampler": hostile, hostile: hostile}
    chunks.add_itxt("picowatch", json.dumps({"format": 1, "request": request}))
    Image.new("RGB", (64, 64)).save(house.inbox / "ours.png", pnginfo=chunks)
    for number, settings in enumerate(
        (f"a\nSteps: 20, Sampler: {hostile}x", f"{hostile}\nSteps: 20, Model: {hostile}, Seed: 1")
    ):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("parameters", settings)
        Image.new("RGB", (64, 64)).save(house.inbox / f"a1111-{number}.png", pnginfo=chunks)
    for picture in ("ours", "a1111-0", "a1111-1"):
        house.save(f"{picture}.yaml", f"from: {picture}.png\n")
    house.once()
    errors = {path.name.partition(".")[0] for path in house.outbox.glob("*.error.txt")}
    assert errors == {"ours", "a1111-1"}
    for place, text in texts_of(house).items():
        assert not steers(text), place


def test_the_commands_print_nothing_that_steers(tmp_path: Path) -> None:
    """`check`, `run --once` and `status`, with the names of files, prompts and mistakes."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (tmp_path / "models").mkdir()
    for number, steering in enumerate(STEERING.values()):
        name = f"{number}{steering}b"
        (inbox / f"{name}.bad.yaml").write_text("stesp: 1\n")
        (inbox / f"{name}.txt").write_text(f"a {RIGHT_TO_LEFT} corgi {MARKUP}\n")
        (inbox / f"{name}.warned.txt").write_text(
            "a star\nSteps: 20, Sampler: Euler a, Hypernet: x\n"
        )
    files = sorted(inbox.iterdir())
    checked = picowatch(tmp_path, "check", *files, tmp_path / f"{STEERING['colours']}.missing.txt")
    as_json = picowatch(tmp_path, "check", "--json", *files)
    assert len(json.loads(as_json.stdout)) == 2 * len(STEERING)
    for file in inbox.glob("*.txt"):
        file.unlink()
    ran = picowatch(tmp_path, "run", "--once")
    status = picowatch(tmp_path, "status")
    assert "Hypernet" in checked.stderr
    assert ran.stdout.count("stesp") == len(STEERING)
    assert "stesp" in status.stdout
    for result in (checked, as_json, ran, status):
        assert not steers(result.stdout + result.stderr)


def test_a_model_files_own_words_steer_nothing(tmp_path: Path) -> None:
    """Names of downloaded files, and what their trainers wrote into them."""
    hostile = "".join(STEERING.values())
    folder = tmp_path / "models/loras"
    folder.mkdir(parents=True)
    shapes = kohya_lora_shapes()
    length = sum(2 * math.prod(shape) for shape in shapes.values())
    plain = json.loads(header(shapes)[8:])
    plain["__metadata__"] = {
        "ss_sd_model_name": f"base{hostile}",
        "modelspec.trigger_phrase": f"word{hostile}",
    }
    raw = json.dumps(plain).encode()
    content = len(raw).to_bytes(8, "little") + raw + bytes(length)
    (folder / "told.safetensors").write_bytes(content)
    for number, steering in enumerate(STEERING.values()):
        (folder / f"{number}{steering}.safetensors").write_bytes(content)
        (folder / f"{number}{steering}.ckpt").write_bytes(b"\x80\x02")
    listed = picowatch(tmp_path, "models")
    as_json = picowatch(tmp_path, "models", "--json")
    assert "told" in listed.stdout
    assert "word" in listed.stdout
    own = [one for one in json.loads(as_json.stdout) if one["path"].startswith("models/")]
    assert len(own) == 1 + 2 * len(STEERING)
    (tmp_path / "inbox").mkdir()
    recipe = tmp_path / "inbox/a.yaml"
    recipe.write_text("prompt: x\nloras: {nothing: 1}\n")
    refused = picowatch(tmp_path, "check", recipe)
    assert "told" in refused.stderr
    for result in (listed, as_json, refused):
        assert not steers(result.stdout + result.stderr)


def forged(house: House, name: str, **values: Any) -> Path:
    """Return one of our pictures with a forged chunk; `request` is merged into its request."""
    if not house.pictures():
        house.save("a.yaml", "prompt: x\nseed: 1\nhires: {scale: 2}\n")
        house.once()
    chunk = json.loads(read_texts(house.outbox / house.pictures()[0])["picowatch"])
    chunk["request"] |= values.pop("request", {})
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("picowatch", json.dumps(chunk | values, ensure_ascii=False))
    path = house.folder / f"{name}.png"
    Image.new("RGB", (64, 64)).save(path, pnginfo=chunks)
    return path


def test_show_prints_a_strangers_picture_without_being_steered(house: House) -> None:
    """The YAML has everything as escapes, and each field stays one field."""
    fields = ("prompt", "negative_prompt", "checkpoint", "vae", "sampler", "image", "mask")
    requests: list[dict[str, Any]] = [
        dict.fromkeys(fields, f"a{s}b: c\nseed: 9") for s in STEERING.values()
    ]
    for request, steering in zip(requests, STEERING.values(), strict=True):
        request["hires"] = {"scale": 2, "steps": 1, "denoising_strength": 0.5, "upscaler": steering}
    pictures = [forged(house, str(n), request=request) for n, request in enumerate(requests)]
    shown = picowatch(house.folder, "show", *pictures)
    assert shown.returncode == 0, shown.stderr
    assert not steers(shown.stdout)
    for request, found in zip(requests, yaml.safe_load_all(shown.stdout), strict=True):
        assert {name: request[name] for name in fields}.items() <= found.items()
        assert found["hires"]["upscaler"] == request["hires"]["upscaler"]
        assert found["seed"] == 1
    as_json = picowatch(house.folder, "show", "--json", *pictures)
    assert not steers(as_json.stdout)
    for request, line in zip(requests, as_json.stdout.splitlines(), strict=True):
        assert request.items() <= json.loads(line)["request"].items()


@pytest.mark.parametrize("what", STEERING)
def test_the_live_line_on_a_terminal_is_not_steered(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by control characters nor by rich's own markup."""
    status = Status(
        updated=0.0,
        started=0.0,
        images={"queued": 0},
        recipe=f"{MARKUP}{STEERING[what]}.txt",
        image=1,
        of=2,
    )
    assert not steers(progress_text(status) + status.line(), lines=False)
    console = LiveConsole()
    console.show(status)
    console.close()
    assert STEERING[what].strip("\n") not in capsys.readouterr().out or what == "line break"


# As A1111 reads its own text (modules/infotext_utils.py, parse_generation_parameters).
A1111_VALUE = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def a1111_reads(text: str) -> dict[str, str]:
    """Prompt, negative prompt and values, as A1111 takes them from `parameters`."""
    *lines, last = text.strip().split("\n")
    prompts: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    part = "Prompt"
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            part = "Negative prompt"
        prompts[part].append(line.removeprefix("Negative prompt:").strip())
    return dict(A1111_VALUE.findall(last)) | {n: "\n".join(p) for n, p in prompts.items()}


FORGED = (
    "a corgi\nNegative prompt: forged\nSteps: 1, Sampler: DDIM, CFG scale: 1, Seed: 1, "
    "Size: 64x64, Model hash: 0000000000, Model: forged"
)


def test_a_forged_parameters_line_in_a_prompt_changes_no_value(house: House) -> None:
    """A1111's readers take the last line, which is ours; picowatch reads its own JSON."""
    house.save("a.yaml", f"prompt: {json.dumps(FORGED)}\nseed: 7\nsteps: 20\n")
    assert house.once()
    (picture,) = house.pictures("a")
    read = a1111_reads(read_texts(house.outbox / picture)["parameters"])
    assert (read["Steps"], read["Seed"], read["Model"]) == ("20", "7", "demo")
    parsed = ParserManager().parse(house.outbox / picture)
    assert parsed is not None
    (sampler,) = parsed.samplers
    assert sampler.parameters["steps"] == "20"
    assert sampler.parameters["seed"] == "7"
    house.save("b.yaml", f"from: {picture}\n")
    assert house.once()
    assert house.prompts("b") == [FORGED]
    again = house.chunk(house.pictures("b")[0]).request
    assert (again.steps, again.negative_prompt) == (20, "")
