"""Output names: they stay in the outbox, fit every file system, and are never another recipe's."""

import os
import subprocess
import sys
import unicodedata
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from picowatch.inbox.names import is_recipe_path
from picowatch.outbox import names as names_module
from picowatch.outbox.names import OutboxNames
from tests.house import House, wait_for
from tests.security.attacks import STEERING, steers

BAD = "stesp: 1\n"
DEVICES = ["CON", "prn", "Aux", "nul", "COM1", "lpt9", "COM¹", "CONIN$", "conout$"]


def is_portable(name: str) -> bool:
    """Whether Windows, macOS, Linux and SMB can open a name, and exFAT and NTFS store it."""
    device = name.partition(".")[0].rstrip(" ").casefold()
    return (
        len(name.encode()) <= 255
        and not name.endswith((".", " "))
        and device not in {device.casefold() for device in DEVICES}
        and name not in ("", ".", "..")
        and not any(sign in '\\/:*?"<>|' or ord(sign) < 32 for sign in name)
    )


FOLDERS = {
    "CON.yaml": "CON_", "nul .yaml": "nul _", "com1.tar.yaml": "com1_.tar",
    "pets/LPT¹.txt": "pets/LPT¹_", "a..yaml": "a._", "LATEST.PNG.yaml": "LATEST.PNG_",
    "picowatch.log.1.txt": "picowatch.log.1_", "a\x1b[31m\nb.txt": "a-[31m-b",
    "a:b/x<y>|z*.txt": "a-b/x-y-z-", '"a\\b".yaml': "-a-b-", "a/0001-1.png.yaml": "a/0001-1.png_",
    "a/a.YML.txt": "a/a.YML_", "👩‍👧.txt": "👩‍👧", "fußball İı.txt": "fußball İı",
}  # fmt: skip


def test_a_folder_has_a_name_that_every_system_can_open(tmp_path: Path) -> None:
    """`_` is added to Windows' devices and final dots and spaces; control characters become `-`."""
    names = OutboxNames(tmp_path)
    assert {recipe: names.folder(recipe) for recipe in FOLDERS} == FOLDERS


@pytest.mark.parametrize(
    "folder",
    [
        *("latest.png", "b.yaml.error.txt", "b.yaml.warning.txt", "con/nul/aux.", "a\nb/\x1b[31m"),
        pytest.param("x" * 245 + ".error.txt", id="255 bytes that are an error file's"),
        pytest.param("/".join(["y" * 60] * 40), id="2,400 bytes"),
    ],
)
def test_no_name_of_a_folder_stops_the_other_recipes(house: House, folder: str) -> None:
    """Whether picowatch's own files are there already or come later: pictures and errors fit."""
    house.save("b.yaml", BAD)
    for _ in range(2):
        for recipe in ("bad.yaml", "bad.txt"):
            house.save(f"{folder}/{recipe}", f"{BAD}---\n")
        house.save(f"{folder}/good.txt", "a star\n")
        house.save("c.txt", "a corgi\n")
        assert not house.once()
    assert sorted(house.prompts()) == ["a corgi", "a corgi", "a star", "a star"]
    assert (house.outbox / "latest.png").is_file()
    assert len(list(house.outbox.rglob("*.error.txt"))) == 3
    assert all(path.is_file() for path in house.outbox.rglob("*.error.txt"))


