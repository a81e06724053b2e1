"""What the setting `executor` takes, in the file, the environment and in Python."""

from pathlib import Path

import pytest

from picowatch.errors import SettingsInvalid
from picowatch.settings import LocalExecutor, RayExecutor, Settings, load_settings


def executor(text: str) -> object:
    return load_settings({}, {"PICOWATCH_EXECUTOR": text}).executor


def test_executors_by_name() -> None:
    """One engine, several, a cluster."""
    assert executor("local") == executor("local:1") == LocalExecutor() == Settings().executor
    assert executor("local:4") == LocalExecutor(engines=4)
    assert executor("ray") == RayExecutor(address=None, gpus_per_engine=1, engines="auto")


def test_a_cluster_in_the_settings_file(tmp_path: Path) -> None:
    """As a mapping; the environment takes the same in YAML's short form."""
    file = tmp_path / "picowatch.yaml"
    file.write_text("executor:\n  ray:\n    address: ray://head:10001\n    engines: 6\n")
    expected = RayExecutor(address="ray://head:10001", engines=6)
    assert load_settings({}, {}, file).executor == expected
    assert executor("{ray: {address: 'ray://head:10001', engines: 6}}") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local:0", "engines: Input should be greater than or equal to 1"),
        ("local:two", "it must be local, local:N"),
        ("slurm", "it must be local, local:N"),
        ("{ray: {adress: x}}", "unknown setting 'adress'. Did you mean 'address'?"),
        ("{ray: [1]}", "it must be local, local:N"),
        ("{ray: {gpus_per_engine: -1}}", "gpus_per_engine: "),
        ("{ray: ", "it is not valid YAML"),
    ],
)
def test_what_is_no_executor_is_refused_in_words(text: str, words: str) -> None:
    """With the place it stands in."""
    with pytest.raises(SettingsInvalid, match="environment variable PICOWATCH_EXECUTOR") as refused:
        executor(text)
    assert words in str(refused.value)
