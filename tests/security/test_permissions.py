"""Files in the outbox get the owner, the group and the mode that umask and folder say."""

import os
import stat
from pathlib import Path

import pytest

from tests.house import House
from tests.security.attacks import plain_picture

GROUP = 54321
RECIPES = {
    "pets/a.yaml": "prompt: a corgi\nseed: 1\nsteps: 2\nsize: 64x64\ncount: 2\ngrid: true\n",
    "cats/a.yaml": "prompt: a cat\nseed: 1\nsteps: 2\n",
    "b.yaml": "prompt: a star\nseed: 1\nsteps: 2\nimage: p.png\n",
    "bad.yaml": "stesp: 1\n",
    "warned.txt": "a star\nSteps: 2, Sampler: Euler a, Size: 64x64, Hypernet: x\n",
}


def found_with(umask: int, house: House) -> dict[str, Path]:
    """Render some recipes; return what is in the outbox then."""
    plain_picture(house.inbox / "p.png")
    for name, text in RECIPES.items():
        house.save(name, text)
    before = os.umask(umask)
    try:
        assert not house.once()
    finally:
        os.umask(before)
    return {path.relative_to(house.outbox).as_posix(): path for path in house.outbox.rglob("*")}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_what_umask_leaves_of_0666_and_folders_of_0777(house: House, umask: int) -> None:
    """Temporary files are created like others, so that no picture ends up private."""
    found = found_with(umask, house)
    state = (f".picowatch/{name}" for name in ("status.json", "hashes.sqlite", "ledger.sqlite"))
    assert found.keys() >= {
        *("pets/a/0001-1.png", "pets/a/0003-sheet.png", "b/0001-1.png", "latest.png"),
        *("bad.yaml.error.txt", "warned.txt.warning.txt", "picowatch.log", *state),
    }
    for name, path in found.items():
        whole = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == whole & ~umask, name


def test_a_folder_with_the_setgid_bit_hands_its_group_on(house: House) -> None:
    """The usual way to share an outbox. If the recipes' folder has it, too, results get its."""
    for folder, group in {house.outbox: GROUP, house.inbox / "pets": GROUP + 1}.items():
        folder.mkdir(parents=True)
        try:
            os.chown(folder, -1, group)
        except PermissionError:
            pytest.skip("only root may give a folder to a group that it is not in")
        folder.chmod(0o2775)
    found = found_with(0o002, house)
    assert {"pets/a/0001-1.png", "cats/a/0001-1.png"} <= found.keys()
    for name, path in found.items():
        assert path.stat().st_gid == GROUP + (name.split("/")[0] == "pets"), name
        assert path.stat().st_mode & stat.S_ISGID or not path.is_dir(), name
