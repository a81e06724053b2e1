"""`picowatch init` and `schema`, and which settings commands read."""

import json
import re
from pathlib import Path

import yaml
from jsonschema import Draft7Validator
from PIL import Image

from picowatch.inbox.names import is_recipe_path
from picowatch.settings.settings import DAILY, Settings
from tests.catalog.files import checkpoint_shapes, write_model
from tests.catalog.test_folders import DISTILLED, KLEIN, WIDE, write_folder
from tests.commands.picowatch import PROJECT, picowatch_here
from tests.house import House


def schema_without_complaints(file: Path) -> Path:
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
    assert named, file
    validator = Draft7Validator(json.loads((file.parent / named[1]).read_text()))
    for document in yaml.safe_load_all(file.read_text()):
        assert list(validator.iter_errors(document)) == [], file
    return file.parent / named[1]


def test_init_makes_folders_settings_and_examples_that_are_valid(tmp_path: Path) -> None:
    """Each file names a schema that finds nothing wrong, and that the inbox looks past."""
    folder = tmp_path / "a new"
    made = picowatch_here(tmp_path, "init", folder.name)
    assert made.returncode == 0
    assert made.stdout.endswith("\nNext: cd 'a new' && picowatch run\n")
    assert picowatch_here(folder, "init").stdout.endswith("\nNext: picowatch run\n")
    assert (folder / "models/checkpoints").is_dir()
    recipes = sorted(path for path in (folder / "inbox").iterdir() if path.is_file())
    assert len(recipes) >= 3
    assert picowatch_here(folder, "check", *recipes).returncode == 0
    files = [*folder.glob("*.yaml"), *(folder / "inbox").rglob("*.yaml")]
    assert len(files) == 4
    for file in files:
        schema = schema_without_complaints(file)
        assert not is_recipe_path(schema.resolve().relative_to(folder / "inbox").as_posix())
    lines = (folder / "picowatch.yaml").read_text().splitlines()
    names = tuple(f"# {name}:" for name in Settings.model_fields)
    settings = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith(names)))
    assert set(settings) == set(DAILY), "a commented line for each"
    validator = Draft7Validator(json.loads((folder / "inbox/.schema/settings.json").read_text()))
    assert list(validator.iter_errors(settings)) == []
    for wrong in ({"settle": 1}, {"settle_seconds": 0}, {"watch": "yes"}, {"hooks": {"done": "x"}}):
        assert list(validator.iter_errors(wrong)) != [], wrong


def test_init_makes_no_inbox_in_an_inbox(tmp_path: Path) -> None:
    (tmp_path / "own/inbox").mkdir(parents=True)
    (tmp_path / "own/outbox/.picowatch").mkdir(parents=True)
    picowatch_here(tmp_path, "init")
    for where, name in (("inbox", "."), ("inbox/live", "."), (".", "inbox/x"), ("own", "inbox/x")):
        refused = picowatch_here(tmp_path / where, "init", name)
        assert refused.returncode == 1
        assert " is an inbox: recipes are saved there. Name a folder outside" in refused.stderr
    assert not list(tmp_path.rglob("*/x")) and not list((tmp_path / "inbox").rglob("outbox"))


def test_init_again_renews_the_schemas_alone(tmp_path: Path) -> None:
    """They are a version's; the rest is what the user made of it. No example comes back."""
    (tmp_path / "picowatch.yaml").write_text("settle_seconds: 1\n")
    picowatch_here(tmp_path, "init")
    schema, recipe = tmp_path / "inbox/.schema/recipe.json", tmp_path / "inbox/corgi.yaml"
    current = schema.read_text()
    schema.write_text("{}")
    recipe.unlink()
    assert "created inbox/.schema/recipe.json" in picowatch_here(tmp_path, "init").stdout
    assert schema.read_text() == current
    assert not recipe.exists(), "a daemon would render what the user deleted"
    assert (tmp_path / "picowatch.yaml").read_text() == "settle_seconds: 1\n"
    assert ".schema" not in picowatch_here(tmp_path, "init").stdout


