"""`picowatch doctor`: everything a bug report needs, each line OK or with its remedy."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from picowatch import __version__
from picowatch.catalog import Catalog
from picowatch.catalog.models import FOLDERS
from picowatch.daemon.build import MakeEngine, build_daemon, check_folders
from picowatch.engine.child import ChildEngine
from picowatch.engine.protocol import EngineLost
from picowatch.errors import FAILED, SUCCEEDED, PicowatchError, SettingsInvalid, install_command
from picowatch.inbox.names import is_searched
from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.observers.console import PlainConsole
from picowatch.outbox.status import is_running
from picowatch.recipe.resolve.installed import NotInstalled, find_checkpoint
from picowatch.settings import RaySettings, Settings
from picowatch.streams import harmless

RECIPE = "prompt: a corgi on a blue background\ncheckpoint: demo\nseed: 1\n"
REPORT_IT = (
    "Start `picowatch run --debug`. If that does not show the cause, report it with these lines."
)
LITTLE_MEMORY = 1.5e9
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CARDS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))  # NVIDIA's, and those of Windows
LITTLE_SPACE = 1e9
_FASTER = "the steps of many pictures of one size are faster (docs/speed.md)"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and the remedy if it is not OK."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    return doctor(load, as_json=options.json)


def doctor(
    load: Callable[[], Settings], as_json: bool, make_engine: MakeEngine = ChildEngine
) -> int:
    """Print each check as it is found; exit code 1 if any is not OK."""
    checks: list[Check] = []
    for check in _checks(load, make_engine):
        checks.append(check)
        if not as_json:
            _print(check)
    ok = all(check.ok for check in checks)
    if as_json:
        shown = [{**asdict(check), "ok": check.ok} for check in checks]
        print(json.dumps({"ok": ok, "checks": shown}, indent=1))
    return SUCCEEDED if ok else FAILED


def _print(check: Check) -> None:
    print(harmless(f"{'OK' if check.ok else 'NOT OK':7} {check.name:11} {check.text}"))
    if check.remedy:
        print(harmless(f"{'':19} -> {check.remedy}"))
    sys.stdout.flush()


def _checks(load: Callable[[], Settings], make_engine: MakeEngine) -> Iterator[Check]:
    yield from _machine_checks()
    try:
        settings = load()
    except SettingsInvalid as error:
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
    except SettingsInvalid as error:
        yield Check("folders", error.message, error.remedy or "Choose other folders.")
    else:
        yield from _folder_checks(settings)
    if isinstance(settings.executor, RaySettings):
        yield (cluster := _cluster(settings.executor))
        if not cluster.ok:
            return
    yield from _picture(settings, make_engine)


def _compiling(settings: Settings) -> Check:
    """Whether OpenVINO computes the steps on this CPU, and what that would take."""
    install = install_command("openvino")
    if find_spec("openvino"):
        return Check("compile", "by OpenVINO" if settings.compile else f"off. On, {_FASTER}")
    if settings.compile:
        remedy = f"Install it: {install}; or set compile: false."
        return Check("compile", "OpenVINO is not installed, so nothing is compiled", remedy)
    return Check("compile", f"off. On, {_FASTER}. It needs OpenVINO: {install}")


def _cluster(executor: RaySettings) -> Check:
    """The cluster that the settings name."""
    if find_spec("ray") is None:
        remedy = f"Install it: {install_command('ray')}"
        return Check("cluster", "executor: ray needs Ray, which is not installed", remedy)
    from picowatch.engine.ray import cluster_parts

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
        folders = {name: folder / name for name in ("inbox", "outbox", "models")}
        changes: dict[str, Any] = {
            **folders,
            "checkpoint": None,
            "when_done": "keep",
            "file_name": "{number}",
        }
        changes |= {"compile": False, "format": "png", "quality": "auto", "sidecar": "none"}
        changes |= {"hooks": {}, "metrics_address": None}
        began = time.monotonic()
        try:
            why = _render(settings.model_copy(update=changes), make_engine)
        except (PicowatchError, OSError) as error:
            why = str(error)
        seconds = time.monotonic() - began
        picture = folder / "outbox/doctor/1.png"
        if why or not picture.exists():
            yield Check("picture", why or "no picture was rendered", REPORT_IT)
            return
        rendered = read_chunk(read_texts(picture)[PICOWATCH]).rendered
    versions = rendered["versions"].items()
    yield Check("libraries", ", ".join(f"{name} {version}" for name, version in versions))
    yield _device(settings, rendered)
    if rendered["device"] == "cpu":
        yield _compiling(settings)
    each = sum(rendered["timings"].values())
    yield Check(
        "picture",
        f"{rendered['size']} with the demo model in {each:.1f} s, {seconds:.1f} s including the "
        "start",
    )


def _device(settings: Settings, rendered: Mapping[str, Any]) -> Check:
    """What rendered the picture: the CPU, though there is a card, where torch cannot use that."""
    device, precision = rendered["device"], rendered["precision"]
    text = f"{device}, {precision} (device: {settings.device}, precision: {settings.precision})"
    unused = settings.device == "auto" and device == "cpu" and "node" not in rendered
    if unused and any(path.exists() for path in CARDS):
        return Check(
            "device",
            f"{text}, though there is an NVIDIA card",
            "Update its driver, or choose a build of torch for it at "
            "https://pytorch.org/get-started/locally/.",
        )
    return Check("device", text)


def _render(settings: Settings, make_engine: MakeEngine) -> str:
    """Run the daemon once; returns why it failed, "" if it did not."""
    with ExitStack() as stack:
        daemon = build_daemon(
            settings,
            make_engine,
            PlainConsole(StringIO()),  # the check says what matters
            stack,
            stop=threading.Event(),
            wake=threading.Event(),
            keeps_trying=False,
        )
        result = daemon.run(once=True)
        if result.succeeded:
            return ""
        return result.reason or (settings.outbox / "doctor.yaml.error.txt").read_text()


def _machine_checks() -> Iterator[Check]:
    """Return the checks of the machine, in the order of a bug report."""
    yield Check("picowatch", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Check("Python", f"{platform.python_version()}, {sys.executable}")
    yield Check("system", f"{platform.platform()}, {os.cpu_count()} cores")
    yield _memory()
    for card in _cards():
        yield Check("card", card)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    free = memory.available
    text = f"{free / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(CONTAINER_LIMIT.read_text())
        text += f", this container may use {limit / 1e9:.1f} GB"
        free = min(free, limit)
    if free < LITTLE_MEMORY:
        return Check("memory", text, "Close other programs, or give the container more.")
    return Check("memory", text)


def _cards() -> list[str]:
    """NVIDIA's cards, their driver and memory, as far as its own program tells."""
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    command = ["nvidia-smi", query, "--format=csv"]
    with suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.splitlines()[1:]
    return []


