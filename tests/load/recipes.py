"""Recipes by the thousand, whose seeds say which version of which recipe a picture shows."""

from pathlib import Path

EDITED = 1_000_000  # is added to a recipe's seed by an edit


def name_of(number: int, of: int) -> str:
    """The first nine tenths lie side by side, the rest in a hundred folders."""
    name = f"r{number:05}.yaml"
    return name if number < of * 9 // 10 else f"folder{number % 100:02}/{name}"


def text_of(seed: int) -> str:
    return f"prompt: corgi {seed}\nseed: {seed}\nsize: 64x64\nsteps: 1\n"


def write_recipes(folder: Path, count: int) -> None:
    """`count` recipes with the seeds 0, 1, 2, …"""
    for number in range(count):
        path = folder / name_of(number, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(number))
