"""The lines of the administrators' pages, as one machine's administrator types them.

Everything below / is in a temporary folder, `sudo` and others need no privileges, and the service
manager starts what is in the inbox with the digest engine. Everything else is the real program.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from picowatch.outbox.names import FORMATS, picture_files
from tests.commands.picowatch import DIGESTS_HERE, PROJECT, give_commands
from tests.documents.test_shown_commands import crontab_lines, shell
from tests.house import House

# What pages write outside of home folders, each with what it means there.
ROOTS = ("/srv", "/opt", "/etc", "/var", "/usr/local/bin")
SHIMS = {
    "picowatch": f'exec {sys.executable} -m {DIGESTS_HERE} "$@"',
    # Without privileges, and without another user.
    "sudo": 'while [ "$1" = -u ]; do shift 2; done; exec "$@"',
    **{name: f'echo "{name} $*" >> {{log}}' for name in ("useradd", "usermod")},
    **{name: f'echo "{name} $*" >> {{log}}' for name in ("userdel", "groupdel")},
    "chown": ":",
    "install": 'exec /usr/bin/install $(echo "$@" | sed "s/--owner=[a-z]*//; s/--group=[a-z]*//")',
    "python3": 'shift 2; mkdir -p "$1/bin" && cp {programs}/picowatch {programs}/pip "$1/bin"',
    "pip": 'echo "pip $*" >> {log}; mkdir -p {share} && cp {project}/contrib/*.service {share}',
    # A started service renders what is in the inbox.
    "systemctl": 'echo "systemctl $*" >> {log}; case "$*" in *disable*) ;; *--now*|*start*) '
    "cd {srv}/picowatch && {programs}/picowatch run --once --quiet;; esac",
}


class Machine:
    """A machine's folders, and a shell whose lines stay within them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.served = folder / "srv/picowatch"
        self.log = folder / "calls.log"
        programs = folder / "programs"
        for made in (self.home, folder / "usr/local/bin", folder / "etc/systemd/system"):
            made.mkdir(parents=True)
        words = {"log": self.log, "programs": programs, "project": PROJECT, "srv": folder / "srv"}
        share = folder / "opt/picowatch/share/picowatch"
        give_commands(
            programs, **{name: text.format(share=share, **words) for name, text in SHIMS.items()}
        )
        self._path = f"{programs}:{folder}/usr/local/bin:{os.environ['PATH']}"

    def type(self, page: str, *sections: str) -> str:
        """Every shell block of a page's sections, in one shell; what it prints."""
        text = "".join("".join(shell_blocks(page, section)) for section in sections)
        return self.run(text)

    def run(self, text: str) -> str:
        """Lines in one shell, each of which must succeed."""
        for root in ROOTS:
            text = re.sub(rf"(?<![\w/]){root}/", f"{self.folder}{root}/", text)
        done = shell(text, self.home, HOME=str(self.home), PATH=self._path, USER="ada")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def pictures(self) -> list[str]:
        return sorted(picture_files(self.served / "outbox"))

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


