"""Measures a model: `python -m training.evaluate MODEL [--against OTHER]`.

Prints a table, and writes it beside contact sheets with their prompts into the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from training.measures import all_measures
from training.sheets import write_sheets
from training.trials import load_pipeline

Figures = dict[str, dict[str, float]]


def main() -> None:
    """Measures one model, or two on the same captions and seeds."""
    arguments = parsed_arguments()
    torch.set_num_threads(arguments.threads)
    models = [arguments.model, *([arguments.against] if arguments.against else [])]
    figures = [measured(model, arguments) for model in models]
    print(table(figures))
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = {"figures": figures, "steps": 24, "threads": arguments.threads}
    (arguments.out / "figures.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    (arguments.out / "figures.md").write_text(table(figures), "utf-8")


def measured(model: Path, arguments: argparse.Namespace) -> Figures:
    """Every measure of one model; for the first model its sheets too."""
    pipeline: Any = load_pipeline(model, torch.device(arguments.device))
    if model == arguments.model:
        write_sheets(pipeline, arguments.out)
    figures: Figures = {}
    for name, measure in all_measures(arguments.share).items():
        figures[name] = measure(pipeline)
        print(name, {key: round(value, 3) for key, value in figures[name].items()}, flush=True)
    return figures


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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