def test_a_thousand_nested_folders_stop_nothing(house: House) -> None:
    """Nobody needs so many; 64 are searched."""
    house.save("/".join(["a"] * 64) + "/in.txt", "a star\n")
    house.save("/".join(["b"] * 65) + "/out.txt", "too deep\n")
    folder = os.open(house.inbox, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("c", dir_fd=folder)
        inner = os.open("c", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    house.save("z.txt", "a corgi\n")
    try:
        with house.running():
            wait_for(lambda: len(house.pictures()) == 2)
    finally:  # pytest could not: shutil.rmtree of Python 3.11 calls itself for each folder
        subprocess.run(["rm", "-rf", house.inbox / "c"], check=True)
    assert sorted(house.started()) == ["a corgi", "a star"]
    assert "folders are searched 64 levels deep" in house.log()
    if sys.version_info < (3, 12):  # os.walk, with which watchdog begins, calls itself
        assert "no file events" in house.log()


PARTS = st.text(
    st.sampled_from('aA.çc\u0327 İıſßKk_-:?*<|"\\\n\x1b\u202e\x7f~com1nulaux\0'),
    min_size=1,
    max_size=8,
) | st.sampled_from(
    [*DEVICES, "latest.png", "index.html", ".picowatch", "a.yaml.error.txt", "x" * 255, "é" * 127]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(
    folders=st.lists(PARTS, max_size=3),
    name=PARTS,
    ending=st.sampled_from([".yaml", ".YML", ".txt"]),
)
def test_every_name_in_the_outbox_is_one_that_every_system_can_open(
    tmp_path: Path, folders: list[str], name: str, ending: str
) -> None:
    """So for any recipe that the inbox may have; nothing leaves the outbox."""
    parts = [*folders, (name + ending)[-255:]]
    assume(not any("/" in part or "\0" in part or part in (".", "..") for part in parts))
    assume(all(len(part.encode()) <= 255 for part in parts))
    recipe = "/".join(parts)
    assume(is_recipe_path(recipe))
    names = OutboxNames(tmp_path)
    for place in (
        names.folder(recipe),
        names.error_file(recipe),
        names.warning_file(recipe),
        names.archived(recipe, 1, recipe),
        names.archived(recipe, 2, recipe),
    ):
        found = PurePosixPath(place).parts
        assert all(is_portable(part) for part in found), place
        assert not PurePosixPath(place).is_absolute()
        assert not steers(place, lines=False) & set("".join(STEERING.values()))
        assert found[0].casefold() not in names_module.OWN_NAMES


def test_a_recipe_called_as_a_picture_to_be_stops_neither(house: House) -> None:
    """Its folder never has the name of a future file, whichever is made first."""
    recipe = "prompt: one\nseed: 1\n"
    with house.held("a.yaml", recipe, batch_size=1, when_done="archive") as hold:
        house.save("a/0001-1.png.yaml", "prompt: two\nseed: 2\n")
        house.save("a/a.yaml.txt", "three --seed 3\n")
        wait_for(lambda: house.status()["images"]["queued"] == 2)
        hold.release()
        wait_for(lambda: not list(house.inbox.rglob("*.*")), "the archive")
    assert house.prompts() == ["one", "two", "three"]
    assert (house.outbox / "a/a.yaml").is_file()
    assert "; waiting" not in house.log()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@example(recipes=[("latest.png", "a"), ("latest.png_", "a")])
@example(recipes=[("con", "a"), ("con_", "a")])
@example(recipes=[("a", "aux"), ("a", "aux_")])
@example(recipes=[("a", "b\nc"), ("a", "b-c")])
@given(recipes=st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=2, unique=True))
def test_recipes_never_share_an_error_file(tmp_path: Path, recipes: list[tuple[str, str]]) -> None:
    """Not even if their names had to be changed."""
    recipe, other = (f"{folder}/{name}"[:250] + ".yaml" for folder, name in recipes)
    assume(recipe != other and is_recipe_path(recipe) and is_recipe_path(other))
    assume("\0" not in recipe + other)
    names = OutboxNames(tmp_path)
    assert names.error_file(recipe) != names.error_file(other)
    assert names.warning_file(recipe) != names.warning_file(other)
    assert names.error_file(recipe) != names.warning_file(other)


TWINS = [("corgi", "Corgi"), ("é", "e\u0301"), ("ß", "SS"), ("K", "\u212a"), ("İ", "i\u0307")]


def test_pictures_of_recipes_that_some_systems_take_for_one_never_collide(house: House) -> None:
    """The outbox may be copied to a disk that ignores case and Unicode form."""
    for name in chain(*TWINS):
        with suppress(OSError):  # some file systems take fewer names
            house.save(f"{name}.txt", "a corgi --seed 1\n")
    assert house.once()
    decomposed, pictures = partial(unicodedata.normalize, "NFD"), house.pictures()
    names = {decomposed(decomposed(picture).casefold()) for picture in pictures}
    assert len(names) == len(pictures) >= len(TWINS)


def test_the_fields_of_the_setting_file_name_cannot_make_a_path(house: House) -> None:
    """The template is the owner's, but its values may be a stranger's."""
    for number, template in enumerate(("{recipe}{number}", "{number}."), 1):
        for name in ("COM", "a\\b:c\x1b"):
            house.save(f"{name}.txt", f"a corgi --seed {number}\n")
        assert house.once(file_name=template)
        assert len(house.pictures()) == 2 * number
    for picture in house.pictures():
        assert is_portable(PurePosixPath(picture).name.removesuffix(".png"))
        assert not set(PurePosixPath(picture).name) & set('\\:*?"<>|\x1b')


def test_recipes_of_long_names_are_archived_beside_each_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one of a name gets a number, and a shorter name: this folder takes 143 bytes."""
    monkeypatch.setattr(os, "pathconf", lambda path, what: 143)
    saves = [f"prompt: {prompt}\n" for prompt in ("a car", "a corgi", "a star")]
    for save in saves:
        house.save(f"{'x' * 250}.yaml", save)
        assert house.once(when_done="archive")
    archived = [path for path in house.outbox.rglob("*.yaml") if path.is_file()]
    assert sorted(path.read_text() for path in archived) == saves
    assert max(len(path.name) for path in archived) <= 143
