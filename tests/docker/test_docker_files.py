"""Dockerfile, compose file and package fit each other; `make up` chooses the right service."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from picowatch.cli import parsers
from picowatch.engine.protocol import cache_folder
from picowatch.errors import PAUSED
from picowatch.settings.settings import Settings, load_settings
from picowatch.sources import FILE_NAME, PREFIX
from tests.commands.picowatch import PROJECT, give_commands
from tests.test_package import call, commit_all

DOCKERFILE = PROJECT / "Dockerfile"
COMPOSE = PROJECT / "compose.yaml"
SCRIPT = PROJECT / "contrib/docker.sh"
PAGE = PROJECT / "docs/docker.md"


@cache
def texts(name: str) -> list[str]:
    """What stands behind every instruction of that name in the Dockerfile, its lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(text.split()) for text in re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)]


def the(name: str) -> str:
    """The text of the only instruction of that name, or the last, which is the one that counts."""
    return texts(name)[-1]


def pairs(name: str) -> dict[str, str]:
    words = [word for text in texts(name) for word in text.split()]
    return {key: value for key, _, value in (word.partition("=") for word in words)}


PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


RUNS = "\n".join(texts("RUN"))
LINTED = {
    DOCKERFILE: "hadolint",
    SCRIPT: "shellcheck",
    PROJECT / "contrib/release.sh": "shellcheck",
}


