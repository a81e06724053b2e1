"""The plot of `picowatch bench`: images per second over the batch, a line for steps and size."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from picowatch.errors import CommandFailed, SettingsInvalid

INCHES = (8, 5)
PIXELS_PER_INCH = 120


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before minutes are spent on measuring."""
    if find_spec("matplotlib") is None:
        raise CommandFailed(
            "--plot needs matplotlib, which is not installed.",
            "Install it: pip install matplotlib",
        )
    if path.suffix.lower() != ".png":
        raise SettingsInvalid(f"--plot {path}: the plot is a PNG.", "Give it a name with .png.")
    if not path.parent.is_dir():
        raise SettingsInvalid(
            f"--plot {path}: there is no folder {path.parent}.", "Create it first."
        )


def draw_plot(path: Path, cells: Sequence[dict[str, Any]], title: str) -> None:
    """Write the PNG; cells without a picture are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    for (steps, size), line in groupby(cells, key=lambda cell: (cell["steps"], cell["size"])):
        made = [cell for cell in line if cell["seconds"] is not None]
        axes.plot(
            [cell["batch"] for cell in made],
            [cell["images_per_second"] for cell in made],
            marker="o",
            label=f"{steps} steps, {size}",
        )
    axes.set_title(title)
    axes.set_xlabel("batch size")
    axes.set_ylabel("images per second")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=PIXELS_PER_INCH)
