"""`picowatch schema`, and what `init` lays beside its examples for editors."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from picowatch.inbox.names import is_recipe_path
from picowatch.settings import DAILY, Settings
from tests.catalog.files import checkpoint_shapes, write_model
from tests.commands.picowatch import PROJECT, picowatch


@pytest.mark.parametrize("kind", ["recipe", "defaults", "settings"])
def test_a_schema_is_printed_or_written(tmp_path: Path, kind: str) -> None:
    """The same text; the recipe's without saying so."""
    printed = picowatch(tmp_path, "schema", *([] if kind == "recipe" else [kind]))
    assert printed.returncode == 0
    Draft7Validator.check_schema(json.loads(printed.stdout))
    written = picowatch(tmp_path, "schema", kind, "--output", "below/it.json")
    assert (written.returncode, written.stdout) == (0, "created below/it.json\n")
    assert (tmp_path / "below/it.json").read_text() == printed.stdout


def test_a_schema_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """With the file and the reason."""
    (tmp_path / "folder").mkdir()
    refused = picowatch(tmp_path, "schema", "--output", "folder")
    assert refused.returncode == 1
    said = "Cannot write folder: Is a directory. Give another file: --output FILE."
    assert refused.stderr == f"picowatch: {said}\n"


def test_installed_names_are_completed(tmp_path: Path) -> None:
    """With the flag alone."""
    write_model(tmp_path / "models/checkpoints/dreamshaper_8.safetensors", checkpoint_shapes())
    schemas = [
        json.loads(picowatch(tmp_path, "schema", *flags).stdout) for flags in ((), ("--installed",))
    ]
    plain, installed = (schema["definitions"]["checkpoint"]["examples"] for schema in schemas)
    assert plain == ["demo"]
    assert installed == ["dreamshaper_8", "demo"]


def test_every_file_of_init_names_a_schema_that_finds_nothing_wrong(tmp_path: Path) -> None:
    """By a path that an editor resolves from the file, and in a folder the inbox looks past."""
    picowatch(tmp_path, "init")
    files = [*tmp_path.glob("*.yaml"), *(tmp_path / "inbox").rglob("*.yaml")]
    assert len(files) == 4
    for file in files:
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
        assert named, file
        schema = file.parent / named[1]
        validator = Draft7Validator(json.loads(schema.read_text()))
        for document in yaml.safe_load_all(file.read_text()):
            assert list(validator.iter_errors(document)) == [], file
        assert not is_recipe_path(schema.resolve().relative_to(tmp_path / "inbox").as_posix())


def test_init_renews_the_schemas(tmp_path: Path) -> None:
    """They are a version's; everything else stays what the user made of it."""
    picowatch(tmp_path, "init")
    schema, recipe = tmp_path / "inbox/.schema/recipe.json", tmp_path / "inbox/corgi.yaml"
    current = schema.read_text()
    schema.write_text("{}")
    recipe.write_text("prompt: mine\n")
    again = picowatch(tmp_path, "init").stdout
    assert "created inbox/.schema/recipe.json" in again
    assert schema.read_text() == current
    assert recipe.read_text() == "prompt: mine\n"
    assert ".schema" not in picowatch(tmp_path, "init").stdout


def test_init_brings_no_example_back(tmp_path: Path) -> None:
    """It renews the schemas after an upgrade; a daemon would render what the user deleted."""
    picowatch(tmp_path, "init")
    (tmp_path / "inbox/corgi.yaml").unlink()
    (tmp_path / "inbox/.schema/defaults.json").unlink()
    again = picowatch(tmp_path, "init").stdout
    assert "created inbox/.schema/defaults.json" in again
    assert "corgi" not in again
    assert not (tmp_path / "inbox/corgi.yaml").exists()


def test_the_settings_schema_knows_every_setting(tmp_path: Path) -> None:
    """The lines that `init` comments out are good ones; others are not."""
    picowatch(tmp_path, "init")
    lines = (tmp_path / "picowatch.yaml").read_text().splitlines()
    names = tuple(f"# {name}:" for name in Settings.model_fields)
    settings = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith(names)))
    assert set(settings) == set(DAILY)
    validator = Draft7Validator(json.loads((tmp_path / "inbox/.schema/settings.json").read_text()))
    assert list(validator.iter_errors(settings)) == []
    for wrong in ({"settle": 1}, {"settle_seconds": 0}, {"watch": "yes"}, {"hooks": {"done": "x"}}):
        assert list(validator.iter_errors(wrong)) != [], wrong


def test_the_shown_commands_do_what_is_shown(tmp_path: Path) -> None:
    """Those of docs/editors.md, in a folder that `init` made."""
    picowatch(tmp_path, "init")
    page = (PROJECT / "docs/editors.md").read_text()
    lines = re.findall(r"^picowatch (schema.*?) +#", page, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        assert picowatch(tmp_path, *line.split()).returncode == 0, line
    schema = json.loads((tmp_path / "inbox/.schema/recipe.json").read_text())
    assert schema["definitions"]["checkpoint"]["examples"] == ["demo"]
