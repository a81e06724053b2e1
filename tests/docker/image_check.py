"""Builds the image and makes pictures in it: `make image-check`.

With a Docker engine, the one that answers or a `dockerd` that is started for this: from `make up`
through a kill and an upgrade to `make down`. Without one, buildah runs it once with nothing but
chroot. The base is debootstrap's, which needs root; all of it lies in one folder, which goes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import yaml
from PIL import Image

from picowatch import __version__
from tests.docker.files import PROJECT, mounts, services
from tests.docker.pip_routes import serve_routes

# That of the base that the Dockerfile names.
SUITE = "bookworm"
NAME = "picowatch-check"
BASE = "localhost/picowatch-check-base"
UPGRADED = f"{__version__}.post1"
PROMPT = "a red circle on a blue background"
SEED = 7
# So many that neither a kill nor an upgrade comes too late.
BATCH = 100
# A user of whom nothing in the image knows, as compose's PUID may be.
UID = GID = 12345
PATIENCE_SECONDS = 900.0
# What Docker gives before it kills.
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1

say = partial(print, flush=True)


class CheckFailed(Exception):
    """What was found instead."""


class Checkout:
    """A copy of this one, whose folders the container sees as the compose file says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkout"
        (self.path / "cache").mkdir(parents=True)
        copy = f"git ls-files -z | xargs -0 cp --parents --target-directory={self.path}"
        output_of("sh", "-c", f"cd {PROJECT} && {copy}")
        for mount in mounts(services()["cpu"]):
            if mount.mode == "rw":
                os.chown(self.path / mount.source, UID, GID)

    def save(self, name: str, **fields: object) -> None:
        """A recipe into the inbox, which is read-only inside only."""
        recipe = {"prompt": PROMPT, "seed": SEED, "steps": 4, **fields}
        (self.path / f"inbox/{name}.yaml").write_text(yaml.safe_dump(recipe))


class Docker(Checkout):
    """An engine that answers, used by the commands that docs/docker.md names."""

    def take_base(self, tree: Path) -> None:
        """Make a folder an image, on which an override lets compose build ours."""
        output_of("sh", "-c", f"tar -C {tree} -c . | docker import - {BASE}")
        arguments = {"BASE": BASE, "TORCH_INDEXES": ""}
        build = {"network": "host", "secrets": ["pip"], "args": arguments}
        override = {name: {"image": f"{NAME}:{name}", "build": build} for name in services()}
        text = yaml.safe_dump({"services": override, "secrets": {"pip": {"file": "../pip.conf"}}})
        (self.path / "compose.override.yaml").write_text(text)
        values = {"CONTAINER": NAME, "COMPOSE_PROJECT_NAME": NAME, "PUID": UID, "PGID": GID}
        (self.path / ".env").write_text("".join(f"{key}={values[key]}\n" for key in values))

    def build(self) -> None:
        """Build the image and start picowatch, or upgrade it."""
        output_of("make", "-C", self.path, "up")

    def inside(self, *arguments: str) -> str:
        """Run a program beside picowatch; what it printed."""
        return output_of("docker", "exec", NAME, *arguments)

    def fact(self, name: str) -> str:
        """What `docker inspect` says of the container."""
        return output_of("docker", "inspect", f"--format={{{{.{name}}}}}", NAME)

    def seeds(self) -> list[int]:
        """Those of the batch's pictures, as the outbox lists them."""
        rows = map(json.loads, (self.path / "outbox/images.jsonl").read_text().splitlines())
        return sorted(row["seed"] for row in rows if row["recipe"] == "batch.yaml")

    def remove(self) -> None:
        """Leave nothing in an engine that is not ours."""
        gone = "docker compose --profile=cpu --profile=gpu down --volumes --rmi=all; docker rmi"
        subprocess.run(["sh", "-c", f"{gone} {BASE}"], cwd=self.path, capture_output=True)


