"""Builds the image and makes pictures in it with a Docker engine: `make image-check`.

A copy of this checkout goes from `make up` through a kill and an upgrade to `make down`. OVERRIDE
names a compose.override.yaml for it, such as one for an index of packages of one's own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image

from tests.commands.picowatch import PROJECT
from tests.docker.test_docker_files import mounts, services

NAME = "picowatch-check"
BUILT, UPGRADED = "0.3.0.dev1+gaaaaaaa", "0.3.0.dev2+gbbbbbbb"
PROMPT = "a red circle on a blue background"
SEED = 7
BATCH = 100  # so many that neither a kill nor an upgrade comes too late
UID = 12345  # a user of whom nothing in the image knows, as compose's PUID may be
PATIENCE_SECONDS = 900.0
STOP_SECONDS = 10.0  # Docker kills after that


class CheckFailed(Exception):
    """What was found instead."""


class Checkout:
    """A copy of this checkout, with a container by the commands that docs/docker.md names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "cache").mkdir(parents=True)
        copy = f"git ls-files -z | xargs -0 cp --parents --target-directory={path}"
        output_of("sh", "-c", f"cd {PROJECT} && {copy}")
        compose = path / "compose.yaml"  # the tags of an image in use stay as they are
        compose.write_text(compose.read_text().replace("image: picowatch:", f"image: {NAME}:"))
        for source, mode in mounts(services()["cpu"]).values():
            if mode == "rw":
                os.chown(path / source, UID, UID)
        values = {
            "VERSION": BUILT,
            "CONTAINER": NAME,
            "COMPOSE_PROJECT_NAME": NAME,
            "PUID": UID,
            "PGID": UID,
        }
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
        return output_of("docker", "exec", NAME, *arguments)

    def fact(self, name: str) -> str:
        return output_of("docker", "inspect", f"--format={{{{.{name}}}}}", NAME)

    def seeds(self) -> list[int]:
        rows = map(json.loads, (self.path / "outbox/images.jsonl").read_text().splitlines())
        return sorted(
            row["seed"] for row in rows if "file" in row and row["recipe"] == "batch.yaml"
        )

    def remove(self) -> None:
        """Leave nothing in the engine."""
        down = "docker compose --profile=cpu --profile=gpu down --volumes --rmi=all"
        subprocess.run(["sh", "-c", down], cwd=self.path, capture_output=True)


def output_of(*command: object) -> str:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise CheckFailed(f"{' '.join(words)}\nended with {done.returncode}:\n{said}")
    return done.stdout.strip()


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CheckFailed(f"{what}: {found!r} instead of {wanted!r}")
    print(f"ok  {what}: {found or 'none'}", flush=True)


def wait(happened: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise CheckFailed(f"{what} did not come within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)
    print(f"ok  {what}: {time.monotonic() - began:.0f} s", flush=True)


def check_confinement(checkout: Checkout) -> None:
    """Who it is, and what it cannot do."""
    expect("user", checkout.inside("sh", "-c", "echo $(id -u):$(id -g)"), f"{UID}:{UID}")
    networks = checkout.inside("sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | xargs")
    expect("networks", networks, "lo")
    places = "/data/inbox /data/models /data /opt/picowatch/bin /etc /var/tmp"
    script = f"for place in {places}; do touch $place/x && echo $place; done 2> /dev/null; true"
    expect(f"can write of {places}", checkout.inside("sh", "-c", script), "")


def check_picture(checkout: Checkout) -> None:
    """A recipe becomes a whole picture that holds its settings and is the user's."""
    checkout.save("circle")
    picture = checkout.path / f"outbox/circle/0001-{SEED}.png"
    wait(picture.exists, "the picture")
    expect("owner of the picture", picture.stat().st_uid, UID)
    with Image.open(picture) as image:
        image.load()
        expect("prompt in the picture", image.info["parameters"].splitlines()[0], PROMPT)
    once = f"echo {PROMPT} > inbox/x.txt; picowatch run --once > /dev/null; ls outbox/x"
    words = ("--rm", "--network=none", "--entrypoint=sh", checkout.fact("Config.Image"))
    made = output_of("docker", "run", *words, "-c", f"{once} | wc -l")
    expect("pictures of docker run, by the image's own user", made, "1")


def check_batch(checkout: Checkout) -> None:
    """Each picture of a batch is made once, in spite of a kill and an upgrade."""
    checkout.save("batch", steps=20, count=BATCH)
    wait(checkout.seeds, "the first picture of a batch")
    os.kill(int(checkout.fact("State.Pid")), signal.SIGKILL)
    wait(lambda: checkout.fact("RestartCount") == "1", "the restart after a kill")
    killed = len(checkout.seeds())
    wait(lambda: len(checkout.seeds()) > killed, "a picture after the restart")
    old = checkout.fact("Image")
    variables = checkout.path / ".env"
    variables.write_text(variables.read_text().replace(BUILT, UPGRADED))
    checkout.make("up")
    output_of("docker", "rmi", old)
    expect("pictures left for the upgrade", len(checkout.seeds()) < BATCH, True)
    expect("version", checkout.inside("picowatch", "--version"), f"picowatch {UPGRADED}")
    wait(lambda: len(checkout.seeds()) >= BATCH, "the rest of the batch")
    started = time.monotonic()
    checkout.make("down")
    expect("make down in time", time.monotonic() - started < STOP_SECONDS, True)
    expect("containers left", output_of("docker", "ps", "-aq", f"--filter=name={NAME}"), "")
    expect("pictures once each", checkout.seeds() == list(range(SEED, SEED + BATCH)), True)
    expect("their files", len(list((checkout.path / "outbox/batch").glob("*.png"))), BATCH)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="picowatch-image-"))
    checkout = None
    try:
        for command in ("docker version", "docker compose version"):
            print(output_of(*command.split()), flush=True)
        checkout = Checkout(folder / "checkout")
        checkout.make("up")
        expect("version", checkout.inside("picowatch", "--version"), f"picowatch {BUILT}")
        expect("pip check", checkout.inside("pip", "check"), "No broken requirements found.")
        wait(lambda: checkout.fact("State.Health.Status") == "healthy", "(healthy)")
        check_confinement(checkout)
        check_picture(checkout)
        check_batch(checkout)
    except (CheckFailed, OSError) as failure:  # OSError: not root
        print(f"FAILED  {failure}")
        for log in folder.glob("checkout/outbox/picowatch.log"):
            print(log.read_text()[-4000:])
        return 1
    finally:
        if checkout:
            checkout.remove()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
