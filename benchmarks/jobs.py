"""The pictures that picowatch and its peers both make, and the checkpoints they come from."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

from benchmarks.make_sd15 import write_checkpoint

ASSETS = Path(__file__).parents[1] / "picowatch" / "assets"
NEGATIVE_PROMPT = "blurry"
CFG_SCALE = 7.5
# Where the full-size checkpoints are kept between runs: 2.1 GB each.
KEPT = Path(tempfile.gettempdir()) / "sd15"

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "pink")
_THINGS = ("circle", "square", "triangle", "star", "heart", "ring")
_BACKGROUNDS = ("white", "blue", "green", "black")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to make."""

    prompt: str
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint: its name in recipes, where it lies, and the configs of a single file."""

    name: str
    path: Path
    configs: Path

    @property
    def words(self) -> str:
        """What it is, for tables; with `--small` the demo model stands for the large one, too."""
        return "full-size Stable Diffusion 1.5" if self.path.is_file() else "the demo model"

    def install(self, models: Path) -> None:
        """Make it known to a picowatch with this models folder; the demo model always is."""
        if self.path.is_file():
            place = models / "checkpoints" / f"{self.name}.safetensors"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.path)


DEMO = Checkpoint("demo", ASSETS / "demo", ASSETS / "demo")


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures of one checkpoint and size, in DPM++ 2M Karras."""

    checkpoint: Checkpoint
    size: int
    pictures: tuple[Picture, ...]
    device: str = "cpu"

    def write(self, file: Path, pictures: Path) -> None:
        """The job as peers read it; they put their pictures into the folder `pictures`."""
        pictures.mkdir(parents=True, exist_ok=True)
        asked = {
            "checkpoint": str(self.checkpoint.path),
            "configs": str(self.checkpoint.configs),
            "device": self.device,
            "size": self.size,
            "cfg_scale": CFG_SCALE,
            "negative_prompt": NEGATIVE_PROMPT,
            "out": str(pictures),
            "pictures": [
                {"prompt": one.prompt, "seed": one.seed, "steps": one.steps}
                for one in self.pictures
            ],
        }
        file.write_text(json.dumps(asked))

    def recipe(self, picture: Picture) -> str:
        """One picture as a recipe."""
        return (
            f"prompt: {picture.prompt}\nnegative_prompt: {NEGATIVE_PROMPT}\n"
            f"checkpoint: {self.checkpoint.name}\nsampler: DPM++ 2M Karras\n"
            f"steps: {picture.steps}\ncfg_scale: {CFG_SCALE}\n"
            f"size: {self.size}x{self.size}\nseed: {picture.seed}\n"
        )


def pictures(count: int, steps: int) -> tuple[Picture, ...]:
    """As many different pictures, seeds 1, 2, 3, …"""
    texts = islice(_prompts(), count)
    return tuple(Picture(text, seed, steps) for seed, text in enumerate(texts, start=1))


def pictures_of_steps(*steps: int) -> tuple[Picture, ...]:
    """A picture for each number of steps."""
    return tuple(
        Picture(text, seed, number)
        for seed, (text, number) in enumerate(zip(_prompts(), steps, strict=False), start=1)
    )


def _prompts() -> Iterator[str]:
    """Without end; the seeds differ where the words are the same again."""
    for ground, colour, thing in cycle(product(_BACKGROUNDS, _COLOURS, _THINGS)):
        yield f"a {colour} {thing} on a {ground} background"


def full_size(seed: int = 1) -> Checkpoint:
    """Stable Diffusion 1.5 with random weights, written once; each seed is another content."""
    path = KEPT / f"random{seed}.safetensors"
    if not path.exists():
        print(f"writing {path}, 2.1 GB", flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        write_checkpoint(unfinished, seed=seed)
        unfinished.rename(path)
    return Checkpoint(f"random{seed}", path, ASSETS / "sd15")
