"""Builds the image and makes pictures in it, without a Docker engine: `make image-check`.

Debian's buildah builds with nothing but chroot, on a base that debootstrap makes. It needs root,
the three programs and some minutes; everything it makes lies in one temporary folder, which goes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from picowatch import __version__
from tests.docker.files import PROJECT, mounts, services
from tests.docker.pip_routes import pip_routes

PROGRAMS = ("buildah", "debootstrap", "unshare")
IMAGE = "localhost/picowatch"
BASE = "localhost/base"
PROMPT = "a red circle on a blue background"
# A user of whom nothing in the image knows, as compose's PUID may be.
STRANGER = "12345:12345"
PICTURE_SECONDS = 300.0
# What Docker gives before it kills.
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1


class CheckFailed(Exception):
    """What was found instead."""


@dataclass(frozen=True)
class Builder:
    """buildah with a store of its own."""

    store: Path

    def command(self, *arguments: object) -> list[str]:
        """The whole command line."""
        storage = [f"--root={self.store}/root", f"--runroot={self.store}/run"]
        return ["buildah", *storage, *map(str, arguments)]

    def __call__(self, *arguments: object) -> str:
        """Run it; what it printed."""
        return output_of(self.command(*arguments))

    def config(self) -> dict[str, Any]:
        """How the image says that it is run."""
        inspected = json.loads(self("inspect", "--type=image", IMAGE))
        found: dict[str, Any] = inspected["Docker"]["config"]
        return found


@dataclass(frozen=True)
class Container:
    """A container of the image with one user's folders, where nothing sees a network.

    The folders are mounted as the compose file says; `folder` stands for /.
    """

    builder: Builder
    name: str
    user: str
    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """Runs a program in it; the empty network of `unshare` is inherited."""
        volumes = [
            f"--volume={self.folder}{mount.target}:{mount.target}:{mount.mode}"
            for mount in mounts(services()["cpu"])
        ]
        run = ("run", f"--user={self.user}", *volumes, self.name, "--", *arguments)
        return ["unshare", "--net", *self.builder.command(*run)]

    def __call__(self, *arguments: str) -> str:
        """Run a program; what it printed."""
        return output_of(self.command(*arguments))

    def save_recipe(self) -> None:
        """Into the inbox, which is read-only inside only."""
        recipe = f"prompt: {PROMPT}\nseed: 7\nsteps: 4\n"
        (self.folder / "data/inbox/circle.yaml").write_text(recipe)

    @property
    def picture(self) -> Path:
        """What becomes of that recipe."""
        return self.folder / "data/outbox/circle/0001-7.png"

    @property
    def process(self) -> int:
        """The number of picowatch's process while it runs, else 0."""
        lock = self.folder / "data/outbox/.picowatch/lock"
        return int(lock.read_text() or 0) if lock.exists() else 0


def output_of(command: list[str]) -> str:
    """Run a command that must succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise CheckFailed(f"{' '.join(command)}\nended with {done.returncode}:\n{said}")
    return done.stdout.strip()


def say(text: str) -> None:
    """One line at once, also into a pipe."""
    print(text, flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    started = time.monotonic()
    yield
    say(f"ok  {what}: {time.monotonic() - started:.0f} s")


def make_base(builder: Builder, suite: str, folder: Path) -> None:
    """A Debian with Python, as an image."""
    packages = "--include=python3-venv,ca-certificates"
    output_of(["debootstrap", "--variant=minbase", packages, suite, str(folder)])
    name = builder("from", "scratch")
    builder("add", "--quiet", name, folder, "/")
    builder("commit", "--quiet", "--rm", name, BASE)
    shutil.rmtree(folder)


def build(builder: Builder, folder: Path) -> None:
    """The image from this checkout, with torch and all else from where pip finds them here."""
    routes = pip_routes()
    config = folder / "pip.conf"
    config.write_text(routes.config)
    lent = [f"--volume={path}:{path}:ro" for path in routes.paths if path.exists()]
    arguments = [f"--build-arg=BASE={BASE}", "--build-arg=TORCH_INDEXES="]
    arguments.append(f"--build-arg=VERSION={__version__}")
    # Docker's own format: the other one knows no health check.
    how = ["--format=docker", "--layers=false", f"--secret=id=pip,src={config}"]
    builder("build", *how, *lent, *arguments, f"--tag={IMAGE}", PROJECT)


@contextmanager
def container_of(builder: Builder, user: str, folder: Path) -> Iterator[Container]:
    """A container whose user owns what compose lets be written, and nothing else."""
    number, group = map(int, user.split(":"))
    for mount in mounts(services()["cpu"]):
        place = Path(f"{folder}{mount.target}")
        if place.suffix:  # the settings' file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("")
            continue
        place.mkdir(parents=True, exist_ok=True)
        if mount.mode == "rw":
            os.chown(place, number, group)
    name = builder("from", IMAGE)
    try:
        yield Container(builder, name, user, folder)
    finally:
        builder("rm", name)


def check_packages(container: Container) -> None:
    """The version is this checkout's, and all dependencies are there."""
    if container("picowatch", "--version") != f"picowatch {__version__}":
        raise CheckFailed("the image holds another version")
    say(
        f"ok  picowatch {__version__}, {container('du', '-sh', '/opt/picowatch').split()[0]} in all"
    )
    say(f"ok  pip check: {container('pip', 'check')}")