def _folder_checks(settings: Settings) -> Iterator[Check]:
    """Check an inbox that exists and an outbox that can be written."""
    yield _inbox(settings)
    yield _watch(settings)
    yield _outbox(settings)
    yield _models(settings)


def _inbox(settings: Settings) -> Check:
    writable = os.access(settings.inbox, os.W_OK)
    text = _described(settings.inbox) + ("" if writable else ", read-only")
    if not writable and settings.when_done != "keep":
        return Check(
            "inbox",
            text,
            f"when_done: {settings.when_done} must delete recipes: make the inbox writable, or "
            "set keep.",
        )
    return Check("inbox", text)


def _watch(settings: Settings) -> Check:
    """How the daemon notices saves."""
    count = _count_folders(settings.inbox.resolve())
    folders = f"{count} folder{'' if count == 1 else 's'}"
    return Check("watch", f"{folders}, looked at every few seconds, and at once after file events")


def _count_folders(inbox: Path) -> int:
    count = 0
    for _, folders, _ in os.walk(inbox):
        folders[:] = filter(is_searched, folders)
        count += 1
    return count


def _outbox(settings: Settings) -> Check:
    existing = settings.outbox
    while not existing.exists():
        existing = existing.resolve().parent
    free = shutil.disk_usage(existing).free
    text = f"{_described(settings.outbox)}, {free / 1e9:.1f} GB free"
    if is_running(settings.outbox):
        text += ", a picowatch is using it"
    if free < LITTLE_SPACE:
        return Check(
            "outbox", text, "Free some space: while the disk is full, picowatch renders nothing."
        )
    return Check("outbox", text)


def _models(settings: Settings) -> Check:
    catalog = Catalog(settings.models, settings.hash_cache, keep_hashes=False)
    found = catalog.scan()
    counts = {kind: len(found.of_kind(kind)) for kind in FOLDERS}
    text = f"{_described(settings.models)}: " + ", ".join(
        f"{n} {kind}" for kind, n in counts.items()
    )
    if found.refused:
        text += f"; {len(found.refused)} refused (see `picowatch models`)"
    inventory = catalog.inventory(settings.checkpoint, must_exist=settings.names_models)
    if settings.checkpoint is not None:
        try:
            find_checkpoint(settings.checkpoint, inventory)
        except NotInstalled as error:
            return Check("models", f"{text}: {error}", "Change the setting checkpoint.")
    if inventory.unusable_checkpoint and not inventory.checkpoints:
        return Check(
            "models",
            f"{text}. No checkpoint can be used: {inventory.unusable_checkpoint}",
            "Fix that, or write checkpoint: demo into picowatch.yaml or the recipes.",
        )
    return Check("models", text)


def file_system_type(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `folder`, or "" where the system does not say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = Path(), ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        # Of several mounts on one point, the last one is visible.
        if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[2]
    return kind


def _described(folder: Path) -> str:
    """The folder and its file system."""
    kind = file_system_type(folder.resolve())
    there = "" if folder.exists() else ", not created yet"
    return f"{folder}{f' ({kind})' if kind else ''}{there}"
