"""Measures a model: `python -m training.evaluate MODEL [--against OTHER]`.

Prints a table, and writes it beside contact sheets with their prompts into the output folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from training.measures import SPEED, all_measures, size_of_files
from training.sheets import write_sheets
from training.trials import load_pipeline

Figures = dict[str, dict[str, float]]


def main() -> None:
    """Measures one model, or two on the same captions and seeds."""
    arguments = parsed_arguments()
    models = [arguments.model, *([arguments.against] if arguments.against else [])]
    figures = [measured(model, arguments.share, arguments.workers) for model in models]
    print(table(figures))
    write_sheets(load_pipeline(arguments.model), arguments.out)
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    (arguments.out / "figures.md").write_text(table(figures), "utf-8")


def measured(model: Path, share: float, workers: int) -> Figures:
    """Every measure of one model, several at a time; speed alone, after the others."""
    names = [name for name in all_measures(share) if name != SPEED]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        measuring = partial(one_measure, model, share)
        figures = dict(zip(names, pool.map(measuring, names), strict=True))
    figures[SPEED] = one_measure(model, share, SPEED)
    figures["size"] = size_of_files(model)
    return figures


def one_measure(model: Path, share: float, name: str) -> dict[str, float]:
    """The figures of one measure."""
    figures = all_measures(share)[name](cached_pipeline(model))
    print(name, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    return figures


@cache
def cached_pipeline(model: Path) -> Any:
    """The model, loaded once in each process."""
    return load_pipeline(model)


def table(figures: list[Figures]) -> str:
    """The figures as a Markdown table, one column for each model."""
    heads = ["this model", "the other"][: len(figures)]
    lines = [f"| measured | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for measure, values in figures[0].items():
        for name in values:
            row = [as_text(name, model[measure].get(name)) for model in figures]
            lines.append(f"| {measure}: {name} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def as_text(name: str, value: float | None) -> str:
    """A share in percent, anything that names its unit as it is."""
    if value is None:
        return "–"
    return f"{value:.2f}" if "(" in name else f"{100 * value:.1f} %"


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--against", type=Path, help="another model, measured the same way")
    parser.add_argument("--out", type=Path, default=Path("training/runs/evaluation"))
    parser.add_argument(
        "--share", type=float, default=1.0, help="part of the pictures, to be quick"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
