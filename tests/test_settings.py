"""What settings take, in the file, the environment and in Python."""

import os
import threading
from pathlib import Path

import pytest

from picowatch.errors import SettingsInvalid
from picowatch.settings import LocalSettings, RaySettings, Settings, load_settings


def executor(text: str) -> object:
    return load_settings({}, {"PICOWATCH_EXECUTOR": text}).executor


def test_executors_by_name() -> None:
    """One engine, several, a cluster."""
    assert executor("local") == executor("local:1") == LocalSettings() == Settings().executor
    assert executor("local:4") == LocalSettings(engines=4)
    assert executor("ray") == RaySettings(address="auto", gpus_per_engine=1, engines="auto")


def test_a_cluster_in_the_settings_file(tmp_path: Path) -> None:
    """As a mapping; the environment takes the same in YAML's short form."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("executor:\n  ray:\n    address: head:6379\n    engines: 6\n")
    expected = RaySettings(address="head:6379", engines=6)
    assert load_settings({}, {}, file).executor == expected
    assert executor("{ray: {address: 'head:6379', engines: 6}}") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local:0", "'local:0': engines: Input should be greater than or equal to 1."),
        ("local:2000", "'local:2000': engines: Input should be less than or equal to 1024."),
        ("local:two", "it must be local, local:N"),
        ("slurm", "it must be local, local:N"),
        ("{ray: {adress: x}}", "adress: Extra inputs are not permitted."),
        ("{ray: [1]}", "it must be local, local:N"),
        ("{ray: {gpus_per_engine: -1}}", "gpus_per_engine: Input should be greater than or equal"),
        ("{ray: {cpus_per_engine: 0}}", "cpus_per_engine: Input should be greater than 0."),
        ("{ray: {engines: 0}}", "engines: Input should be 'auto'"),
        ("{ray: {engines: true}}", "engines: Input should be 'auto'"),
        ("{ray: {gpus_per_engine: true}}", "gpus_per_engine: Input should be a number, not true"),
        ("{ray: {address: 7}}", "address: Input should be a valid string."),
        ("{ray: {address: 'ray://head:10001'}}", "Run `ray start --num-cpus=0 --address=HOST"),
        ("{ray: ", "it is not valid YAML"),
    ],
)
def test_what_is_no_executor_is_refused_in_words(text: str, words: str) -> None:
    """With the place it stands in."""
    with pytest.raises(SettingsInvalid, match="environment variable PICOWATCH_EXECUTOR") as refused:
        executor(text)
    assert words in str(refused.value)


ABSURD = [
    ".inf",
    "-.inf",
    ".nan",
    "1e9",
    "1.0e+300",
    "-1",
    "9" * 400,
    "9" * 5000,
    "0x" + "f" * 9000,
]


def numeric_settings() -> list[str]:
    """Every setting that takes a number, and those that take one among other things."""
    numbers = (
        name for name, field in Settings.model_fields.items() if field.annotation in (int, float)
    )
    return [*numbers, "batch_size", "executor", "file_name", "metrics_address"]


@pytest.mark.parametrize("name", numeric_settings())
@pytest.mark.parametrize("value", ABSURD, ids=lambda value: value[:9])
def test_an_absurd_number_is_refused_in_words(tmp_path: Path, name: str, value: str) -> None:
    """Threads cannot wait a billion minutes, and Python does not write out every number."""
    file = tmp_path / "picowatch.yaml"
    file.write_text(f"{name}: {value}\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert str(file) in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(file)) or name == "file_name"


@pytest.mark.parametrize("name", numeric_settings()[:-1])
@pytest.mark.parametrize("value", ["true", "no"])
def test_a_boolean_is_no_number(tmp_path: Path, name: str, value: str) -> None:
    """`settle_seconds: true` is a mistake, not one second."""
    file = tmp_path / "picowatch.yaml"
    file.write_text(f"{name}: {value}\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert f"{name} {value == 'true'}: " in str(refused.value)


def test_every_number_that_is_allowed_can_be_waited_for() -> None:
    """The longest time of each setting, in seconds."""
    longest = load_settings({"unload_after_minutes": 365 * 24 * 60, "stall_seconds": 604800}, {})
    seconds = (longest.unload_after_minutes * 60, longest.stall_seconds)
    assert max(seconds) < threading.TIMEOUT_MAX / 10


@pytest.mark.parametrize(
    "template",
    ["{number:099999999}", "{number:{seed}}", "{number:.999999999f}", "{number}" + "x" * 10**6],
    ids=lambda template: template[:20],
)
def test_names_are_not_padded_without_measure(template: str) -> None:
    """Each would be gigabytes, or minutes of formatting."""
    with pytest.raises(SettingsInvalid, match="limit is"):
        load_settings({"file_name": template}, {})


@pytest.mark.parametrize(
    "template",
    [
        "{number:04}-{cfg_scale:02d}",
        "{number}{picture[0]}",
        "{number.real}",
        "{number",
        "{number}-{seed:c}",
    ],
)
def test_a_name_that_could_not_be_written_later_is_refused(template: str) -> None:
    """Each would end every start: cfg_scale is no whole number, there may be no picture."""
    with pytest.raises(SettingsInvalid, match="it cannot be used: "):
        load_settings({"file_name": template}, {})


def test_a_huge_settings_file_is_refused_unread(tmp_path: Path) -> None:
    """A gigabyte of it would be read, decoded and parsed twice."""
    file = tmp_path / "picowatch.yaml"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(SettingsInvalid, match="too large; the limit is 100,000 bytes"):
        load_settings({}, {}, file)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("~nobody-of-this-name/x", "this user has no home folder"),
        ("x" * 5000, "is too long"),
        ("x/" * 3000, "is too long"),
        ('"a\\0b"', "contains a null byte"),
    ],
    ids=["home", "name", "path", "null"],
)
def test_a_folder_that_cannot_be_is_refused_in_words(
    tmp_path: Path, folder: str, words: str
) -> None:
    """With the line and column that name it."""
    file = tmp_path / "picowatch.yaml"
    file.write_text(f"outbox: {folder}\n")
    with pytest.raises(SettingsInvalid, match="line 1, column 9: outbox") as refused:
        load_settings({}, {}, file)
    assert words in str(refused.value)


@pytest.mark.parametrize("other", ["pipe", "device", "folder"])
def test_only_a_regular_file_is_read(tmp_path: Path, other: str) -> None:
    """A pipe would be waited for, /dev/zero has no end."""
    file = tmp_path / "picowatch.yaml"
    if other == "pipe":
        os.mkfifo(file)
    elif other == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    with pytest.raises(SettingsInvalid, match=r"Cannot read .*: it is not a regular file\."):
        load_settings({}, {}, file)


IN_RECIPES = "Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("format: jpg", 9, "'jpg': Input should be 'png', 'jpeg', 'webp' or 'avif'."),
        (
            "settle_seconds: 0,5",
            17,
            "'0,5': Input should be a valid number, unable to parse string as a number.",
        ),
        ("settle_seconds: true", 17, "True: Input should be a number, not true or false."),
        ("hook_seconds: 0", 15, "0: Input should be greater than 0."),
        (
            "metrics_address: 9464",
            18,
            "9464: it must be like 127.0.0.1:9464, or :9464 for every address.",
        ),
        ("checkpoint: [1]", 13, "[1]: Input should be a valid string."),
        (
            "quality: lossless\nformat: jpeg",
            10,
            "'lossless': jpeg has no lossless. Use format: webp or png, or a quality from 1 to "
            "100.",
        ),
        (
            "file_name: '{nubmer}'",
            12,
            "'{nubmer}': it cannot be used: there is no {nubmer}. The placeholders are recipe, "
            "picture, checkpoint, sampler, number, seed, steps, width, height, cfg_scale.",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_goes(
    tmp_path: Path, line: str, column: int, words: str
) -> None:
    """With what is wrong, and where."""
    file, name = tmp_path / "picowatch.yaml", line.partition(":")[0]
    file.write_text(f"{line}\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert str(refused.value) == f"{file}, line 1, column {column}: {name} {words}"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """In the order of the lines, as for recipes; then what the environment says."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("device: gpu\nsteps: 30\nfromat: png\nlog_format: yaml\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {"PICOWATCH_QUALITY": "x", "PICOWATCH_OUTBX": "x"}, file)
    assert str(refused.value).splitlines() == [
        f"{file}, line 1, column 9: device 'gpu': it must be auto, cuda, cuda:N (the N-th card), "
        "mps or cpu.",
        f"{file}, line 2, column 1: unknown setting 'steps'. {IN_RECIPES}",
        f"{file}, line 3, column 1: unknown setting 'fromat'. Did you mean 'format'?",
        f"{file}, line 4, column 13: log_format 'yaml': Input should be 'text' or 'json'.",
        "environment variable PICOWATCH_QUALITY: quality 'x': it must be auto, a whole number from "
        "1 to 100, or lossless.",
    ]


def test_a_space_is_missing_after_a_settings_colon(tmp_path: Path) -> None:
    """YAML takes the line for text."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("format:jpeg\n")
    with pytest.raises(SettingsInvalid, match="with a space after the colon"):
        load_settings({}, {}, file)


@pytest.mark.parametrize("value", ["off", "''", "none", ""])
def test_metrics_can_be_switched_off_in_words(tmp_path: Path, value: str) -> None:
    """As their default is called, in the file and in the environment."""
    file = tmp_path / "picowatch.yaml"
    file.write_text(f"metrics_address: {value}\n")
    assert not load_settings({}, {}, file).metrics_address
    variable = {"PICOWATCH_METRICS_ADDRESS": value.strip("'")}
    file.write_text("metrics_address: 127.0.0.1:9464\n")
    assert bool(load_settings({}, variable, file).metrics_address) == (value in ("", "''"))


def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """YAML would take the last one, in silence; a recipe is refused, too."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("device: cpu\nformat: jpeg\ndevice: auto\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert str(refused.value) == (
        f"{file}, line 3, column 1: 'device' is given twice: already on line 1. Keep one."
    )
