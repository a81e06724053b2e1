"""The docs show what the code does."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from docs.tables import DOCS, pages, written
from picowatch import errors
from picowatch.cli import parsers
from picowatch.outbox.listing import OWN
from picowatch.recipe.fields import FIRST_NAME_OF, PART_FIELDS, ROWS
from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory, Upscaler, rules_of
from picowatch.recipe.messages.problems import RecipeInvalid, error_text
from picowatch.recipe.parts import Control, Find, Hires, ResizeTo, Upscale
from picowatch.recipe.reading import DefaultsFile, check_template, read_recipes
from picowatch.settings.settings import Settings
from picowatch.settings.values import LocalSettings, RaySettings
from tests.commands.picowatch import DIGESTS_HERE, ran
from tests.recipe.reading import PicturesWith

PROJECT = Path(__file__).parents[1]
# Models that the pages name: the sizes of their pictures, or their families and variants.
SIZES = {
    "dreamshaper_8": 512, "v1-5-pruned-emaonly": 512, "sd_xl_turbo_1.0": 512,
    "v2-1_768-ema-pruned": 768, "sd_xl_base_1.0": 1024, "my-merge-vpred": 1024,
}  # fmt: skip
FLOWS = {
    "FLUX.1-dev": ("flux", "dev"),
    "FLUX.1-Fill-dev": ("flux", "Fill"),
    "FLUX.2-klein-4B": ("flux2", "klein 4B"),
    "stable-diffusion-3.5-medium": ("sd3", "3.5 Medium"),
    "Anima": ("anima", ""),
    "Qwen-Image": ("qwen_image",),
    "Chroma1-HD": ("chroma",),
    "Lumina-Image-2.0": ("lumina2",),
    "Z-Image-Turbo": ("z_image", "Turbo"),
    "Krea-2-Turbo": ("krea2", "Turbo"),
    "ERNIE-Image-Turbo": ("ernie_image", "Turbo"),
}
CONTROLNETS = ("demo-sketch", "control_v11p_sd15_canny", "control_v11f1p_sd15_depth")
INVENTORY = Inventory(
    demo=Checkpoint("demo", 128),
    checkpoints=(
        *(Checkpoint(name, size) for name, size in SIZES.items()),
        *(Checkpoint(name, 1024, rules=rules_of(*family)) for name, family in FLOWS.items()),
    ),
    upscalers=(Upscaler("4x-UltraSharp", 4),),
    cutouts=("isnet-general-use",),
    segmentations=("grounding-dino-tiny",),
    loras=("pixel-art", "watercolour", "sdxl_lightning_4step_lora", "lcm-lora-sdv1-5"),
    controlnets=tuple(ControlNet(name, "") for name in CONTROLNETS),
    depths=("Depth-Anything-V2-Small-hf",),
    default_checkpoint="demo",
)
PAGES = [PROJECT / "README.md", *pages()]
CONTRIBUTING, RESULTS = PROJECT / "CONTRIBUTING.md", PROJECT / "benchmarks" / "RESULTS.md"
README = (PROJECT / "README.md").read_text()
COMMANDS = parsers()[1]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language ("" for none)."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for found, text in fenced if found == language]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    """`make docs` writes them."""
    assert written(page.read_text()) == page.read_text()


def test_the_table_of_the_list_is_whole() -> None:
    section = (DOCS / "metadata.md").read_text().partition("\n## images.jsonl\n")[2]
    table = section.partition("\nA line also has")[0]
    assert {*re.findall(r"^\| `(\w+)`", table, re.MULTILINE)} == OWN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shown_command_exists(page: Path) -> None:
    for line in "\n".join(blocks(page, "sh")).splitlines():
        for call in re.findall(r"(?:^|\| |\.venv/bin/)picowatch ([a-z][^#|>]*)", line):
            name, *arguments = shlex.split(call)
            COMMANDS[name].parse_args(arguments)


FOLDERS = ("docs", "picowatch", "examples", "contrib", "benchmarks", "training")
ENDINGS = {".md", ".py", ".txt", ".toml", ".yaml", ".service", ".sh", ".js", ".html"}
TEXTS = [*PROJECT.glob("*"), *(path for name in FOLDERS for path in (PROJECT / name).rglob("*"))]
PACKAGE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = {*PACKAGE["optional-dependencies"]}
NAME = PACKAGE["name"]  # `picowatch` in the package index is somebody else's program
CONSTRAINTS = (PROJECT / "constraints.txt").read_text()
WITH_A_VALUE = ("-c", "--constraint", "-r", "--requirement", "--index-url")


def test_every_shown_pip_install_works() -> None:
    """It works from a checkout, from a wheel, or by the name of the installed package."""
    composed = ("errors.py", "release.sh")  # have own tests
    for path in TEXTS:
        if path.suffix in ENDINGS and path.name not in composed:
            for line in re.findall(r"pip install ([^\n`…]*)", path.read_text()):
                words = shlex.split(line, comments=True)
                for before, word in zip(["", *words], words, strict=False):
                    if before not in WITH_A_VALUE and not word.startswith("-"):
                        check_installed(word, path)


def check_installed(word: str, path: Path) -> None:
    found = re.fullmatch(r"([\w*./~-]+?)(?:\[([\w,]+)\])?(?:==[\w.]+)?", word)
    assert found, (word, path)
    target, extras = found[1], {*(found[2] or "").split(",")} - {""}
    assert extras <= EXTRAS, (word, path)
    if target == NAME:  # with an extra it is installed; before the upload no index has it
        assert extras or path.name == "release.md"
    elif target.endswith(".whl"):
        assert Path(target).name == f"{NAME.replace('-', '_')}-*.whl"
    else:
        assert target == "." or f"\n{word}" in CONSTRAINTS, (word, path)


def test_a_remedy_installs_an_extra_where_picowatch_runs() -> None:
    assert errors.install_command("metrics") == f"{sys.executable} -m pip install '{NAME}[metrics]'"


def test_the_shown_pipes_into_make_print_pictures(tmp_path: Path) -> None:
    """The examples in docs/scripts.md work without a daemon."""
    (tmp_path / "inbox").mkdir()
    text = "\n".join(blocks(PROJECT / "docs/scripts.md", "sh"))
    lines = [line for line in text.splitlines() if line.startswith("echo ")]
    for line, folder in zip(lines, ("stdin", "ads/may"), strict=True):
        call = ["sh", "-c", line.replace("picowatch", f"{sys.executable} -m {DIGESTS_HERE}")]
        shown = ran(tmp_path, *call)
        assert (shown.returncode, shown.stderr) == (0, "")
        (picture,) = shown.stdout.splitlines()
        assert re.fullmatch(rf"outbox/{folder}/0001-\d+\.png", picture)
        assert (tmp_path / picture).exists()
    assert [path.name for path in (tmp_path / "inbox").rglob("*.*")] == ["stdin.txt"]


ALL_EXIST = PicturesWith(lambda _: {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shown_recipe_is_valid(page: Path) -> None:
    """People copy them."""
    for text in blocks(page, "yaml"):
        name = text.partition("\n")[0].removeprefix("# inbox/")
        if name.endswith("/_pictures.yaml"):
            check_template(DefaultsFile(name, text.encode()), INVENTORY, [], 1000)
        else:
            assert read_recipes("a.yaml", text.encode(), INVENTORY, pictures=ALL_EXIST)


def test_the_shown_prompt_lines_are_valid() -> None:
    """Those are the prompts in docs/formats.md, and the pasted parameters in docs/moving.md."""
    counts = [
        [recipe.count for recipe in read_recipes("a.txt", text.encode(), INVENTORY)]
        for page in ("formats", "moving")
        for text in blocks(PROJECT / f"docs/{page}.md", "")
    ]
    assert counts == [[1, 1], [1, 4, 1], [1, 1]]


def test_the_shown_error_is_what_a_user_gets() -> None:
    (shown,) = (text for text in blocks(PROJECT / "README.md", "") if "stesp" in text)
    recipe = b"prompt: a corgi\nseed: 1\nstesp: 300\n"
    with pytest.raises(RecipeInvalid) as refused:
        read_recipes("corgi.yaml", recipe, INVENTORY)
    assert error_text(refused.value).strip() == shown.strip()


@pytest.mark.parametrize("page", [*PAGES, CONTRIBUTING, RESULTS], ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    """Relative links lead to existing files and headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not heading or heading in headings(found), target


