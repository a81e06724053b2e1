"""`picowatch doctor`: everything a bug report needs, each line OK or with its remedy."""

import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from picowatch.commands.doctor_checks import folder_findings, machine_findings
from picowatch.daemon.build import MakeEngine, build_daemon, check_folders, engine_options
from picowatch.engine.checks.torch_check import Finding, examine
from picowatch.engine.process.child import ChildEngine
from picowatch.errors import PicowatchError, SettingsInvalid
from picowatch.metadata import PICOWATCH, read_chunk
from picowatch.outbox.log import harmless
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.png import read_texts
from picowatch.outbox.status import Status
from picowatch.settings import LocalSettings, RaySettings, Settings

RECIPE = "prompt: a corgi on a blue background\ncheckpoint: demo\nseed: 1\n"
PLEASE = (
    "Start `picowatch run --debug`. If that does not show the cause, report it with these lines."
)


def doctor(
    load: Callable[[], Settings], as_json: bool, make_engine: MakeEngine = ChildEngine
) -> int:
    """Print each finding as it is found; exit code 1 if any is not OK."""
    findings = []
    for finding in _findings(load, make_engine):
        findings.append(finding)
        if not as_json:
            _print(finding)
    ok = all(finding.ok for finding in findings)
    if as_json:
        checks = [{**asdict(finding), "ok": finding.ok} for finding in findings]
        print(json.dumps({"ok": ok, "checks": checks}, indent=1))
    return 0 if ok else 1


def _print(finding: Finding) -> None:
    print(harmless(f"{'OK' if finding.ok else 'NOT OK':7} {finding.name:11} {finding.text}"))
    if finding.remedy:
        print(harmless(f"{'':19} -> {finding.remedy}"))
    sys.stdout.flush()


def _findings(load: Callable[[], Settings], make_engine: MakeEngine) -> Iterator[Finding]:
    yield from machine_findings()
    try:
        settings = load()
    except SettingsInvalid as error:
        yield Finding("settings", error.message, error.remedy or "Fix that line.")
        settings = Settings()
    else:
        changed = settings.model_dump(exclude_defaults=True, mode="json")
        if "executor" in changed:
            changed["executor"] = str(settings.executor)
        shown = ", ".join(f"{name}: {value}" for name, value in changed.items())
        yield Finding("settings", shown or "the defaults")
    try:
        check_folders(settings)
    except SettingsInvalid as error:
        yield Finding("folders", error.message, error.remedy or "Choose other folders.")
    else:
        yield from folder_findings(settings)
    engines = settings.executor.engines if isinstance(settings.executor, LocalSettings) else 1
    examined = examine(settings.device, settings.precision, engines)
    examined += _cluster_findings(settings)
    yield from examined
    if all(finding.ok for finding in examined):
        yield _picture(settings, make_engine)


def _cluster_findings(settings: Settings) -> list[Finding]:
    """The nodes of the cluster that the settings name."""
    if not isinstance(settings.executor, RaySettings) or settings.executor.address is None:
        return []
    from picowatch.engine.cluster.examining import examine_cluster

    return examine_cluster(engine_options(settings), settings.executor)


def _picture(settings: Settings, make_engine: MakeEngine) -> Finding:
    """The whole way from a save to a picture, in folders that are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="picowatch-doctor-") as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        (folder / "inbox/doctor.yaml").write_text(RECIPE)
        places = {name: folder / name for name in ("inbox", "outbox", "models")}
        changes = {**places, "checkpoint": None, "when_done": "keep", "file_name": "{number}"}
        changes["compile"] = "never"
        began = time.monotonic()
        try:
            why = _make(settings.model_copy(update=changes), make_engine)
        except (PicowatchError, OSError) as error:
            why = str(error)
        seconds = time.monotonic() - began
        picture = folder / "outbox/doctor/1.png"
        if why or not picture.exists():
            return Finding("picture", why or "no picture was rendered", PLEASE)
        chunk = read_chunk(read_texts(picture)[PICOWATCH])
        each = sum(chunk.rendered["timings"].values())
        size = chunk.rendered["size"]
        return Finding(
            "picture",
            f"{size} with the demo model in {each:.1f} s, {seconds:.1f} s including the start",
        )


def _make(settings: Settings, make_engine: MakeEngine) -> str:
    """Run the daemon once; gives why it failed, "" if it did not."""
    with ExitStack() as stack:
        daemon = build_daemon(
            settings,
            make_engine,
            _Silent(),
            stack,
            stop=threading.Event(),
            wake=threading.Event(),
            keeps_trying=False,
        )
        result = daemon.run(once=True)
        if result.succeeded:
            return ""
        return result.reason or Outbox(settings.outbox, settings.file_name).error("doctor.yaml")


class _Silent:
    """A console that shows nothing."""

    handler: logging.Handler = logging.NullHandler()

    def show(self, status: Status) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing is held."""
