"""The values of settings, in the file, the environment and in Python."""

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from picowatch.errors import SettingsInvalid
from picowatch.settings.settings import Settings, load_settings
from picowatch.settings.values import LocalSettings, RaySettings
from picowatch.sources import folders
from tests.commands.picowatch import picowatch_here


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    """Return the settings that are read from a file."""
    file = folder / "picowatch.yaml"
    file.write_text(text)
    return load_settings({}, environment or {}, file)


def refused(folder: Path, text: str, environment: dict[str, str] | None = None) -> str:
    """Return why settings are refused; the file's name is replaced by F."""
    with pytest.raises(SettingsInvalid) as invalid:
        read(folder, text, environment)
    return str(invalid.value).replace(str(folder / "picowatch.yaml"), "F")


# -- executors


CLUSTER = RaySettings(address="head:6379", engines=6)


EXECUTORS = {
    "local": LocalSettings(),
    "local:4": LocalSettings(engines=4),
    "ray": RaySettings(address="auto", gpus_per_engine=1, engines="auto"),
    "{ray: {address: 'head:6379', engines: 6}}": CLUSTER,
}


def test_executors_by_name(tmp_path: Path) -> None:
    """One engine, several, or a cluster; in the file also as a mapping over several lines."""
    for text, expected in EXECUTORS.items():
        assert load_settings({}, {"PICOWATCH_EXECUTOR": text}).executor == expected
        assert read(tmp_path, f"executor: {text}\n").executor == expected
    mapping = "executor:\n  ray:\n    address: head:6379\n    engines: 6\n"
    assert read(tmp_path, mapping).executor == CLUSTER


# -- numbers

ABSURD = [".inf", ".nan", "1e9", "1.0e+300", "-1", "9" * 400, "9" * 5000]
NUMERIC = [
    *(name for name, field in Settings.model_fields.items() if field.annotation in (int, float)),
    *("batch_size", "executor", "file_name", "metrics_address"),
]


@pytest.mark.parametrize("name", NUMERIC)
def test_an_absurd_number_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """Threads cannot wait a billion minutes; `settle_seconds: true` is not one second."""
    for value in ABSURD:
        said = refused(tmp_path, f"{name}: {value}\n")
        assert said.startswith("F")
        assert len(said) < 400 or name == "file_name"
    if name != "metrics_address":  # where `no` is as good as `off`
        for value in ("true", "no"):
            assert f"{name} {value == 'true'}: " in refused(tmp_path, f"{name}: {value}\n")


