"""Files in the outbox get the owner, the group and the mode that umask and folder say."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.commands.picowatch import DIGESTS, clean_environment, command
from tests.security.attacks import plain_picture

GROUP = 54321


def run_with(umask: int, folder: Path) -> None:
    """Render some recipes; the engine, which writes no file here, is that of the tests."""
    plain_picture(folder / "inbox/p.png")
    for name, text in {
        "pets/a.yaml": "prompt: a corgi\nseed: 1\nsteps: 2\nsize: 64x64\ncount: 2\ngrid: true\n",
        "b.yaml": "prompt: a star\nseed: 1\nsteps: 2\nimage: p.png\n",
        "bad.yaml": "stesp: 1\n",
        "warned.txt": "a star\nSteps: 2, Sampler: Euler a, Size: 64x64, Hypernet: x\n",
    }.items():
        (folder / "inbox" / name).parent.mkdir(exist_ok=True)
        (folder / "inbox" / name).write_text(text)
    subprocess.run(
        command("run", "--once", program=DIGESTS),
        cwd=folder,
        env=clean_environment(),
        umask=umask,
        capture_output=True,
        timeout=240,
    )
    assert len(list((folder / "outbox").rglob("*.png"))) == 6


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_what_umask_leaves_of_0666_and_folders_of_0777(
    tmp_path: Path, umask: int
) -> None:
    """Temporary files are created like others, so that no picture ends up private."""
    run_with(umask, tmp_path)
    found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.glob("outbox/**/*")}
    for name in ("pets/a/0001-1.png", "warned.txt.warning.txt", "picowatch.log"):
        assert f"outbox/{name}" in found
    for name in ("status.json", "hashes.sqlite", "ledger.sqlite"):
        assert f"outbox/.picowatch/{name}" in found
    for name, path in found.items():
        whole = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == whole & ~umask, name


def test_a_folder_with_the_setgid_bit_hands_its_group_on(tmp_path: Path) -> None:
    """The usual way to share an outbox; everything below gets the group, folders the bit too."""
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    try:
        os.chown(outbox, -1, GROUP)
    except PermissionError:
        pytest.skip("only root may give a folder to a group that it is not in")
    outbox.chmod(0o2775)
    run_with(0o002, tmp_path)
    for path in outbox.rglob("*"):
        assert path.stat().st_gid == GROUP, path
        if path.is_dir():
            assert path.stat().st_mode & stat.S_ISGID, path


def test_a_folder_of_results_gets_the_group_of_its_recipes(tmp_path: Path) -> None:
    """If both inbox and outbox hand their groups on; the others get the outbox's."""
    folders = {tmp_path / "outbox": GROUP, tmp_path / "inbox/pets": GROUP + 1}
    for folder, group in folders.items():
        folder.mkdir(parents=True)
        try:
            os.chown(folder, -1, group)
        except PermissionError:
            pytest.skip("only root may give a folder to a group that it is not in")
        folder.chmod(0o2775)
    run_with(0o002, tmp_path)
    for path in (tmp_path / "outbox").rglob("*"):
        is_result = path.relative_to(tmp_path / "outbox").parts[0] == "pets"
        assert path.stat().st_gid == GROUP + is_result, path