def test_init_makes_the_folders_that_settings_name(tmp_path: Path) -> None:
    """None beside them, and none among another program's models."""
    for name in ("own", "ComfyUI"):
        (tmp_path / name).mkdir()
    settings = tmp_path / "own/picowatch.yaml"
    settings.write_text("inbox: recipes\noutbox: pictures\nmodels: ../ComfyUI\n")
    made = picowatch_here(tmp_path, "init", "own", "--with", "photos").stdout
    assert "saved in own/recipes/, and their pictures appear in own/pictures/." in made
    assert (tmp_path / "own/recipes/web/_pictures.yaml").is_file()
    assert picowatch_here(tmp_path / "own", "run", "--once").returncode == 0
    assert {path.name for path in tmp_path.glob("*/*")} == {"picowatch.yaml", "pictures", "recipes"}
    settings.write_text("models: models\n")
    picowatch_here(tmp_path, "init", "own")
    assert (tmp_path / "own/models/checkpoints").is_dir()
    settings.write_text("inbx: recipes\n")
    assert "Did you mean 'inbox'?" in picowatch_here(tmp_path / "own", "init").stderr


def test_init_beside_a_running_picowatch_starts_no_second_one(house: House) -> None:
    """It says what becomes of what is saved now."""
    with house.running():
        made = picowatch_here(house.folder, "init", "--with", "photos").stdout
    assert made.endswith("\npicowatch is running here, and takes what you save.\n")


def test_init_says_where_it_cannot_make_folders(tmp_path: Path) -> None:
    """Flags that it cannot honour are refused: the folders would be elsewhere than they say."""
    (tmp_path / "file").touch()
    (tmp_path / "a\udcff").symlink_to("file")
    for folder in ("file/below", "x" * 300, "a\udcff/\x1b[2J"):
        result = picowatch_here(tmp_path, "init", folder)
        assert result.returncode == 1
        assert result.stderr.startswith("picowatch: Cannot create picowatch's folders in ")
        assert "picowatch init DIR" in result.stderr and "\x1b" not in result.stderr
    refused = picowatch_here(tmp_path, "init", "new", "--outbox", "pictures")
    assert refused.returncode == 2
    assert "init: It takes no '--outbox'." in refused.stderr
    assert not (tmp_path / "new").exists()


# -- schemas


def test_a_schema_is_printed_or_written(tmp_path: Path) -> None:
    """The same text; the recipe's without saying so. Mistakes in the settings do not matter."""
    (tmp_path / "picowatch.yaml").write_text("outbux: pictures\n")
    for kind in ("recipe", "defaults", "settings"):
        printed = picowatch_here(tmp_path, "schema", *([] if kind == "recipe" else [kind]))
        assert printed.returncode == 0
        Draft7Validator.check_schema(json.loads(printed.stdout))
        written = picowatch_here(tmp_path, "schema", kind, "--output", "below/it.json")
        assert (written.returncode, written.stdout) == (0, "created below/it.json\n")
        assert (tmp_path / "below/it.json").read_text() == printed.stdout
    refused = picowatch_here(tmp_path, "schema", "--output", "below")
    assert refused.returncode == 1
    assert refused.stderr.startswith("picowatch: Cannot write below: Is a directory. Give another")


