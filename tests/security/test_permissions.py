"""Files in the outbox get the owner, the group and the mode that umask and folder say."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.commands.picowatch import DIGESTS, clean_environment, command
from tests.security.attacks import plain_picture

USUAL = 0o022
GROUP = 54321


def run_with(umask: int, folder: Path, program: str = DIGESTS) -> None:
    """`run --once` on a picture, a sheet, a warning, an error and a start image.

    The engine writes no file here, so one run with the demo model is enough.
    """
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
        command("run", "--once", program=program),
        cwd=folder,
        env=clean_environment(),
        umask=umask,
        capture_output=True,
        timeout=240,
    )
    assert len(list((folder / "outbox").rglob("*.png"))) == 6


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after a run under the usual umask."""
    folder = tmp_path_factory.mktemp("usual")
    run_with(USUAL, folder, "picowatch")
    return folder


def modes(outbox: Path) -> dict[str, int]:
    """The permissions of everything below, by its path; folders end with a slash."""
    return {
        path.relative_to(outbox).as_posix() + "/" * path.is_dir(): stat.S_IMODE(path.stat().st_mode)
        for path in outbox.rglob("*")
    }


@pytest.mark.parametrize("umask", [USUAL, 0o002, 0o077])
def test_files_get_what_umask_leaves_of_0666_and_folders_of_0777(
    tmp_path: Path, usual: Path, umask: int
) -> None:
    """Temporary files are created like others, so that no picture ends up private."""
    folder = usual if umask == USUAL else tmp_path
    if umask != USUAL:
        run_with(umask, folder)
    found = modes(folder / "outbox")
    assert {"pets/a/0001-1.png", "warned.txt.warning.txt", ".picowatch/status.json"} <= set(found)
    assert {"picowatch.log", ".picowatch/hashes.sqlite", ".picowatch/ledger.sqlite"} <= set(found)
    for path, mode in found.items():
        assert mode == (0o777 if path.endswith("/") else 0o666) & ~umask, path


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
