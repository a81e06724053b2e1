"""picowatch.yaml is read again when it is saved: through a daemon, by what it logs and does."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from picowatch.daemon.settings_file import SettingsFile
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings, load_settings, takes_effect_at_once
from tests.digest_engine import DigestEngine, digest_pixels
from tests.house import PATIENCE, SETTLE_SECONDS, House, wait_for

# Another value than the default, for every setting.
OTHERS: dict[str, Any] = {
    "inbox": "elsewhere", "outbox": "elsewhere", "models": "elsewhere", "checkpoint": "demo",
    "settle_seconds": 0.06, "rescan_seconds": 50, "watch": "polling", "when_done": "archive",
    "interrupt": True, "device": "cpu", "precision": "float32", "memory": "low", "batch_size": 2,
    "compile": True, "executor": "local:2", "unload_after_minutes": 3, "stall_seconds": 500,
    "max_attempts": 3, "max_images_per_save": 2, "max_picture_megapixels": 1,
    "file_name": "{number}", "format": "webp", "quality": 50, "sidecar": "txt",
    "log_format": "json", "preview_seconds": 2, "hooks": {"idle": "true"}, "hook_seconds": 9,
    "metrics_address": ":9464",
}  # fmt: skip
OWN = f"settle_seconds: {SETTLE_SECONDS}\n"


def in_place(path: Path, text: str) -> None:
    """Most editors, and `>`."""
    path.write_text(text)


def by_renaming(path: Path, text: str) -> None:
    """sed -i, rsync, GLib, VS Code on some mounts: a temporary file takes its place."""
    new = path.with_name(".picowatch.yaml.tmp")
    new.write_text(text)
    new.rename(path)


def moved_away_first(path: Path, text: str) -> None:
    """vim and Emacs: the old file is the backup, and the new one another file."""
    path.rename(path.with_name("picowatch.yaml~"))
    path.write_text(text)


def line_by_line(path: Path, text: str) -> None:
    """A script; each prefix is valid."""
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()


@pytest.fixture
def file(house: House) -> SettingsFile:
    path = house.folder / "picowatch.yaml"
    path.write_text(OWN)
    flags = {"inbox": house.inbox, "outbox": house.outbox, "models": house.models}
    return SettingsFile(path, lambda: load_settings(flags, {}, path))


def logged(house: House, words: str) -> None:
    wait_for(lambda: words in house.log(), words)


def test_an_invalid_file_changes_nothing_and_is_answered_until_it_is_fixed(
    house: House, file: SettingsFile
) -> None:
    """In each way in which editors save; what is right takes effect for the next save."""
    error = house.outbox / "settings.error.txt"
    ways = [in_place, by_renaming, moved_away_first, line_by_line]
    with house.running(settings_file=file):
        for number, save in enumerate(ways, 1):
            save(file.path, f"{OWN}max_images_per_save:  many # x\n")
            wait_for(error.exists, "the error file")
            assert error.read_text() == (
                f"{file.path}, line 2, column 23\n\n"
                "    2 | max_images_per_save:  many # x\n"
                "                              ^^^^\n"
                "max_images_per_save 'many': it must be a whole number from 1 to 1,000,000.\n\n"
                "The settings stay as they were. Fix the file and save it again.\n"
            )
            wait_for(lambda: "line 2, column 23" in str(house.status()["errors"]), "the status")
            save(file.path, f"{OWN}max_images_per_save: {number}\n")
            logged(house, f"picowatch.yaml: saved, max_images_per_save is {number} now")
            assert not error.exists()
            wait_for(lambda: house.status()["errors"] == [], "the status")
        house.save("a.yaml", f"prompt: a\nseed: 1..{len(ways)}\n")
        wait_for(lambda: len(house.pictures("a")) == len(ways), "the pictures")
        house.save("b.yaml", f"prompt: a\nseed: 1..{len(ways) + 1}\n")
        wait_for(lambda: f"may request {len(ways)} " in (house.error("b.yaml") or ""))
        file.path.write_text("settle_secs: 1\n")
        logged(house, "line 1, column 1: unknown setting 'settle_secs'.")
        file.path.write_text("hooks: [\n")
        logged(house, "line 2, column 1: not valid YAML")
        file.path.unlink()
        logged(house, "is gone; its settings stay in force")
    assert house.log().count("The settings stay as they were.") == len(ways) + 2
    assert "needs a restart" not in house.log()


def test_each_setting_takes_effect_or_says_that_it_needs_a_restart(
    house: House, file: SettingsFile
) -> None:
    """As the table of settings says; every setting is covered."""
    assert OTHERS.keys() == Settings.model_fields.keys()
    without_flags = SettingsFile(file.path, lambda: load_settings({}, {}, file.path))
    with house.running(settings_file=without_flags):
        file.path.write_text(yaml.safe_dump(OTHERS))
        logged(house, "when_done is archive now")
        logged(house, "interrupt is true now")
        file.path.write_text("")
        logged(house, "checkpoint is not set now")
    log = house.log()
    for name in Settings.model_fields:
        at_once = f"picowatch.yaml: saved, {name} is " in log
        later = f"picowatch.yaml: saved, {name} needs a restart of picowatch" in log
        assert (at_once, later) == (takes_effect_at_once(name), not takes_effect_at_once(name))


def test_what_takes_effect_is_what_is_done(house: House, file: SettingsFile) -> None:
    """Batches, the archive, and the flags that still override the file."""
    with house.running(settings_file=file, batch_size=8):
        file.path.write_text("batch_size: 2\nwhen_done: archive\ninbox: elsewhere\n")
        logged(house, "when_done is archive now")
        house.save("a.yaml", "prompt: a\nseed: 1..4\n")
        wait_for(lambda: (house.outbox / "a/a.yaml").exists(), "the archive")
    assert [len(batch) for batch in house.engine.batches] == [2, 2]
    assert "inbox needs a restart" not in house.log()


def test_a_shorter_rescan_does_not_wait_for_the_one_before(
    house: House, file: SettingsFile
) -> None:
    """A write through a hard link outside of the inbox has no event there."""
    path = house.save("a.yaml", "prompt: a\nseed: 1\n")
    (house.folder / "elsewhere").hardlink_to(path)
    with house.running(settings_file=file):
        wait_for(lambda: house.prompts("a") == ["a"], "the first picture")
        (house.folder / "elsewhere").write_text("prompt: b\nseed: 1\n")
        file.path.write_text(f"{OWN}rescan_seconds: 1\n")
        wait_for(lambda: house.prompts("a") == ["a", "b"], "what only a rescan finds")


def test_pictures_follow_their_settings_from_the_next_on(house: House, file: SettingsFile) -> None:
    """Those in progress keep the names that they have; each image is made once."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(batch: object) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    house.engine.before_batch = hold
    house.save("a.yaml", "prompt: a\nseed: 1..5\ngrid: true\n")
    own = f"{OWN}batch_size: 2\n"
    file.path.write_text(own)
    new = f"{own}format: webp\nquality: lossless\nsidecar: txt\npreview_seconds: 0\n"
    with house.running(settings_file=file, batch_size=2):
        assert begun.wait(PATIENCE)
        assert house.engine.preview_seconds == 1
        file.path.write_text(f"{new}file_name: '{{seed}}'\n")
        logged(house, "file_name '{seed}' needs {number}")
        assert "line 7, column 12" in (house.outbox / "settings.error.txt").read_text()
        assert "format is webp" not in house.log()
        file.path.write_text(f"{new}file_name: '{{seed}}-{{number}}'\n")
        logged(house, "file_name is {seed}-{number} now")
        go_on.set()
        wait_for(lambda: "contact sheet" in house.log(), "the sheet")
    assert house.engine.preview_seconds == 0
    pictures = ["0001-1.png", "0002-2.png", "3-3.webp", "4-4.webp", "5-5.webp"]
    assert house.pictures("a") == [f"a/{name}" for name in sorted([*pictures, "0006-sheet.webp"])]
    assert sorted(line["file"] for line in house.listed()) == [f"a/{name}" for name in pictures]
    assert [line["seed"] for line in house.listed()] == [1, 2, 3, 4, 5]
    assert len(list((house.outbox / "a").glob("*.txt"))) == len(pictures)
    with Image.open(house.outbox / "a/5-5.webp") as picture:
        assert picture.tobytes() == digest_pixels(house.chunk("a/5-5.webp").request)
    assert (house.outbox / "latest.webp").exists() and not (house.outbox / "latest.png").exists()


