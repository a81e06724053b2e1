"""`picowatch doctor`: everything a bug report needs, each line OK or with its remedy."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from picowatch import __version__, errors
from picowatch.catalog import Catalog
from picowatch.catalog.models import FOLDERS as KINDS
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.run import Mode
from picowatch.daemon.supervise import run_daemon
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.protocol import EngineLost, versions
from picowatch.metadata.embedded_text import chunk_of
from picowatch.observers.console import PlainConsole
from picowatch.outbox.status import is_running
from picowatch.recipe.installed import NotInstalled, find_checkpoint
from picowatch.settings.settings import Settings
from picowatch.settings.values import RaySettings
from picowatch.sources import FOLDERS
from picowatch.streams import harmless

RECIPE = "prompt: a corgi on a blue background\ncheckpoint: demo\nseed: 1\n"
REPORT_IT = (
    "If that does not help, start `picowatch run --debug`, and report what it shows with these "
    "lines."
)
FREE_SPACE = "Free some space, or set TMPDIR to a folder that you can write to."
# The settings that the test image is rendered with, as they may be what fails.
FOR_ENGINES = ("device", "precision", "memory", "batch_size", "executor", "stall_seconds", "graphs")
LITTLE_MEMORY = 1.5e9
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CARDS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))  # NVIDIA's, and those of Windows
LITTLE_SPACE = 1e9


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and the remedy if it is not OK."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy


def main(
    options: Namespace, load: Callable[[], Settings], make_engine: MakeEngine = ChildEngine
) -> int:
    """Print each check as it is found; exit code 1 if any is not OK."""
    checks: list[Check] = []
    for check in _checks(load, make_engine):
        checks.append(check)
        if not options.json:
            state = "OK" if check.ok else "NOT OK"
            print(harmless(f"{state:7} {check.name:11} {check.text}"), flush=True)
            if check.remedy:
                print(harmless(f"{'':19} -> {check.remedy}"), flush=True)
    ok = all(check.ok for check in checks)
    if options.json:
        shown = [{**asdict(check), "ok": check.ok} for check in checks]
        print(json.dumps({"ok": ok, "checks": shown}, indent=1))
    return errors.SUCCEEDED if ok else errors.FAILED


def _checks(load: Callable[[], Settings], make_engine: MakeEngine) -> Iterator[Check]:
    """Yield the checks in the order of a bug report."""
    yield Check("picowatch", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Check("Python", f"{platform.python_version()}, {sys.executable}")
    yield Check("system", f"{platform.platform()}, {os.cpu_count()} cores")
    yield _memory()
    yield from _cards()
    try:
        settings = load()
    except errors.SettingsInvalid as error:
        yield Check("settings", error.message, error.remedy or "Fix that line.")
        settings = Settings()
    else:
        changed = settings.model_dump(exclude_defaults=True, mode="json")
        if "executor" in changed:
            changed["executor"] = str(settings.executor)
        if "hooks" in changed:  # their arguments may be secret
            changed["hooks"] = {event: program for event, (program, *_) in settings.hooks.items()}
        shown = ", ".join(f"{name}: {value}" for name, value in changed.items())
        yield Check("settings", shown or "the defaults")
    try:
        check_folders(settings)
    except errors.SettingsInvalid as error:
        yield Check("folders", error.message, error.remedy or "Choose other folders.")
    else:
        yield _inbox(settings)
        yield _outbox(settings)
        yield _models(settings)
    if isinstance(settings.executor, RaySettings):
        yield (cluster := _cluster(settings.executor))
        if not cluster.ok:
            return
    try:
        yield from _picture(settings, make_engine)
    except (errors.PicowatchError, OSError) as error:
        yield _libraries(versions())
        remedy = REPORT_IT if isinstance(error, errors.PicowatchError) else FREE_SPACE
        yield Check("picture", str(error), remedy)


def _cluster(executor: RaySettings) -> Check:
    if find_spec("ray") is None:
        remedy = f"Install it: {errors.install_command('ray')}"
        return Check("cluster", "executor: ray needs Ray, which is not installed", remedy)
    from picowatch.engine.process.ray import cluster_parts

    try:
        return Check("cluster", cluster_parts(executor))
    except EngineLost as away:
        return Check("cluster", away.message, away.remedy)


def _picture(settings: Settings, make_engine: MakeEngine) -> Iterator[Check]:
    """The whole way from a save to a picture, in temporary folders, and what rendered it."""
    with tempfile.TemporaryDirectory(prefix="picowatch-doctor-") as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        (folder / "inbox/doctor.yaml").write_text(RECIPE)
        own: dict[str, Any] = {name: folder / name for name in FOLDERS} | {"file_name": "{number}"}
        engine = {name: getattr(settings, name) for name in FOR_ENGINES}
        trial, began = Settings(**own, **engine), time.monotonic()
        console = PlainConsole(StringIO())  # the check says what matters
        result, interrupted = run_daemon(trial, make_engine, console, Mode(once=True))
        if interrupted:
            raise KeyboardInterrupt
        if not result.succeeded:
            if not (why := result.reason):
                lines = (trial.outbox / "failures.jsonl").read_text().splitlines()
                why = json.loads(lines[-1])["reason"] if lines else "no picture was rendered"
            raise errors.RenderFailed(why)
        seconds = time.monotonic() - began
        rendered = chunk_of(folder / "outbox/doctor/1.png").rendered
    yield _libraries(rendered["versions"])
    yield _device(settings, rendered)
    if settings.graphs and rendered["device"].startswith("cuda"):
        unused = "" if rendered["compiled"] == "graph" else "not "
        yield Check("graphs", f"CUDA graphs are {unused}used")
    if settings.compile and rendered["device"] == "cpu" and not find_spec("openvino"):
        remedy = f"Install it: {errors.install_command('openvino')}; or set compile: false."
        yield Check("compile", "OpenVINO is not installed, so nothing is compiled", remedy)
    each = sum(rendered["timings"].values())
    speed = f"in {each:.1f} s, {seconds:.1f} s including the start"
    yield Check("picture", f"{rendered['size']} with the demo model {speed}")


def _libraries(found: Mapping[str, str]) -> Check:
    return Check("libraries", ", ".join(map(" ".join, found.items())))


def _device(settings: Settings, rendered: Mapping[str, Any]) -> Check:
    """Return what rendered the picture; the CPU is not OK beside a card that torch cannot use."""
    device, precision = rendered["device"], rendered["precision"]
    text = f"{device}, {precision} (device: {settings.device}, precision: {settings.precision})"
    unused = settings.device == "auto" and device == "cpu" and "node" not in rendered
    if unused and any(path.exists() for path in CARDS):
        page = "https://pytorch.org/get-started/locally/"
        remedy = f"Update its driver, or choose a build of torch for it at {page}."
        return Check("device", f"{text}, though there is an NVIDIA card", remedy)
    return Check("device", text)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    free = memory.available
    text = f"{free / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(CONTAINER_LIMIT.read_text())
        text += f", this container may use {limit / 1e9:.1f} GB"
        free = min(free, limit)
    remedy = "Close other programs, or give the container more."
    return Check("memory", text, remedy if free < LITTLE_MEMORY else "")


def _cards() -> Iterator[Check]:
    """Yield NVIDIA's cards, their driver and memory, as far as its own program tells."""
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        for row in result.stdout.splitlines():
            name, driver, free, total = row.split(", ")
            yield Check("card", f"{name}, driver {driver}, {free} of {total} are free")


