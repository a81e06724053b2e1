"""What settings take, in the file, the environment and in Python."""

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
        ("local:0", "'local:0': the number of engines: it must be a whole number from 1 to 1,024."),
        (
            "local:2000",
            "'local:2000': the number of engines: it must be a whole number from 1 to 1,024.",
        ),
        ("local:two", "it must be local, local:N"),
        ("slurm", "it must be local, local:N"),
        ("{ray: {adress: x}}", "unknown setting 'adress'. Did you mean 'address'?"),
        ("{ray: [1]}", "it must be local, local:N"),
        ("{ray: {gpus_per_engine: -1}}", "gpus_per_engine: it must be a number from 0 to 64."),
        ("{ray: {cpus_per_engine: 0}}", "it must be a number above 0, at most 1,024."),
        ("{ray: {engines: 0}}", "engines: it must be a whole number from 1 to 1,024, or auto."),
        ("{ray: {engines: all}}", "engines: it must be a whole number from 1 to 1,024, or auto."),
        ("{ray: {engines: true}}", "engines: it must be a whole number from 1 to 1,024, or auto."),
        ("{ray: {address: 7}}", "address: it must be text."),
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
    assert f"{name} {value == 'true'}: it must be" in str(refused.value)


@pytest.mark.parametrize("name", ["gpus_per_engine", "cpus_per_engine", "engines"])
def test_a_boolean_is_no_number_of_a_cluster(name: str) -> None:
    """Within the mapping of an executor, too."""
    with pytest.raises(SettingsInvalid, match=f"{name}: it must be"):
        executor(f"{{ray: {{{name}: true}}}}")


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


def test_a_misspelt_variable_is_refused_with_the_right_one() -> None:
    """As a misspelt line of the file is."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {"PICOWATCH_SETTLE_SECOND": "1"})
    assert str(refused.value) == (
        "environment variable PICOWATCH_SETTLE_SECOND: unknown setting 'PICOWATCH_SETTLE_SECOND'. "
        "Did you mean 'PICOWATCH_SETTLE_SECONDS'?"
    )


def test_a_variable_is_compared_without_what_all_have_in_common() -> None:
    """PICOWATCH_STEPS is not nearly PICOWATCH_MODELS."""
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {"PICOWATCH_STEPS": "30"})
    assert str(refused.value) == (
        "environment variable PICOWATCH_STEPS: unknown setting 'PICOWATCH_STEPS'."
    )


IN_RECIPES = "Recipe fields belong in a recipe, or in inbox/_defaults.yaml for all recipes."


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("format: jpg", 9, "'jpg': it must be png, jpeg, webp or avif. Did you mean 'jpeg'?"),
        (
            "settle_seconds: 0,5",
            17,
            "'0,5': it must be a number from 0.05 to 60. Write 0.5, with a point.",
        ),
        (
            "max_images_per_save: 5,000",
            22,
            "'5,000': it must be a whole number from 1 to 1,000,000. Write 5000, without a comma.",
        ),
        ("interrupt: yess", 12, "'yess': it must be true or false."),
        ("settle_seconds: true", 17, "True: it must be a number from 0.05 to 60."),
        ("max_attempts: true", 15, "True: it must be a whole number from 1 to 1,000."),
        ("hook_seconds: 0", 15, "0: it must be a number above 0, at most 3,600."),
        (
            "metrics_address: 9464",
            18,
            "9464: it must be like 127.0.0.1:9464, or :9464 for every address.",
        ),
        ("checkpoint: [1]", 13, "[1]: it must be text."),
        (
            "file_name: '{nubmer}'",
            12,
            "'{nubmer}' cannot be used: there is no {nubmer}. The placeholders are checkpoint, "
            "sampler, recipe, picture, seed, steps, width, height, number, cfg_scale.",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_goes(
    tmp_path: Path, line: str, column: int, words: str
) -> None:
    """In the words of recipes' errors, not of the library that checks it."""
    file, name = tmp_path / "picowatch.yaml", line.partition(":")[0]
    file.write_text(f"{line}\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert str(refused.value) == f"{file}, line 1, column {column}: {name} {words}"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """In the order of the lines, as for recipes; then what the environment says."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("device: gpu\nsteps: 30\nlog_format: yaml\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {"PICOWATCH_OUTBX": "x"}, file)
    assert str(refused.value).splitlines() == [
        f"{file}, line 1, column 9: device 'gpu': it must be auto, cuda, cuda:N (the N-th card), "
        "mps or cpu.",
        f"{file}, line 2, column 1: unknown setting 'steps'. {IN_RECIPES}",
        f"{file}, line 3, column 13: log_format 'yaml': it must be text or json.",
        "environment variable PICOWATCH_OUTBX: unknown setting 'PICOWATCH_OUTBX'. Did you mean "
        "'PICOWATCH_OUTBOX'?",
    ]


@pytest.mark.parametrize("text", ["watch:auto\n", "# x\nformat:jpeg # x\nwatch:auto\n"])
def test_a_space_is_missing_after_a_settings_colon(tmp_path: Path, text: str) -> None:
    """YAML takes the line for text, whatever stands around it."""
    file = tmp_path / "picowatch.yaml"
    file.write_text(text)
    with pytest.raises(SettingsInvalid, match="colon: write 'watch: auto'"):
        load_settings({}, {}, file)


@pytest.mark.parametrize(
    "variable",
    [
        "PICOWATCH_RESTARTED",
        "PICOWATCH_PORT",
        "PICOWATCH_PORT_9464_TCP_ADDR",
        "PICOWATCH_SERVICE_HOST",
        "PICOWATCH_SERVICE_PORT_METRICS",
        "PICOWATCH_NAME",
        "PICOWATCHER",
    ],
)
def test_variables_of_others_are_left_alone(variable: str) -> None:
    """Kubernetes and Docker set some for a service or container called picowatch."""
    assert load_settings({}, {variable: "x", "PICOWATCH_MISSPELT": ""}) == Settings()


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
    file.write_text("watch: polling\nformat: jpeg\nwatch: auto\n")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings({}, {}, file)
    assert str(refused.value) == (
        f"{file}, line 3, column 1: 'watch' is given twice: already on line 1. Keep one."
    )
