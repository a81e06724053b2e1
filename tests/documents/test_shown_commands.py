"""The commands that the docs show do what the docs say; their strips and examples are current."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from docs.strips import IMAGES, STRIPS, Strip, strips
from docs.tables import pages
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.outbox.status import EngineStatus, FolderStatus, Status
from picowatch.recipe.reading import read_recipes
from tests.commands.picowatch import DIGESTS_HERE, give_commands, picowatch_here, ran
from tests.house import House, wait_for
from tests.test_docs import INVENTORY, PROJECT, blocks

CRON = PROJECT / "docs/cron.md"
LINE = re.compile(r"(?:[\d*/,-]+ ){4}[\d*/,-]+ +(?P<command>\S.*)")


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lines as somebody types them, up to one that fails."""
    return ran(folder, "sh", "-ec", command, **environment)


def give_environment(folder: Path, program: str = "picowatch") -> Path:
    """`picowatch` and `python` in a folder's .venv, as `make demo` puts them there."""
    own, python = (f'exec {sys.executable} {words}"$@"' for words in (f"-m {program} ", ""))
    return give_commands(folder / ".venv/bin", picowatch=own, python=python)


def crontab_lines(page: Path) -> list[str]:
    lines = "".join(blocks(page, "crontab")).splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert lines and all(found), lines
    return [line["command"] for line in found if line]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    clone = tmp_path / "picowatch"
    (clone / "inbox").mkdir(parents=True)
    shutil.copytree(PROJECT / "examples", clone / "examples")
    (copy,) = (text for text in blocks(CRON, "sh") if text.startswith("cp "))
    assert shell(copy, clone).returncode == 0
    return tmp_path


def test_crons_jobs_beside_a_running_picowatch_make_a_picture_each(home: Path) -> None:
    """Each line of the README and of docs/cron.md that needs one."""
    folder = home / "picowatch"
    shutil.rmtree(folder / "inbox")
    house = House(folder)
    shutil.copy(folder / "examples/06-every-morning.txt", house.inbox / "morning.txt")
    commands = [*crontab_lines(PROJECT / "README.md"), *crontab_lines(CRON)]
    saves = [command for command in commands if "cd " not in command]
    assert len(saves) == 4
    with house.running():
        wait_for(lambda: len(house.pictures("morning")) == 1, "the first picture")
        for number, command in enumerate(saves, 2):
            assert shell(command, home, HOME=str(home)).returncode == 0
            wait_for(lambda n=number: len(house.pictures()) == n, command)  # type: ignore[misc]
    assert len(set(house.seeds("morning"))) == len(house.pictures("morning")) == 4


def test_crons_jobs_without_one_make_a_picture_each(home: Path) -> None:
    """`make` twice, `run --once` after another save."""
    folder = home / "picowatch"
    give_environment(folder, DIGESTS_HERE)
    made = folder / "outbox/morning"
    jobs = [command for command in crontab_lines(CRON) if "cd " in command]
    assert len(jobs) == 3
    for number, command in enumerate(jobs, 1):
        if "--once" in command:
            (folder / "inbox/morning.txt").touch()
        done = shell(command, home, HOME=str(home), PATH="/usr/bin:/bin")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(list(made.glob("*.png"))) == number
    with Image.open(home / "today.png") as today:
        assert today.size == (128, 128)


