"""`picowatch bench`: a table, JSON and a plot of how fast this machine is."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.cli import parsers
from picowatch.commands.bench import Combinations, bench
from picowatch.engine.options import EngineOptions
from picowatch.errors import EngineDied, PicowatchError, RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests.commands.picowatch import PROJECT, picowatch
from tests.digest_engine import DigestEngine

NO_MEMORY = "The GPU does not have enough memory for this image. No memory-saving level was enough."


@pytest.mark.heavy
def test_every_combination_is_measured(tmp_path: Path) -> None:
    """With the real engine: JSON on standard output, what runs beside it, and the plot."""
    flags = ("--steps", "1", "2", "--sizes", "64x64", "--batches", "1", "2")
    result = picowatch(
        tmp_path, "bench", *flags, "--json", "--plot", "speed.png", PICOWATCH_DEVICE="cpu"
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["device"], told["precision"], told["checkpoint"]) == ("cpu", "float32", "demo")
    cells = told["cells"]
    assert [(c["steps"], c["size"], c["batch"]) for c in cells] == [
        (1, "64x64", 1), (1, "64x64", 2), (2, "64x64", 1), (2, "64x64", 2),
    ]  # fmt: skip
    for cell in cells:
        assert not cell["failure"] and not cell["compiled"]
        assert cell["images_per_second"] * cell["seconds_per_image"] == pytest.approx(1)
        assert cell["seconds"] == pytest.approx(cell["seconds_per_image"] * cell["batch"])
        assert cell["peak_bytes"] > 50 << 20
    assert "4 of 4: 2 steps, 64x64, batch of 2" in result.stderr
    with Image.open(tmp_path / "speed.png") as plot:
        assert plot.size == (960, 600)
        assert len(plot.convert("RGB").getcolors(1 << 20) or ()) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.png"]


def test_the_shown_commands_are_understood() -> None:
    """Those of docs/speed.md."""
    text = (PROJECT / "docs/speed.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("picowatch bench")]
    assert len(lines) > 3
    for line in lines:
        words = shlex.split(line.partition(" > ")[0], comments=True)
        options = parsers()[0].parse_args(words[1:])
        assert options.steps and options.batches


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., tuple[DigestEngine, int]]:
    """Run it on the digest engine; `before_batch` may raise what a batch is to fail with."""

    def measure(
        before_batch: Callable[[Sequence[ImageRequest]], None] = lambda batch: None,
        batches: Sequence[int] = (1, 2, 3),
        **values: Any,
    ) -> tuple[DigestEngine, int]:
        engine = DigestEngine()
        engine.before_batch = before_batch
        wanted: dict[str, Any] = {
            "steps": [3],
            "sizes": ["64x64"],
            "batches": batches,
            "checkpoint": None,
        }
        wanted |= {name: values.pop(name) for name in list(values) if name in wanted}
        settings = Settings(models=tmp_path / "models", outbox=tmp_path / "outbox")

        def make(options: EngineOptions) -> DigestEngine:
            return engine

        given = {"as_json": False, "plot": None} | values
        return engine, bench(settings, Combinations(**wanted), make_engine=make, **given)

    return measure


def test_the_table_shows_every_cell(
    measure: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch of few steps goes before each that is timed: it loads and prepares."""
    engine, code = measure()
    assert code == 0
    assert [(len(batch), batch[0].steps) for batch in engine.batches] == [
        (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3),
    ]  # fmt: skip
    assert [request.seed for request in engine.batches[-1]] == [1, 2, 3]
    rows = [line for line in capsys.readouterr().out.splitlines() if "64x64" in line]
    assert [row.split()[5] for row in rows] == ["1", "2", "3"]
    assert all(row.split()[-2] == "no" for row in rows)


def test_a_cell_without_memory_does_not_end_it(
    measure: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is shown as such, and the next one is tried."""

    def refuse(batch: Sequence[ImageRequest]) -> None:
        if len(batch) == 2:
            raise RenderFailed(NO_MEMORY)
        if len(batch) == 3:
            raise EngineDied("The engine was killed.")

    _, code = measure(refuse, batches=(1, 2, 3, 4))
    assert code == 0
    shown = capsys.readouterr().out
    one, two, three, four = (line for line in shown.splitlines() if "64x64 │" in line)
    assert "out of memory" in two
    assert "failed" in three
    assert "out of memory" not in one + four
    assert f"3 steps, 64x64, 2: {NO_MEMORY}" in shown


def test_a_plot_leaves_out_what_failed(measure: Callable[..., Any], tmp_path: Path) -> None:
    """There is nothing to draw of it."""

    def refuse(batch: Sequence[ImageRequest]) -> None:
        if len(batch) > 1:
            raise RenderFailed(NO_MEMORY)

    measure(refuse, plot=tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as plot:
        plot.verify()


def test_no_picture_at_all_is_an_error(measure: Callable[..., Any]) -> None:
    """After the table has said why."""

    def refuse(batch: Sequence[ImageRequest]) -> None:
        raise RenderFailed(NO_MEMORY)

    with pytest.raises(PicowatchError, match="No image could be rendered"):
        measure(refuse)


def test_what_was_measured_is_printed_when_it_is_interrupted(
    measure: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A user who has seen enough keeps it."""

    def interrupt(batch: Sequence[ImageRequest]) -> None:
        if len(batch) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(interrupt, as_json=True)
    assert [cell["batch"] for cell in json.loads(capsys.readouterr().out)["cells"]] == [1, 2]


def test_a_plot_without_matplotlib_is_refused_at_once(
    measure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the command that installs it."""
    monkeypatch.setattr("picowatch.commands.bench.find_spec", lambda name: None)
    with pytest.raises(PicowatchError, match=r"pip install -e '\.\[bench\]'"):
        measure(plot=tmp_path / "speed.png")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"sizes": ["100x100"]},
            r"width must be a multiple of 8: 96 or 104 would do\. height must",
        ),
        ({"steps": [0]}, "steps must be"),
        ({"batches": [0]}, "--batches 0: a batch holds 1 to 256 images"),
        ({"batches": [1, 257]}, "--batches 257"),
        ({"checkpoint": "dmo"}, "Did you mean 'demo'"),
        ({"plot": Path("speed.pdf")}, "the plot is a PNG"),
        ({"plot": Path("nowhere/speed.png")}, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    measure: Callable[..., Any], values: dict[str, Any], said: str
) -> None:
    """In words."""
    ran: list[object] = []
    with pytest.raises(PicowatchError, match=said):
        measure(ran.append, **values)
    assert not ran