# -- files and folders


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, r"Cannot read .*: it is not a regular file\."),
        (lambda file: file.symlink_to("/dev/zero"), r"Cannot read .*: it is not a regular file\."),
        (Path.mkdir, r"Cannot read .*: it is not a regular file\."),
        (lambda file: file.write_bytes(bytes(100_001)), "too large; the limit is 100,000 bytes"),
        (lambda file: file.write_bytes(b"a: " + b"[" * 1000), "its brackets nest too deep"),
        (lambda file: file.write_bytes(b"a: 1\n# f\xfcr"), r"line 2: not UTF-8\. Save it as UTF-8"),
        (lambda file: file.write_text("a: 1", "utf-16"), r"line 1: not UTF-8\. Save it as UTF-8"),
    ],
    ids=["pipe", "device", "folder", "huge", "deep", "Windows-1252", "UTF-16"],
)
def test_only_a_regular_text_is_read(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    """A pipe would block, /dev/zero has no end, and YAML follows each bracket by a call."""
    make(tmp_path / "picowatch.yaml")
    with pytest.raises(SettingsInvalid, match=said):
        load_settings({}, {}, tmp_path / "picowatch.yaml")


FOLDERS = (
    *("", "# device: cpu\n", "outbox: pictures\n", "inbox: ~/recipes\noutbox: /pictures\n"),
    *("models: models\noutbox: ../pictures\n", "checkpoint: a\nformat: png\noutbox:\n"),
)


def test_folders_alone_are_those_of_all_settings(tmp_path: Path) -> None:
    """`status` reads them without pydantic."""
    file, environment = tmp_path / "picowatch.yaml", {"PICOWATCH_INBOX": "elsewhere"}
    for text, given in product(FOLDERS, ({}, {"outbox": Path("flag")})):
        file.write_text(text)
        whole = load_settings(given, environment, file)
        assert folders(given, environment, file) == (whole.inbox, whole.outbox), text


# -- what is wrong is said, and where

IN_RECIPES = "Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."


REFUSED = [
    ("format: gif", "column 9: format 'gif': Input should be 'png', 'jpeg', 'webp', 'avif' or "),
    ("settle_seconds: 0,5", "column 17: settle_seconds '0,5': write 0.5, with a point."),
    ("settle_seconds: soon", "settle_seconds 'soon': Input should be a valid number"),
    ("hook_seconds: 0", "column 15: hook_seconds 0: Input should be greater than 0."),
    ("metrics_address: 9464", "column 18: metrics_address 9464: it must be like 127.0.0.1:9464"),
    ("metrics_address: http://localhost:9464/metrics", "/metrics': write localhost:9464."),
    ("checkpoint: [1]", "column 13: checkpoint [1]: Input should be a valid string."),
    ("format: jpeg\nquality: lossless", "line 2, column 10: quality 'lossless': jpeg has no "),
    # Without a space after its colon, a line is text; of two values, YAML takes the last.
    ("format:jpeg", "with a space after the colon"),
    ("device: cpu\ndevice: auto", "line 2, column 1: 'device' is given twice: already on line 1."),
    # Names of files that would take gigabytes or minutes, or end every start.
    ("file_name: '{nubmer}'", "column 12: file_name '{nubmer}': it cannot be used: there is no"),
    (f"file_name: '{{number}}{'x' * 10**4}'", "limit is"),
    ("file_name: '{number:04}-{cfg_scale:02d}'", "it cannot be used: "),
    ("file_name: '{number}-{seed:c}'", "it cannot be used: "),
    *(
        (f"file_name: '{{number}}{{seed:{inner}}}'", f"it cannot be used: ':{inner}' names a")
        for inner in ("{prompt}", "{width}", "0{steps}", "{}", "{number!r}")
    ),
    ("file_name: '{number:4000000000}'", "it cannot be used: ':4000000000' is too wide"),
    ("file_name: '{seed}'", "it needs {number}"),
    ("file_name: '{number}.png'", "leave out its ending: the format gives one"),
    ("settings:\n  device: cpu", "'settings'. Write the lines below it alone, not indented."),
    ("outbox: ~nobody-of-this-name/x", "outbox '~nobody-of-this-name/x': this user has no home"),
    ("executor: local:2000", "engines: Input should be less than or equal to 1024."),
    ("executor: slurm", "it must be local, local:N"),
    ("executor: {ray: {adress: x}}", "there is no adress. Ray takes address, gpus_per_engine, "),
    ("executor: {ray: {gpus_per_engine: true}}", "gpus_per_engine: Input should be a number, not"),
    ("hooks: {done: x}", "{'done': 'x'}: Input should be 'picture', 'failed', 'idle' or 'on"),
    ("hooks: {idle: [sleep, 5]}", "the argument 5 is no text: write it in quotes"),
    ("hooks: {idle: []}", "hooks {'idle': []}: List should have at least 1 item"),
    ("- a", "F must contain `name: value` lines"),
    ("shares: 2", "it must be a mapping of folders like {ada: 2}"),
    ("shares: {ada/night: 2}", "ada/night is no folder in the inbox itself"),
    ("shares: {ada: true}", "a number, not true or false"),
    ("max_queued: {ada: 0}", "greater than or equal to 1"),
    (f"max_priority: {{ada: {10**30}}}", "less than or equal to"),
    ("executor: {ray: {address: 'ray://head:1'}}", "Run `ray start --num-cpus=0 --address=HOST"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=lambda words: words[:40])
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    answer = refused(tmp_path, f"{text}\n")
    assert answer.startswith(("F, line 1, column ", "F, line 2, column ", "F must contain"))
    assert said in answer


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Problems are in the order of the lines, as in recipes; those of the environment follow."""
    text = "device: gpu\nsteps: 30\nfromat: png\nlog_format: yaml\nCOMPILE: true\n"
    wrong = {"PICOWATCH_QUALITY": "x", "PICOWATCH_OUTBX": "x"}
    assert refused(tmp_path, text, wrong).splitlines() == [
        "F, line 1, column 9: device 'gpu': it must be auto, cuda, cuda:N (the N-th card), xpu, "
        "mps or cpu.",
        f"F, line 2, column 1: unknown setting 'steps'. {IN_RECIPES}",
        "F, line 3, column 1: unknown setting 'fromat'. Did you mean 'format'?",
        "F, line 4, column 13: log_format 'yaml': Input should be 'text' or 'json'.",
        "F, line 5, column 1: unknown setting 'COMPILE'. Did you mean 'compile'?",
        "environment variable PICOWATCH_QUALITY: quality 'x': Input should be 'auto' or "
        "'lossless', or Input should be a valid integer, unable to parse string as an integer.",
    ]
    assert "environment variable PICOWATCH_EXECUTOR: executor '{ray: ': it is not valid YAML" in (
        refused(tmp_path, "", {"PICOWATCH_EXECUTOR": "{ray: "})
    )


def test_a_format_is_named_as_in_recipes(tmp_path: Path) -> None:
    for written, name in (("jpg", "jpeg"), (".TIF", "tiff"), ("PNG", "png")):
        assert read(tmp_path, f"format: {written}\n").format == name


def test_metrics_can_be_switched_off_in_words(tmp_path: Path) -> None:
    """The words work in the file and in the environment."""
    for value in ("off", "''", "none", ""):
        assert not read(tmp_path, f"metrics_address: {value}\n").metrics_address
        variable = {"PICOWATCH_METRICS_ADDRESS": value.strip("'")}
        settings = read(tmp_path, "metrics_address: 127.0.0.1:9464\n", variable)
        assert bool(settings.metrics_address) == (value in ("", "''"))


def test_a_misspelt_variable_is_named_with_the_nearest_setting(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    answer = picowatch_here(tmp_path, "models", PICOWATCH_DIVICE="cpu", PICOWATCH_DEVICE="cpu")
    said = "The environment variable PICOWATCH_DIVICE is not a setting."
    words = f"picowatch: {said} Did you mean PICOWATCH_DEVICE?\n"
    assert (answer.returncode, answer.stderr) == (0, words)
    answer = picowatch_here(tmp_path, "models", PICOWATCH_DEBUG="1")
    assert answer.stderr.endswith("DEBUG is not a setting. docs/settings.md lists them.\n")


# -- folders


def test_shares_and_limits_are_by_folder(tmp_path: Path) -> None:
    """`.` is the inbox itself; the environment has the same as YAML."""
    text = "shares: {ada: 2, ben/: 0.5, .: 1}\nmax_priority: {ada: -1}\nmax_queued:\n  ada: 3\n"
    settings = read(tmp_path, text, {"PICOWATCH_MAX_QUEUED": "{carl: 4}"})
    assert settings.shares == {"ada": 2, "ben": 0.5, "": 1}
    assert (settings.max_priority, settings.max_queued) == ({"ada": -1}, {"carl": 4})