def shell_blocks(page: str, section: str) -> list[str]:
    """The shell blocks under one heading of a page; under its title for ""."""
    text = (PROJECT / "docs" / page).read_text()
    parts = re.split(r"^#+ (.+)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))[section or parts[1]]
    return re.findall(r"^```sh\n(.*?)^```$", found, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With picowatch installed as a service, as docs/service.md says it, and used once."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.type("service.md", "")
    member, first = shell_blocks("service.md", "Use it")
    (machine.served / "inbox/random.txt").write_text("a star\na heart\n")
    machine.run(member)
    machine.run(first.replace("picowatch status", "systemctl start picowatch"))
    return machine


def test_a_service_is_installed_line_by_line(machine: Machine) -> None:
    """It renders the examples, and a first recipe of one's own."""
    assert (machine.folder / "etc/systemd/system/picowatch.service").exists()
    assert "systemctl enable --now picowatch" in machine.calls()
    assert "usermod --append --groups picowatch ada" in machine.calls()
    folders = {name.split("/")[0] for name in machine.pictures()}
    assert folders == {"corgi", "hello", "party", "random", "scenes"}


def test_an_upgrade_renders_nothing_again(machine: Machine) -> None:
    """Nor does one of each user's own; picowatch is stopped before `pip`."""
    before = machine.pictures()
    machine.log.unlink()
    own = machine.home / ".config/systemd/user/picowatch.service"
    own.parent.mkdir(parents=True, exist_ok=True)
    said = machine.type("administration.md", "Upgrade a service")
    assert machine.pictures() == before
    assert own.exists()
    own.unlink()
    assert said.splitlines()[-1].startswith("picowatch ")
    calls = machine.calls()
    assert calls[0] == "systemctl stop picowatch"
    assert "systemctl start picowatch" in calls


def test_a_restored_backup_renders_nothing_twice_and_loses_nothing(machine: Machine) -> None:
    """After all is lost; and beside what is newer, without the ledger and the files' times."""
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    (back_up,), (restore,) = (
        shell_blocks("administration.md", name) for name in ("Back up", "Restore")
    )
    lines = back_up.splitlines()
    assert lines.pop() == "sudo systemctl start picowatch"  # below, with a new recipe
    machine.run("\n".join(lines))
    kept = machine.pictures()

    machine.run("rm -rf /srv/picowatch; mkdir /srv/picowatch")
    machine.run(restore)
    assert machine.pictures() == kept

    (machine.served / "inbox/later.yaml").write_text("prompt: a cat\nseed: 9\n")
    machine.run(lines.pop(0) + "; systemctl start picowatch")
    newer = machine.pictures()
    assert newer == sorted([*kept, "later/0001-9.png"])
    stop, copy, _ = restore.replace(" --delete", " --update").splitlines()
    machine.run(f"{stop}\n{copy}\ntouch /srv/picowatch/inbox/random.txt")
    machine.type("administration.md", "Without the ledger", "Move to another machine")
    assert machine.pictures() == newer


def test_old_pictures_alone_are_deleted(house: House) -> None:
    """No new one goes, nor an original, a recipe, an error that holds or picowatch's own files."""
    for kind in FORMATS:
        house.save(f"made/{kind}.yaml", f"prompt: a star\nseed: 7\nsize: 64x64\nformat: {kind}\n")
    house.save("scans/_pictures.yaml", "prompt: a star\nsize: 64x64\nseed: 7\n")
    house.draw("scans/1.png")
    house.save("made/wrong.yaml", "stesp: 3\n")
    assert not house.once(when_done="archive")
    kept = ["made/wrong.yaml.error.txt", *(f"made/{kind}/{kind}.yaml" for kind in FORMATS)]
    kept += ["scans/originals/1.png", "made/png/0001-7.png"]
    assert {*house.pictures()} > {"scans/1.png", "scans/originals/1.png"}
    own = [*house.outbox.iterdir(), *(house.outbox / ".picowatch").rglob("*")]
    for path in house.outbox.rglob("*"):
        os.utime(path, (0, 0))
    os.utime(house.outbox / "made/png/0001-7.png")
    (line,) = crontab_lines(PROJECT / "docs/administration.md")
    assert shell(line.replace("/srv/picowatch", str(house.folder)), house.folder).returncode == 0
    left = {path.relative_to(house.outbox).as_posix() for path in house.outbox.glob("*/**/*.*")}
    assert {path for path in left if not path.startswith(".picowatch/")} == {*kept}
    assert [path for path in own if not path.exists()] == []
    house.once(when_done="archive")
    assert house.pictures() == ["made/png/0001-7.png", "scans/originals/1.png"]


def test_modes_are_those_that_the_page_names(machine: Machine) -> None:
    """docs/administration.md; lists of access control need a file system that has them."""
    sections = ("A shared inbox", "Private pictures", "Read-only models", "Give the outbox back")
    machine.type("administration.md", *sections)
    modes = {name: (machine.served / name).stat().st_mode & 0o7777 for name in ("inbox", "outbox")}
    assert modes == {"inbox": 0o3775, "outbox": 0o2770}


def test_nothing_is_left_after_uninstalling(machine: Machine) -> None:
    """But a backup of one's own. The last test of this machine."""
    users = machine.home / ".config/systemd/user/picowatch.service"
    users.parent.mkdir(parents=True, exist_ok=True)
    users.touch()
    machine.type("administration.md", "Uninstall a service")
    assert not users.exists()
    left = {str(path.relative_to(machine.folder)) for path in machine.folder.rglob("*picowatch*")}
    left = {path for path in left if not path.startswith(("var/backups/", "programs/"))}
    assert left == set()
    assert machine.calls()[-3:-1] == ["userdel picowatch", "groupdel picowatch"]


def test_the_wheel_is_used_line_by_line(tmp_path: Path) -> None:
    """docs/install.md, up to `run`, which goes on until Ctrl-C, and its removal."""
    shown = shell_blocks("install.md", "The wheel")[0]
    machine = Machine(tmp_path)
    machine.run(shown.replace("picowatch run", "picowatch run --once"))
    assert (machine.home / "picowatch/outbox/latest.png").exists()
    machine.type("administration.md", "Uninstall an environment, a clone, a container")
    assert not (machine.home / "picowatch-env").exists()