def test_a_name_that_is_reserved_is_not_given_again(house: House, file: SettingsFile) -> None:
    """Number 1 of seed 2, in progress, is 1-2; so would be seed 1, number 2, under the new name."""
    go_on = threading.Event()
    engines: list[DigestEngine] = []

    def hold(batch: Sequence[ImageRequest]) -> None:
        if batch[0].seed == 2:
            assert go_on.wait(PATIENCE)

    def make(_: object) -> DigestEngine:
        engines.append(DigestEngine(before_batch=hold))
        return engines[-1]

    house.make_engine = make
    own = f"{OWN}executor: local:2\n"
    file.path.write_text(f"{own}file_name: '{{number}}-{{seed}}'\n")
    with house.running(settings_file=file, executor="local:2", file_name="{number}-{seed}"):
        house.save("a.yaml", "prompt: a\nseed: 2\n")
        wait_for(lambda: any(one.batches for one in engines), "the first image")
        file.path.write_text(f"{own}file_name: '{{seed}}-{{number}}'\nformat: webp\n")
        logged(house, "file_name is {seed}-{number} now")
        house.save("a.yaml", "prompt: a\nseed: [2, 1]\n")
        wait_for(lambda: house.pictures("a"), "the second image")
        go_on.set()
        wait_for(lambda: len(house.pictures("a")) == 2, "both")
    assert house.pictures("a") == ["a/1-2.png", "a/1-3.webp"]
    assert house.seeds("a") == [2, 1]


def test_hooks_are_those_that_are_set_when_their_turn_comes(
    house: House, file: SettingsFile
) -> None:
    """A program that hangs is replaced: calls that wait run the new one, once each, then none."""
    told = house.folder / "told"
    hang = "[sh, -c, 'echo hangs >> told; exec sleep 100']".replace("told", str(told))
    tell = f"[sh, -c, 'basename \"$1\" >> {told}', of]"
    file.path.write_text(f"{OWN}hooks: {{picture: {hang}}}\n")
    with house.running(settings_file=file):
        logged(house, "hooks is {'picture': 'sh'} now")
        house.save("a.yaml", "prompt: a\nseed: 1..3\n")
        wait_for(lambda: len(house.pictures()) == 3 and told.exists(), "the pictures")
        # Long enough for the new one on a busy machine: it has that time, too.
        file.path.write_text(f"{OWN}hooks: {{picture: {tell}}}\nhook_seconds: 5\n")
        logged(house, "hook_seconds is 5.0 now")
        house.save("b.yaml", "prompt: a\nseed: 4\n")
        wait_for(lambda: len(told.read_text().split()) == 4, "the calls")
        file.path.write_text(OWN)
        logged(house, "hooks is {} now")
        house.save("c.yaml", "prompt: a\nseed: 5\n")
        wait_for(lambda: house.pictures("c"), "a picture without a hook")
    assert told.read_text().split() == ["hangs", "0002-2.png", "0003-3.png", "0001-4.png"]