class Buildah(Checkout):
    """buildah with a store of its own; a container runs as long as one command does."""

    def buildah(self, *arguments: object, network: bool = True) -> str:
        """Run it; what it printed."""
        store = [f"--root={self.folder}/root", f"--runroot={self.folder}/run"]
        apart = [] if network else ["unshare", "--net"]
        return output_of(*apart, "buildah", *store, *arguments)

    def take_base(self, tree: Path) -> None:
        """Make a folder an image."""
        # What works everywhere, in containers too: no namespaces for the build, and plain folders.
        os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
        name = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", name, tree, "/")
        self.buildah("commit", "--quiet", "--rm", name, BASE)

    def build(self) -> None:
        """Build the image."""
        arguments = [f"--build-arg=BASE={BASE}", "--build-arg=TORCH_INDEXES=", "--layers=false"]
        arguments += [f"--secret=id=pip,src={self.folder}/pip.conf", f"--tag={NAME}"]
        self.buildah("build", *arguments, self.path)
        self.buildah("from", f"--name={NAME}", NAME)
        (self.path / "picowatch.yaml").touch()

    def inside(self, *arguments: str) -> str:
        """Run a program; what it printed."""
        lent = [
            f"--volume={self.path / mount.source}:{mount.target}:{mount.mode}"
            for mount in mounts(services()["cpu"])
        ]
        run = ("run", f"--user={UID}:{GID}", *lent, NAME, "--", *arguments)
        return self.buildah(*run, network=False)