def test_installed_names_are_completed(tmp_path: Path) -> None:
    """With the flag alone, as docs/editors.md shows it."""
    write_model(tmp_path / "models/checkpoints/dreamshaper_8.safetensors", checkpoint_shapes())
    plain = json.loads(picowatch_here(tmp_path, "schema").stdout)["definitions"]["checkpoint"]
    assert plain["examples"] == ["demo"]
    page = (PROJECT / "docs/editors.md").read_text()
    lines = re.findall(r"^picowatch (schema.*?) +#", page, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        assert picowatch_here(tmp_path, *line.split()).returncode == 0, line
    schema = json.loads((tmp_path / "inbox/.schema/recipe.json").read_text())
    assert schema["definitions"]["checkpoint"]["examples"] == ["dreamshaper_8", "demo"]


# -- which settings


def test_flags_beat_environment_beats_file(tmp_path: Path) -> None:
    """Folders of the file are relative to the file's own folder; `~` is known everywhere."""
    recipe = tmp_path / "etc/file/a.txt"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("one\ntwo\n")
    (tmp_path / "home/in").mkdir(parents=True)
    settings = tmp_path / "etc/my.yaml"
    settings.write_text("inbox: file\nmax_images_per_save: 1\n")
    words = ("check", recipe, "--settings", settings)
    assert picowatch_here(tmp_path, *words).returncode == 1
    assert picowatch_here(tmp_path, *words, PICOWATCH_MAX_IMAGES_PER_SAVE="2").returncode == 0
    own = {"HOME": str(tmp_path / "home"), "PICOWATCH_OUTBOX": "~/out", "PICOWATCH_INBOX": "no"}
    result = picowatch_here(tmp_path, "run", "--once", "--inbox=~/in", **own)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "home/out/picowatch.log").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc", "home"]
    refused = picowatch_here(tmp_path, "status", "--outbox=~nobody-of-this-name/out")
    assert refused.returncode == 2
    assert "this user has no home folder" in refused.stderr


def test_inbox_and_outbox_are_separate_folders(tmp_path: Path) -> None:
    """One in the other would be read, or written, as what it is not."""
    (tmp_path / "both/in").mkdir(parents=True)
    for inbox, outbox in (("both", "both"), ("both", "both/out"), ("both/in", "both")):
        folders = ("--inbox", inbox, "--outbox", outbox)
        result = picowatch_here(tmp_path, "run", "--once", *folders)
        assert (result.returncode, "separate folders" in result.stderr) == (2, True), folders


def test_folders_for_photos_work_as_they_are(tmp_path: Path) -> None:
    """Each template says what to drop; `check` accepts it, and so does the schema it names."""
    told = picowatch_here(tmp_path, "init", "--with", "photos").stdout
    assert told.count("For photos: it works now") == 2, "web copies and larger ones"
    assert "   hf download black-forest-labs/FLUX.2-klein-4B --local-dir" in told
    examples = [path for path in (tmp_path / "inbox").iterdir() if path.is_file()]
    assert not examples, "they would be drawn before any photo"
    templates = sorted((tmp_path / "inbox").glob("*/_pictures.yaml"))
    names = ["cutout", "edit", "faces", "product", "sky", "upscale", "variations", "web", "wide"]
    assert [path.parent.name for path in templates] == names
    checked = picowatch_here(tmp_path, "check", *templates)
    assert checked.returncode == 0, checked.stderr
    for template in templates:
        assert "\n# For photos: it " in template.read_text() and "\n# Drop " in template.read_text()
        schema_without_complaints(template)
    klein = KLEIN | DISTILLED
    write_folder(tmp_path / "models", "FLUX.2-klein-4B", klein, transformer={WIDE: 7680})
    edit = tmp_path / "inbox/edit/_pictures.yaml"
    Image.new("RGB", (96, 64)).save(edit.with_name("anna.png"))
    lines = edit.read_text().split("\n\n")[0].splitlines()[-2:]
    edit.write_text("\n".join(line.removeprefix("# ") for line in lines))
    (image,) = json.loads(picowatch_here(tmp_path, "check", "--json", edit).stdout)["images"]
    found = [image[name] for name in ("checkpoint", "references", "width", "height")]
    assert found == ["FLUX.2-klein-4B", ["edit/anna.png"], 96, 64], "as its comment says"
    template.write_text("prompt: mine\n")
    again = picowatch_here(tmp_path, "init", "--with", "photos").stdout
    assert f"kept {template.relative_to(tmp_path)}" in again