def check_confinement(container: Container) -> None:
    """Who it is, and what it cannot do."""
    ours = container("sh", "-c", "echo $(id -u):$(id -g)")
    if ours != container.user:
        raise CheckFailed(f"it runs as {ours} instead of {container.user}")
    if container("sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | xargs") != "lo":
        raise CheckFailed("it sees a network")
    for place in ("/data/inbox", "/data/models", "/data", "/opt/picowatch/bin", "/etc"):
        if container("sh", "-c", f"touch {place}/x 2> /dev/null || echo refused") != "refused":
            raise CheckFailed(f"it can write {place}")
    say(f"ok  user {ours} has no network, and writes neither the inbox nor the program")


def check_picture(container: Container) -> None:
    """It is whole, holds its settings, and is the user's."""
    with Image.open(container.picture) as image:
        image.load()
        if PROMPT not in image.info["parameters"]:
            raise CheckFailed(f"the picture holds other settings: {image.info['parameters']}")
    found = container.picture.stat()
    if f"{found.st_uid}:{found.st_gid}" != container.user:
        raise CheckFailed(f"the picture belongs to {found.st_uid}:{found.st_gid}")


def check_daemon(container: Container, config: dict[str, Any]) -> None:
    """The image's own command makes a picture, is healthy, and ends by the image's signal."""
    command = config["Entrypoint"] + config["Cmd"]
    health = config["Healthcheck"]["Test"][1:]
    with running(container, command) as daemon:
        wait(lambda: container.process, daemon, "the start")
        container.save_recipe()
        wait(container.picture.exists, daemon, "the picture")
        check_picture(container)
        say(f"ok  {' '.join(command)}: a recipe became {container.picture.name}")
        say(f"ok  {' '.join(health)}: {container(*health)}")
        started = time.monotonic()
        os.kill(container.process, signal.Signals[config["StopSignal"]])
        wait(lambda: daemon.poll() is not None, daemon, "the end", STOP_SECONDS)
        if daemon.returncode:
            raise CheckFailed(f"{config['StopSignal']} ended it with {daemon.returncode}")
        say(f"ok  {config['StopSignal']}: exit code 0 after {time.monotonic() - started:.1f} s")


@contextmanager
def running(container: Container, command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A program of the container in the background, which does not outlive this."""
    daemon = subprocess.Popen(
        container.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield daemon
    finally:
        if daemon.poll() is None and container.process:
            os.kill(container.process, signal.SIGKILL)
        daemon.kill()
        daemon.communicate()


def wait(
    happened: Callable[[], object],
    daemon: "subprocess.Popen[str]",
    what: str,
    seconds: float = PICTURE_SECONDS,
) -> None:
    """Until it happened; it must within that time, and before the daemon ends."""
    deadline = time.monotonic() + seconds
    while not happened():
        if daemon.poll() is not None:
            assert daemon.stdout
            raise CheckFailed(f"picowatch ended before {what}:\n{daemon.stdout.read()}")
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what} did not come within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def check_stranger(container: Container) -> None:
    """A user of whom the image knows nothing gets a picture, too."""
    container.save_recipe()
    container("picowatch", "run", "--once")
    check_picture(container)
    say(f"ok  picowatch run --once: a picture for user {container.user}, unknown to the image")


def check_image(suite: str, folder: Path) -> None:
    """Everything, in a folder that is thrown away."""
    builder = Builder(folder / "store")
    with timed(f"a base by debootstrap, {suite}"):
        make_base(builder, suite, folder / "base")
    with timed("the image by buildah"):
        build(builder, folder)
    config = builder.config()
    user = config["User"]
    with container_of(builder, user, folder / "own") as container:
        check_packages(container)
        check_confinement(container)
        check_daemon(container, config)
    with container_of(builder, STRANGER, folder / "stranger") as container:
        check_stranger(container)


def main() -> int:
    """Exit code 0 if all is well, 1 if something is not, 2 if it cannot be tried here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm", help="Debian's release of the base")
    options = parser.parse_args()
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing or os.geteuid() != 0:
        say(f"This needs root and {', '.join(PROGRAMS)}. Missing: {', '.join(missing) or 'root'}.")
        return 2
    # What works everywhere, in containers too: no namespaces for the build, and plain folders.
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    folder = Path(tempfile.mkdtemp(prefix="picowatch-image-"))
    try:
        with timed("all of it"):
            check_image(options.suite, folder)
    except CheckFailed as failure:
        say(f"FAILED  {failure}")
        return 1
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)
    return 0


def unmount_below(folder: Path) -> None:
    """Whatever a program that was interrupted left mounted there must not be deleted with it."""
    points = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if point.is_relative_to(folder):
            subprocess.run(["umount", point], check=True)


if __name__ == "__main__":
    sys.exit(main())
