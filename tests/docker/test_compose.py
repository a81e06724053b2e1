"""The compose file fits the image and the package, and `make up` chooses the right service."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from picowatch import __version__
from picowatch.cli import parsers
from picowatch.settings import FILE_NAME, PREFIX, load_settings
from tests.docker.files import (
    COMPOSE,
    DOCKERFILE,
    PAGE,
    PROJECT,
    SCRIPT,
    mounts,
    pairs,
    section,
    services,
    the,
)
from tests.documents.test_shown_commands import give_commands

SERVICES = sorted(services())
FAKE_DOCKER = '[ "$*" = "compose version" ] && exit\n'
FAKE_DOCKER += 'echo "$* TORCH=${TORCH-} PUID=${PUID-} PGID=${PGID-}" >> {log}\n'
FAKE_DOCKER += 'echo "$VERSION $DOCKER_BUILDKIT" > {log}.build\n'


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_has_the_folders_of_the_image(name: str) -> None:
    """No network, no privileges, the image's user, and a log that has an end.

    The outbox and the cache can be written; of the settings' folder only their file is seen.
    """
    service = services()[name]
    expected = {
        "user": the("USER"),
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "read_only": True,
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp:exec"],  # where torch unpacks compiled models; Docker's own is noexec
    }
    assert {key: service[key] for key in expected} == expected
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    for page in ("docs/administration.md", "docs/docker.md"):
        assert "10 MB, three files" in (PROJECT / page).read_text()
    root, cache = the("WORKDIR"), pairs("ENV")["XDG_CACHE_HOME"]
    found = mounts(service)
    assert found.pop(f"{root}/{FILE_NAME}") == (f"./{FILE_NAME}", "ro")
    assert set(found) == {cache, *(f"{root}/{n}" for n in ("inbox", "outbox", "models"))}
    assert {target for target in found if found[target][1] == "rw"} == {cache, f"{root}/outbox"}
    assert all((PROJECT / found[target][0]).is_dir() for target in {*found} - {cache})


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_sets_is_known(name: str) -> None:
    """Arguments are the Dockerfile's; every PICOWATCH_… is a setting with an allowed value."""
    given = services()[name]["build"]["args"]
    assert set(given) <= set(pairs("ARG"))
    assert given["TORCH"] in ("cpu", "cuda")
    assert f"# {pairs('ARG')['TORCH']}; cuda: " in DOCKERFILE.read_text()
    environment = services()[name]["environment"]
    settings = load_settings({}, environment)
    for variable, value in environment.items():
        if variable.startswith(PREFIX):
            assert str(getattr(settings, variable.removeprefix(PREFIX).lower())) == value


def test_the_page_names_its_variables_services_and_commands() -> None:
    """With the same defaults; arguments, targets of make, what is run in the container."""
    text = PAGE.read_text()
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    rows = re.findall(r"^\| `([A-Z_]+)` \| .* \| ([^|]*) \|$", section("Options"), re.M)
    assert {name for name, _ in rows} == set(defaults)
    for name, default in rows:
        assert default.strip("`").endswith(defaults[name]), name
    arguments = re.findall(r"^\| `([A-Z_]+)` \|", section("Building the image"), re.MULTILINE)
    assert set(arguments) == set(pairs("ARG"))
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    made = set(re.findall(r"(?:^|`)make (\S+?)(?:`|\s)", text, re.MULTILINE))
    assert {"up", "down"} <= made <= set(targets)
    assert set(re.findall(r"--profile (\w+)", text)) == set(SERVICES)
    name = services()["cpu"]["container_name"]
    run = set(re.findall(rf"docker exec {name} picowatch (\w+)", text))
    assert {"status", "doctor"} <= run <= set(parsers()[1])
    assert set(re.findall(r"docker (?:logs|restart)[\w -]* (\w+)", text)) == {name}


class Machine:
    """A machine with a docker that writes down what it is told, and maybe cards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self.log = folder / "docker.log"
        self.said = ""
        (folder / "contrib").mkdir()
        shutil.copy(SCRIPT, folder / "contrib")
        (folder / "picowatch").mkdir()
        shutil.copy(PROJECT / "picowatch/__init__.py", folder / "picowatch")
        call = FAKE_DOCKER.replace("{log}", str(self.log))
        give_commands(folder / "bin", docker=call, **{"nvidia-smi": "exit 9"})

    def have_cards(self, *capabilities: str) -> None:
        lines = "\\n".join(capabilities)
        call = f'[ $# = 0 ] || printf "{lines}\\n"'
        give_commands(self.folder / "bin", **{"nvidia-smi": call})

    def make(self, target: str, **environment: str) -> list[str]:
        """What docker was told."""
        script = self.folder / "contrib/docker.sh"
        env = self.environment | environment
        done = subprocess.run([script, target], check=True, capture_output=True, env=env, text=True)
        self.said = done.stdout
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_up_without_a_card_is_by_the_cpu(machine: Machine) -> None:
    """As the user who says it; the other service goes, because one outbox has one picowatch.

    By BuildKit, which Docker 20 does not use by itself; it says how to follow the log.
    """
    ours = f"TORCH= PUID={os.getuid()} PGID={os.getgid()}"
    assert machine.make("up") == [
        f"compose --profile cpu --profile gpu rm --stop --force gpu {ours}",
        f"compose --profile cpu up --build --detach {ours}",
    ]
    assert machine.log.with_name("docker.log.build").read_text() == f"{__version__} 1\n"
    assert machine.said.endswith("its log: docker compose --profile cpu logs --follow\n")


@pytest.mark.parametrize(
    ("cards", "torch"),
    [(["8.6"], ""), (["7.5"], ""), (["6.1"], "cu126"), (["12.0", "7.0"], "cu126")],
)
def test_up_with_a_card_is_by_a_torch_that_knows_it(
    machine: Machine, cards: list[str], torch: str
) -> None:
    """The oldest card decides: torch for CUDA 13 begins with Turing."""
    machine.have_cards(*cards)
    removed, started = machine.make("up")
    assert "rm --stop --force cpu" in removed
    assert f"--profile gpu up --build --detach TORCH={torch} " in started


def test_what_the_environment_or_env_file_says_goes_first(machine: Machine) -> None:
    """compose prefers its environment to .env. With sudo, the user who typed it counts."""
    assert machine.make("up", SUDO_UID="1001", SUDO_GID="1002")[-1].endswith("PUID=1001 PGID=1002")
    machine.have_cards("6.1")
    (machine.folder / ".env").write_text("PUID=1234\nTORCH=cpu\n")
    assert machine.make("up", PGID="99")[-1].endswith("TORCH= PUID= PGID=99")


def test_up_creates_settings_that_change_nothing(machine: Machine) -> None:
    """Once: what a user wrote there stays. A docker without compose is said in words."""
    machine.make("up")
    settings = machine.folder / FILE_NAME
    assert load_settings({}, {}, settings) == load_settings({}, {})
    settings.write_text("quality: 80\n")
    machine.make("up")
    assert settings.read_text() == "quality: 80\n"
    assert machine.make("down")[-1].startswith("compose --profile cpu --profile gpu down ")
    settings.unlink()
    call = "echo 'unknown flag: --profile' >&2; exit 125"
    give_commands(machine.folder / "bin", docker=call)
    with pytest.raises(subprocess.CalledProcessError) as raised:
        machine.make("up")
    said = raised.value.stderr
    assert said.startswith("'docker compose' does not work here: picowatch needs Docker with its ")
    assert "unknown flag" not in said and not settings.exists()
