"""Builds the image and makes pictures in it with a Docker engine: `make image-check`.

A copy of this checkout goes from `make up` through a kill and an upgrade to `make down`. OVERRIDE
names a compose.override.yaml for it, such as one for an index of packages of one's own.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from picowatch import __version__
from tests.commands.picowatch import PROJECT
from tests.docker.test_docker_files import mounts, services
from tests.house import wait_for

NAME = "picowatch-check"
UPGRADED = f"{__version__}.post1"
PROMPT = "a red circle on a blue background"
SEED = 7
BATCH = 100  # so many that neither a kill nor an upgrade comes too late
UID = 12345  # a user of whom nothing in the image knows, as compose's PUID may be
STOP_SECONDS = 10.0  # Docker kills after that

pytestmark = pytest.mark.timeout(3600)


class Checkout:
    """A copy of this checkout, with a container by the commands that docs/docker.md names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "cache").mkdir()
        copy = f"git ls-files -z | xargs -0 cp --parents --target-directory={path}"
        output_of("sh", "-c", f"cd {PROJECT} && {copy}")
        compose = path / "compose.yaml"  # the tags of an image in use stay as they are
        compose.write_text(compose.read_text().replace("image: picowatch:", f"image: {NAME}:"))
        for source, mode in mounts(services()["cpu"]).values():
            if mode == "rw":
                os.chown(path / source, UID, UID)
        values = {"CONTAINER": NAME, "COMPOSE_PROJECT_NAME": NAME, "PUID": UID, "PGID": UID}
        (path / ".env").write_text("".join(f"{key}={values[key]}\n" for key in values))
        if override := os.environ.get("OVERRIDE"):
            shutil.copy(override, path / "compose.override.yaml")

    def save(self, name: str, **fields: object) -> None:
        """Save a recipe into the inbox, which only the container cannot write."""
        recipe = {"prompt": PROMPT, "seed": SEED, "steps": 4, **fields}
        (self.path / f"inbox/{name}.yaml").write_text(yaml.safe_dump(recipe))

    def make(self, target: str) -> None:
        """`make up` builds and starts, or upgrades; `make down` ends."""
        output_of("make", "-C", self.path, target)

    def inside(self, *arguments: str) -> str:
        """Run a program beside picowatch; return what it printed."""
        return output_of("docker", "exec", NAME, *arguments)

    def fact(self, name: str) -> str:
        """What `docker inspect` says of the container."""
        return output_of("docker", "inspect", f"--format={{{{.{name}}}}}", NAME)

    def seeds(self) -> list[int]:
        """The seeds of the batch's pictures, as the outbox lists them."""
        rows = map(json.loads, (self.path / "outbox/images.jsonl").read_text().splitlines())
        return sorted(row["seed"] for row in rows if row["recipe"] == "batch.yaml")


def output_of(*command: object) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A container that is up and healthy; nothing of it is left in the engine."""
    checkout = Checkout(tmp_path_factory.mktemp("image"))
    try:
        checkout.make("up")
        wait_for(lambda: checkout.fact("State.Health.Status") == "healthy", "(healthy)")
        yield checkout
    finally:
        down = "docker compose --profile=cpu --profile=gpu down --volumes --rmi=all"
        subprocess.run(["sh", "-c", down], cwd=checkout.path, capture_output=True)


def test_a_container_is_whole_and_confined(checkout: Checkout) -> None:
    """Who it is, and what it cannot do."""
    assert checkout.inside("picowatch", "--version") == f"picowatch {__version__}"
    assert checkout.inside("pip", "check") == "No broken requirements found."
    assert checkout.inside("sh", "-c", "echo $(id -u):$(id -g)") == f"{UID}:{UID}"
    networks = "tail -n +3 /proc/net/dev | cut -d: -f1 | xargs"
    assert checkout.inside("sh", "-c", networks) == "lo"
    places = "/data/inbox /data/models /data /opt/picowatch/bin /etc /var/tmp"
    script = f"for place in {places}; do touch $place/x && echo $place; done 2> /dev/null; true"
    assert checkout.inside("sh", "-c", script) == "", "it can write there"


def test_a_recipe_becomes_a_picture_that_is_the_users(checkout: Checkout) -> None:
    """It is whole and holds its settings. `docker run` renders by the image's own user."""
    checkout.save("circle")
    picture = checkout.path / f"outbox/circle/0001-{SEED}.png"
    wait_for(picture.exists, "the picture")
    assert picture.stat().st_uid == UID
    with Image.open(picture) as image:
        image.load()
        assert image.info["parameters"].splitlines()[0] == PROMPT
    once = f"echo {PROMPT} > inbox/x.txt; picowatch run --once > /dev/null; ls outbox/x"
    words = ("--rm", "--network=none", "--entrypoint=sh", checkout.fact("Config.Image"))
    assert output_of("docker", "run", *words, "-c", f"{once} | wc -l") == "1"


def test_each_picture_of_a_batch_is_made_once(checkout: Checkout) -> None:
    """In spite of a kill and an upgrade."""
    checkout.save("batch", steps=20, count=BATCH)
    wait_for(checkout.seeds, "the first picture")
    os.kill(int(checkout.fact("State.Pid")), signal.SIGKILL)
    wait_for(lambda: checkout.fact("RestartCount") == "1", "the restart after a kill")
    killed = len(checkout.seeds())
    wait_for(lambda: len(checkout.seeds()) > killed, "a picture after the restart")
    old = checkout.fact("Image")
    source = checkout.path / "picowatch/__init__.py"
    source.write_text(source.read_text().replace(__version__, UPGRADED))
    checkout.make("up")
    output_of("docker", "rmi", old)
    assert len(checkout.seeds()) < BATCH, "nothing is left for the upgrade"
    assert checkout.inside("picowatch", "--version") == f"picowatch {UPGRADED}"
    wait_for(lambda: len(checkout.seeds()) >= BATCH, "the rest of the batch")
    started = time.monotonic()
    checkout.make("down")
    assert time.monotonic() - started < STOP_SECONDS
    assert output_of("docker", "ps", "-aq", f"--filter=name={NAME}") == ""
    assert checkout.seeds() == list(range(SEED, SEED + BATCH))
    assert len(list((checkout.path / "outbox/batch").glob("*.png"))) == BATCH