def _inbox(settings: Settings) -> Check:
    writable = os.access(settings.inbox, os.W_OK)
    text = _described(settings.inbox) + ("" if writable else ", read-only")
    if writable or settings.when_done == "keep":
        return Check("inbox", text)
    why = f"when_done: {settings.when_done} must delete recipes"
    return Check("inbox", text, f"{why}: make the inbox writable, or set keep.")


def _outbox(settings: Settings) -> Check:
    existing = settings.outbox
    while not existing.exists():
        existing = existing.resolve().parent
    free = shutil.disk_usage(existing).free
    text = f"{_described(settings.outbox)}, {free / 1e9:.1f} GB free"
    if is_running(settings.outbox):
        text += ", a picowatch is using it"
    remedy = "Free some space: while the disk is full, picowatch renders nothing."
    return Check("outbox", text, remedy if free < LITTLE_SPACE else "")


def _models(settings: Settings) -> Check:
    named = settings.names_models
    catalog = Catalog(settings.models, settings.hash_cache, keep_hashes=False, must_exist=named)
    found = catalog.scan()
    counts = ", ".join(f"{len(found.of_kind(kind))} {kind}" for kind in KINDS)
    text = f"{_described(settings.models)}: {counts}"
    if found.refused:
        text += f"; {len(found.refused)} refused (see `picowatch models`)"
    inventory = catalog.inventory(settings.checkpoint)
    if settings.checkpoint is not None:
        try:
            find_checkpoint(settings.checkpoint, inventory)
        except NotInstalled as error:
            return Check("models", f"{text}: {error}", "Change the setting checkpoint.")
    if inventory.unusable_checkpoint and not inventory.checkpoints:
        why = f"No checkpoint can be used: {inventory.unusable_checkpoint}"
        remedy = "Fix that, or write checkpoint: demo into picowatch.yaml or the recipes."
        return Check("models", f"{text}. {why}", remedy)
    return Check("models", text)


def _described(folder: Path) -> str:
    """The folder and its file system, if the system knows it."""
    path = folder.resolve()
    every = psutil.disk_partitions(all=True)
    mounts = [mount for mount in every if path.is_relative_to(mount.mountpoint)]
    # If several mounts are on one point, the last mount is visible.
    kind = max(reversed(mounts), key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    there = "" if folder.exists() else ", not created yet"
    return f"{folder}{f' ({kind})' if kind else ''}{there}"