def output_of(*command: object) -> str:
    """Run a command that must succeed; what it printed."""
    words = list(map(str, command))
    if not shutil.which(words[0]):
        raise CheckFailed(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise CheckFailed(f"{' '.join(words)}\nended with {done.returncode}:\n{said}")
    return done.stdout.strip()


def expect(what: str, found: object, wanted: object) -> None:
    """It must be that."""
    if found != wanted:
        raise CheckFailed(f"{what}: {found!r} instead of {wanted!r}")
    say(f"ok  {what}: {found or 'none'}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    started = time.monotonic()
    yield
    say(f"ok  {what}: {time.monotonic() - started:.0f} s")


def wait(happened: Callable[[], object], what: str) -> None:
    """Until it happened; it must within some minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what} did not come within {PATIENCE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def find_engine(folder: Path, stack: ExitStack) -> Docker | Buildah:
    """A Docker engine if one answers or can be started, else buildah; says which."""
    try:
        compose = output_of("docker", "compose", "version", "--short")
        if subprocess.run(["docker", "ps"], capture_output=True).returncode:
            start_dockerd(folder, stack)
        engine = output_of("docker", "version", "--format={{.Server.Version}}")
    except (CheckFailed, FileNotFoundError) as failure:
        reason = " ".join(str(failure).splitlines()[:2])
        say(f"--  by buildah, without restart and upgrade. No Docker engine: {reason}")
        return Buildah(folder)
    say(f"--  by Docker {engine} with compose {compose}")
    docker = Docker(folder)
    stack.callback(docker.remove)
    return docker


def start_dockerd(folder: Path, stack: ExitStack) -> None:
    """An engine of our own, without a bridge, which few containers may make."""
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    options = {"hosts": [os.environ["DOCKER_HOST"]], "iptables": False, "bridge": "none"}
    options |= {"data-root": f"{folder}/data", "exec-root": f"{folder}/exec"}
    (folder / "daemon.json").write_text(json.dumps({**options, "pidfile": f"{folder}/dockerd.pid"}))
    log = folder / "dockerd.log"
    with log.open("w") as output:
        command = ["dockerd", f"--config-file={folder}/daemon.json"]
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
    stack.callback(daemon.wait)
    stack.callback(daemon.terminate)
    wait(lambda: daemon.poll() is not None or "API listen on" in log.read_text(), "dockerd")
    if daemon.poll() is not None:
        raise CheckFailed(log.read_text().splitlines()[-1])


def check_confinement(engine: Docker | Buildah) -> None:
    """Who it is, and what it cannot do."""
    expect("user", engine.inside("sh", "-c", "echo $(id -u):$(id -g)"), f"{UID}:{GID}")
    networks = engine.inside("sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | xargs")
    expect("networks", networks, "lo")
    places = "/data/inbox /data/models /data /opt/picowatch/bin /etc"
    # Where any user may write, unless the root is read-only.
    places += " /var/tmp" if isinstance(engine, Docker) else ""
    script = f"for place in {places}; do touch $place/x && echo $place; done 2> /dev/null; true"
    expect(f"can write of {places}", engine.inside("sh", "-c", script), "")


def check_picture(engine: Docker | Buildah) -> None:
    """A recipe becomes one that is whole, holds its settings, and is the user's."""
    engine.save("circle")
    if isinstance(engine, Buildah):
        engine.inside("picowatch", "run", "--once")
    picture = engine.path / f"outbox/circle/0001-{SEED}.png"
    wait(picture.exists, "the picture")
    expect("owner of the picture", picture.stat().st_uid, UID)
    with Image.open(picture) as image:
        image.load()
        expect("prompt in the picture", image.info["parameters"].splitlines()[0], PROMPT)


def check_batch(engine: Docker) -> None:
    """Each picture of a batch is made once, in spite of a kill and an upgrade."""
    engine.save("batch", steps=20, count=BATCH)
    wait(engine.seeds, "the first picture of a batch")
    os.kill(int(engine.fact("State.Pid")), signal.SIGKILL)
    with timed("kill -9, restart, next picture"):
        wait(lambda: engine.fact("RestartCount") == "1", "the restart after a kill")
        killed = len(engine.seeds())
        wait(lambda: len(engine.seeds()) > killed, "a picture after the restart")
    source = engine.path / "picowatch/__init__.py"
    source.write_text(source.read_text().replace(__version__, UPGRADED))
    with timed("make up, an upgrade"):
        engine.build()
    upgraded = len(engine.seeds())
    expect("version", engine.inside("picowatch", "--version"), f"picowatch {UPGRADED}")
    expect("pictures left for it", upgraded < BATCH, True)
    wait(lambda: len(engine.seeds()) >= BATCH, "the rest of the batch")
    started = time.monotonic()
    output_of("make", "-C", engine.path, "down")
    expect("make down in time", time.monotonic() - started < STOP_SECONDS, True)
    expect("containers left", output_of("docker", "ps", "-aq", f"--filter=name={NAME}"), "")
    expect("pictures once each", engine.seeds() == list(range(SEED, SEED + BATCH)), True)
    expect("their files", len(list((engine.path / "outbox/batch").glob("*.png"))), BATCH)


def check_image(engine: Docker | Buildah) -> None:
    """Everything."""
    tree = engine.folder / "base"
    with timed(f"a base by debootstrap, {SUITE}"):
        packages = "--include=python3-venv,ca-certificates"
        output_of("debootstrap", "--variant=minbase", packages, SUITE, tree)
    with serve_routes(tree, engine.folder / "served") as config:
        (engine.folder / "pip.conf").write_text(config)
        engine.take_base(tree)
        with timed("the image"):
            engine.build()
        expect("version", engine.inside("picowatch", "--version"), f"picowatch {__version__}")
        expect("pip check", engine.inside("pip", "check"), "No broken requirements found.")
        check_confinement(engine)
        check_picture(engine)
        if isinstance(engine, Docker):
            with timed("(healthy)"):
                wait(lambda: engine.fact("State.Health.Status") == "healthy", "(healthy)")
            once = f"echo {PROMPT} > inbox/x.txt; picowatch run --once > /dev/null; ls outbox/x"
            words = ("--rm", "--network=none", "--entrypoint=sh", engine.fact("Config.Image"))
            made = output_of("docker", "run", *words, "-c", f"{once} | wc -l")
            expect("pictures of docker run, by the image's own user", made, "1")
            check_batch(engine)


def main() -> int:
    """Exit code 0 if all is well, 1 if something is not, 2 if it cannot be tried here."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        say("This needs root, debootstrap, and dockerd with its compose plugin or buildah.")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="picowatch-image-"))
    try:
        with timed("all of it"), ExitStack() as stack:
            check_image(find_engine(folder, stack))
    except CheckFailed as failure:
        say(f"FAILED  {failure}")
        for log in folder.glob("checkout/outbox/picowatch.log"):
            say(log.read_text()[-4000:])
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