def headings(page: Path) -> set[str]:
    """Return a page's headings as links name them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


SETTINGS = {name for kind in (Settings, LocalSettings, RaySettings) for name in kind.model_fields}
PARTS = {part.name for kind in (Control, Find, Hires, ResizeTo, Upscale) for part in fields(kind)}
# Of shapes that are explained, not fields; and what recipes and settings have besides.
OTHER_KEYS = {"name", "field", "key", "size", "from", "local", "ray"}


def inline_code(page: Path) -> list[str]:
    """Return the inline code in a page's text; headings are messages that it explains."""
    text = re.sub(r"^```.*?^```|^#.*?$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def test_pages_name_every_field_setting_and_command() -> None:
    """Each field has a heading where it is explained."""
    recipes = (DOCS / "recipes.md").read_text()
    explained = re.findall(r"^### (.+)$", recipes, re.MULTILINE)
    missing = {*ROWS} - {*", ".join(explained).split(", ")}
    assert not missing, f"Add '### {', '.join(missing)}' and a paragraph to docs/recipes.md."
    pages = recipes + (DOCS / "pictures.md").read_text()
    words = {*re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", pages)))}
    missing = {name for name in PART_FIELDS if name.rpartition(".")[2] not in words}
    assert not missing, (
        f"Add {', '.join(missing)} to the table of its field in docs/recipes.md or pictures.md."
    )
    listed = (DOCS / "settings.md").read_text().split()
    assert {f"`{name}`" for name in Settings.model_fields} <= {*listed}
    assert {f"`picowatch {name}" for name in COMMANDS} <= {
        f"`picowatch {code.split()[1]}" for page in PAGES for code in commands_in(page)
    }


def commands_in(page: Path) -> list[str]:
    return [code for code in inline_code(page) if re.match(r"picowatch [a-z]", code)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_what_exists(page: Path) -> None:
    """This checks fields and settings with values, and commands with flags."""
    keys = {key for code in inline_code(page) for key in re.findall(r"^\{?([a-z_]+): ", code)}
    assert keys <= {*FIRST_NAME_OF, *PARTS, *SETTINGS, *OTHER_KEYS}
    for code in commands_in(page):
        _, name, *words = code.split()
        assert name in COMMANDS, code
        flags = {flag for action in COMMANDS[name]._actions for flag in action.option_strings}
        assert {word for word in words if word.startswith("--")} <= flags, code


def test_every_page_is_found_from_the_readme() -> None:
    assert {page.name for page in pages()} <= set(re.findall(r"\(docs/([\w-]+\.md)", README))


def test_what_is_said_of_security_is_tested() -> None:
    """Each claim of the table names a test in its second column, and these exist."""
    sources = [path.read_text() for path in Path(__file__).parent.rglob("test_*.py")]
    tests = {
        name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    }
    page = (DOCS / "security.md").read_text()
    (table,) = re.findall(r"^\| claim \|.*?\n\n", page, re.DOTALL | re.MULTILINE)
    rows = table.strip().splitlines()[2:]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"\| `test_\w+`", row)] == []
    assert {*re.findall(r"`(test_\w+)`", page)} - tests == set()


def test_developers_pages_name_files_that_exist() -> None:
    """By their paths, or the ends of these."""
    files = [str(file) for file in (*TEXTS, *(PROJECT / "tests").rglob("*.py"))]
    for page in (CONTRIBUTING, DOCS / "design.md"):
        for named in re.findall(r"`([\w/]+\.(?:py|sql))`", page.read_text()):
            assert any(file.endswith(f"/{named}") for file in files), named


def test_make_alone_lists_the_targets() -> None:
    make = ["make", "-s"]
    listed = subprocess.run(make, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "run", "test", "lint", "format", "types", "docs", "strips", "train"):
        assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE), target


# -- messages that docs/troubleshooting.md explains

TROUBLE = (PROJECT / "docs/troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### (?:`)?(.+?)(?:`)?$", TROUBLE, re.MULTILINE)
# What stands for a value: in the page, in f-strings, and in the texts of the log.
VALUE = "…"
LOG_VALUE = re.compile(r"%[sd]")


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_that_is_explained_still_exists(message: str) -> None:
    """To the letter, with … for a value."""
    assert any(message in text for text in texts_of_the_code())


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every text in picowatch's source, with … for each value."""
    sources = sorted((PROJECT / "picowatch").rglob("*.py"))
    return tuple(text for path in sources for text in _texts(ast.parse(path.read_text())))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (
                str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values
            )
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield LOG_VALUE.sub(VALUE, node.value)