@pytest.mark.parametrize("file", LINTED, ids=lambda file: file.name)
def test_a_linter_says_nothing(file: Path) -> None:
    """With its default rules; exceptions have their reason beside them."""
    program = Path(sys.executable).parent / LINTED[file]
    said = subprocess.run([program, file], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_it_fits_the_package() -> None:
    """Its Python, its torch, and files that `.dockerignore` lets through, all of the package's."""
    found = re.fullmatch(r"python:3\.(\d+)-slim-\w+@sha256:[0-9a-f]{64}", pairs("ARG")["BASE"])
    least = re.fullmatch(r">=3\.(\d+)", PYPROJECT["requires-python"])
    assert found and least and int(found[1]) >= int(least[1])
    copied = {word for text in texts("COPY") for word in text.split()[:-1]}
    assert all((PROJECT / name).exists() for name in copied)
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    constraints = (PROJECT / "constraints.txt").read_text().splitlines()
    assert f"torch=={pairs('ARG')['TORCH_VERSION']}" in constraints
    wanted = {"pyproject.toml", PYPROJECT["readme"], *PYPROJECT["license-files"]}
    assert {name.split("/")[0] for name in wanted} <= copied


def test_the_commands_exist() -> None:
    """With all their flags; the image takes another command as its arguments."""
    entry, usual, (shell, _, line) = (
        json.loads(text[text.index("[") :])
        for text in map(the, ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    )
    assert entry == ["picowatch"]
    health, _, paused = line.partition(" || ")
    assert (shell, paused) == ("sh", f"[ $? -eq {PAUSED} ]")
    for program, command, *flags in (entry + usual, health.split()):
        assert program in PYPROJECT["scripts"]
        parsers()[1][command].parse_args(flags)
    assert the("STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("file", [DOCKERFILE, COMPOSE, SCRIPT, PAGE], ids=lambda file: file.name)
def test_every_variable_of_picowatch_is_a_setting(file: Path) -> None:
    """Elsewhere a misspelt one would be ignored without a word."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}\w+", file.read_text())) <= known


def test_what_is_compiled_goes_into_a_cache_for_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below it picowatch makes its own folder, for itself alone. Nothing uses the network."""
    given = pairs("ENV")
    assert f"mkdir --mode 1777 {given['XDG_CACHE_HOME']}" in RUNS
    monkeypatch.setenv("XDG_CACHE_HOME", given["XDG_CACHE_HOME"])
    folder = cache_folder()
    assert folder is not None and folder.is_relative_to(given["HOME"])
    assert given["HF_HUB_OFFLINE"] == "1"


# -- the compose file


def services() -> dict[str, dict[str, Any]]:
    """The compose file's services, as they are without any variable set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The source and the mode ("ro" or "rw") of each place in the container."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, dict):
            mode = "ro" if volume["read_only"] else "rw"
            found[volume["target"]] = volume["source"], mode
        else:
            source, target, *given = volume.split(":")
            found[target] = source, *(given or ["rw"])
    return found


SERVICES = sorted(services())
FAKE_DOCKER = '[ "$*" = "compose version" ] && exit\n'
FAKE_DOCKER += 'echo "$* TORCH=${TORCH-} PUID=${PUID-} PGID=${PGID-}" >> {log}\n'
FAKE_DOCKER += 'echo "$VERSION $DOCKER_BUILDKIT" > {log}.build\n'


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_has_the_folders_of_the_image(name: str) -> None:
    """No network, no privileges; only the outbox and the cache can be written."""
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


def section(heading: str) -> str:
    return PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


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
        shutil.copy(PROJECT / "pyproject.toml", folder)
        call = FAKE_DOCKER.replace("{log}", str(self.log))
        give_commands(folder / "bin", docker=call, **{"nvidia-smi": "exit 9"})

    def have_cards(self, *capabilities: str) -> None:
        lines = "\\n".join(capabilities)
        call = f'[ $# = 0 ] || printf "{lines}\\n"'
        give_commands(self.folder / "bin", **{"nvidia-smi": call})

    def make(self, target: str, **environment: str) -> list[str]:
        script = self.folder / "contrib/docker.sh"
        env = self.environment | environment
        done = subprocess.run([script, target], check=True, capture_output=True, env=env, text=True)
        self.said = done.stdout
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


OURS = f"PUID={os.getuid()} PGID={os.getgid()}"
# Cards, the environment and .env: the service that starts, and its variables.
UP: dict[str, tuple[str, dict[str, str], str, str, str]] = {
    "no card: by the CPU, as the user who says it": ("", {}, "", "cpu", f"TORCH= {OURS}"),
    "a card of Turing or later: by CUDA 13": ("7.5", {}, "", "gpu", f"TORCH= {OURS}"),
    "the oldest card decides": ("12.0 7.0", {}, "", "gpu", f"TORCH=cu126 {OURS}"),
    "with sudo, the user who typed it counts": (
        "", {"SUDO_UID": "1001", "SUDO_GID": "1002"}, "", "cpu", "TORCH= PUID=1001 PGID=1002"
    ),
    "compose prefers its environment to .env": (
        "6.1", {"PGID": "99"}, "PUID=1234\nTORCH=cpu\n", "gpu", "TORCH= PUID= PGID=99"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("cards", "environment", "file", "service", "given"), UP.values(), ids=UP)
def test_up_starts_a_service_by_what_there_is(
    machine: Machine, cards: str, environment: dict[str, str], file: str, service: str, given: str
) -> None:
    """The other service goes: one outbox has one picowatch."""
    if cards:
        machine.have_cards(*cards.split())
    (machine.folder / ".env").write_text(file)
    other = "gpu" if service == "cpu" else "cpu"
    assert machine.make("up", **environment) == [
        f"compose --profile cpu --profile gpu rm --stop --force {other} {given}",
        f"compose --profile {service} up --build --detach {given}",
    ]
    assert machine.log.with_name("docker.log.build").read_text() == "0.3.0.dev0 1\n"
    assert machine.said.endswith(f"its log: docker compose --profile {service} logs --follow\n")


def test_up_gives_the_image_the_version_that_git_gives_a_wheel(machine: Machine) -> None:
    """The image's build has no git."""
    commit_all(machine.folder)
    machine.make("up")
    version = call(sys.executable, "-m", "hatchling", "version", cwd=machine.folder).strip()
    found = machine.log.with_name("docker.log.build").read_text().split()[0]
    assert version.startswith(found) and re.fullmatch(r"0\.3\.0\.dev1\+g[0-9a-f]{9}", found)


def test_up_creates_settings_that_change_nothing(machine: Machine) -> None:
    """Once: what a user wrote there stays. A docker without compose is said in words."""
    settings = machine.folder / FILE_NAME
    machine.make("up", SETTINGS="other.yaml")
    assert not settings.exists()
    machine.make("up")
    assert load_settings({}, {}, settings) == load_settings({}, {})
    settings.write_text("quality: 80\n")
    machine.make("up")
    machine.make("up", SETTINGS="/srv/misspelt.yaml")
    assert settings.read_text() == "quality: 80\n"
    assert machine.make("down")[-1].startswith("compose --profile cpu --profile gpu down ")
    settings.unlink()
    call = "echo 'unknown flag: --profile' >&2; exit 125"
    give_commands(machine.folder / "bin", docker=call)
    give_commands(machine.folder / "bin", **{"docker-compose": "exit 127"})
    with pytest.raises(subprocess.CalledProcessError) as raised:
        machine.make("up")
    said = raised.value.stderr
    assert said.startswith("Neither 'docker compose' nor docker-compose works here: ")
    assert "unknown flag" not in said and not settings.exists()


def test_a_docker_compose_of_its_own_does_as_well(machine: Machine) -> None:
    """Debian's and Ubuntu's package docker-compose is no plugin of Docker."""
    call = 'echo "compose $*" >> {log}'.replace("{log}", str(machine.log))
    commands = {"docker": "exit 125", "docker-compose": call}
    give_commands(machine.folder / "bin", **commands)
    assert machine.make("up")[-1] == "compose --profile cpu up --build --detach"
    assert machine.said.endswith("its log: docker-compose --profile cpu logs --follow\n")