def test_the_first_hour_is_typed_line_by_line(home: Path) -> None:
    """docs/first-hour.md from its second step on, without downloads; its cron job has no daemon."""
    folder, page = home / "picowatch", PROJECT / "docs/first-hour.md"
    shutil.copytree(PROJECT / "docs/images", folder / "docs/images")
    (folder / "inbox/morning.txt").unlink()
    give_environment(folder, DIGESTS_HERE)
    (folder / ".venv/bin/activate").write_text(f'PATH="{folder}/.venv/bin:$PATH"')
    *_, _, run, hello, photos, cancel, _, copied = blocks(page, "sh")
    assert run == "picowatch run\n"
    (recipe,), (morning,) = blocks(page, "yaml"), crontab_lines(page)

    def typed(lines: str) -> str:
        done = shell(f". .venv/bin/activate; {lines}", folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    house, goes_on = House(folder), threading.Event()
    with house.running():
        typed(hello)
        wait_for(lambda: len(house.pictures("hello")) == 1, "the first picture")
        name = recipe.splitlines()[0].removeprefix("# inbox/")
        house.save(name, recipe)
        wait_for(lambda: len(house.pictures("sunglasses")) == 4, "three pictures and a sheet")
        house.save(name, recipe.replace("[2, 4, 8]", "[2, 5, 8]"))
        wait_for(lambda: len(house.pictures("sunglasses")) == 6, "one picture and a new sheet")
        house.engine.before_batch = lambda _: wait_for(goes_on.is_set, "the cancellation")
        typed(photos)
        wait_for(lambda: house.status()["folders"], "the folder's progress")
        assert "upscale: " in typed("picowatch status")
        assert re.search("images? cancelled", typed(cancel))
        goes_on.set()
    typed(copied)
    done = shell(morning, home, HOME=str(home), PATH="/usr/bin:/bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(house.pictures("morning")) == 1


def test_a_pictures_recipe_is_found_again_and_taken_out(house: House) -> None:
    """Every line of docs/metadata.md; its table has the keys of the picture."""
    give_environment(house.folder)
    page = PROJECT / "docs/metadata.md"
    house.save("mistake.yaml", "stesp: 7\n")
    assert not house.once()
    (house.inbox / "mistake.yaml").unlink()
    house.save("corgi.yaml", "prompt: a corgi\nseed: 7\n")
    house.save("wrong.yaml", "prompt: [\n")
    assert not house.once()
    texts = read_texts(house.outbox / "corgi/0001-7.png")
    chunk, _, _ = page.read_text().partition("## images.jsonl")
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", chunk, re.M))))
    assert named == set(json.loads(texts[PICOWATCH]))

    path = f"{house.folder / '.venv/bin'}:{os.environ['PATH']}"
    for line in "".join(blocks(page, "sh")).splitlines():
        if not line.startswith("jq ") or shutil.which("jq"):
            assert shell(line, house.folder, PATH=path).returncode == 0, line
    assert "\nprompt: a corgi\n" in (house.inbox / "again.yaml").read_text()
    with Image.open(house.folder / "clean.png") as clean:
        assert not clean.info.keys() - {"icc_profile"}
    assert house.once()
    assert house.seeds("again") == [7]


def give_makefile(folder: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, folder)


@pytest.mark.parametrize(
    "program", [DIGESTS_HERE, pytest.param("picowatch", marks=pytest.mark.heavy)]
)
def test_make_demo_ends_with_where_everything_is(tmp_path: Path, program: str) -> None:
    """And a second time makes nothing twice."""
    give_makefile(tmp_path)
    give_environment(tmp_path, program)
    (tmp_path / ".venv/.installed").touch()
    demo = shell("make demo", tmp_path)
    assert demo.returncode == 0, demo.stderr
    shown = dict(re.findall(r"^(\w+) +(/\S+)", demo.stdout, re.MULTILINE))
    places = "pictures newest gallery log recipes settings commands"
    assert list(shown) == places.split()
    assert all(Path(path).exists() for path in shown.values())
    pictures = sorted((tmp_path / "outbox").glob("*/*.png"))
    assert len(pictures) == 9
    assert shell("make demo", tmp_path).returncode == 0
    assert sorted((tmp_path / "outbox").glob("*/*.png")) == pictures


def test_a_python_that_will_not_do_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """Too old, or Debian's without venv."""
    give_makefile(tmp_path)
    for lacking, words in (
        ("version_info", "needs Python 3.11 or newer"),
        ("ensurepip", "sudo apt install python3-venv"),
    ):
        give_commands(tmp_path, python=f'case "$2" in *{lacking}*) exit 1;; esac')
        told = shell(f"make demo PYTHON={tmp_path}/python", tmp_path)
        assert told.returncode != 0 and words in told.stdout
        assert not (tmp_path / ".venv").exists()


def test_the_pages_name_every_key_of_status_and_models(tmp_path: Path) -> None:
    """Scripts rely on them."""
    table = (PROJECT / "docs/scripts.md").read_text().split("| keys | what they say |")[1]
    rows = [row.split(" | ") for row in table.split("\n\n")[0].splitlines()[2:]]
    of_engine = {field.name for field in fields(EngineStatus)}
    assert {*re.findall("`(.*?)`", rows.pop(-3)[1])} == of_engine
    (of_folder,) = (says for keys, says in rows if keys == "| `folders`")
    assert {*re.findall("`(.*?)`", of_folder)} == {field.name for field in fields(FolderStatus)}
    named = [*re.findall("`(.*?)`", " ".join(keys for keys, _ in rows)), "engines"]
    assert sorted(named) == sorted(["running", *(field.name for field in fields(Status))])
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    shown = json.loads(picowatch_here(tmp_path, "models", "--json").stdout)
    page = (PROJECT / "docs/commands.md").read_text().split("The keys of `--json` are ")[1]
    assert {*re.findall("`(.*?)`", page.split("`. ")[0] + "`")} == shown[0].keys()


def test_the_shown_script_lets_a_language_model_write_the_caption(tmp_path: Path) -> None:
    """It asks a local server, here one that repeats the words, and writes a recipe."""

    class Repeats(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = asked["messages"][-1]["content"].rpartition(": ")[2]
            answer = {"choices": [{"message": {"content": f" {said}, in detail\n"}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Keep standard error clean."""

    (script,) = (
        block for block in blocks(PROJECT / "docs/scripts.md", "python") if "urlopen" in block
    )
    (tmp_path / "inbox").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Repeats) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = script.replace("http://localhost:8080/", f"http://127.0.0.1:{server.server_port}/")
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=240)
        server.shutdown()
    written = json.loads((tmp_path / "inbox/lighthouse.json").read_text())
    assert written["prompt"] == "a lighthouse at dusk, in detail"


EXAMPLES = PROJECT / "examples"
RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".txt"))
MOST_BYTES, MOST_BYTES_OF_ALL = 150_000, 2_500_000


@pytest.mark.parametrize("strip", strips(), ids=lambda strip: strip.recipe.stem)
def test_each_strip_is_made_from_its_recipe_as_it_stands(strip: Strip) -> None:
    """`make strips` makes it; its labels are as many as its pictures."""
    assert strip.current, "run `make strips`"
    beside = NamedPictures(STRIPS, IMAGES, 2_000_000, 250_000_000, strip.recipe.name)
    content = strip.recipe.read_bytes()
    installed = replace(INVENTORY, embeddings=("mascot",))
    recipes = read_recipes(strip.recipe.name, content, installed, pictures=beside)
    images = sum(len(recipe.image_requests(lambda kind, name: "0" * 64, 0)) for recipe in recipes)
    assert strip.is_sheet or not strip.labels or len(strip.labels) == images


def test_pictures_of_the_docs_are_small_and_shown() -> None:
    """A page of them opens at once, a clone stays a clone, and each is on some page."""
    sizes = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    assert sum(sizes.values()) < MOST_BYTES_OF_ALL
    text = "".join(page.read_text() for page in [PROJECT / "README.md", *pages()])
    assert sizes.keys() - set(re.findall(r"images/([\w.-]+)\)", text)) == set()


def test_there_are_thirteen_without_a_mistake(house: House) -> None:
    """Each says in its first line what it shows; with nothing installed all are rendered."""
    assert len(RECIPES) == 13
    for recipe in RECIPES:
        first = recipe.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), recipe.name
    shutil.copytree(EXAMPLES, house.inbox, dirs_exist_ok=True)
    recipes = [f"inbox/{recipe.name}" for recipe in RECIPES]
    checked = picowatch_here(house.folder, "check", *recipes)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line.split(":")[0] for line in checked.stdout.splitlines() if line[0] != " "] == recipes
    assert house.once()
    assert not [*house.outbox.rglob("*.error.txt"), *house.outbox.rglob("*.warning.txt")]
    for recipe in RECIPES:
        assert house.pictures(recipe.stem), recipe.name
    sheets = [picture.split("/")[0] for picture in house.pictures() if "-sheet" in picture]
    assert [name[:2] for name in sheets] == ["02", "03", "04", "05", "08", "13"]
