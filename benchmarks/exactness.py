"""How far pictures move with batch size, compiling and precision.

    python -m benchmarks.exactness [--checkpoint FILE] [--size 256] [--steps 4]

Compares the pictures of one request made in different ways on this machine's CPU or GPU: the
largest difference of any channel of any pixel, the mean over all of them, and the share of
pixels that moved by more than 8 of 255. Without --checkpoint with the demo model, as its users
run it (24 steps, 128x128).
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions, Precision
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ImageRequest

PROMPTS = (
    "a corgi at the beach",
    "a red circle on a blue background",
    "a green house in the snow",
    "a yellow star on a black background",
    "a white cat in the forest",
    "a blue triangle on a red background",
    "a corgi with a hat in the city",
    "a purple square on a green background",
)


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        requests = _requests(models, arguments)
        rows: list[tuple[str, ...]] = [("way", "largest", "mean", "moved")]
        plain = _make(_engine(models, arguments.device), requests, 1)
        for name, images in _ways(Path(folder), models, requests, arguments.device):
            rows.append((name, *_moved(plain, images)))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--images", type=int, default=len(PROMPTS))
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def _requests(models: Path, arguments: argparse.Namespace) -> list[ImageRequest]:
    (models / "checkpoints").mkdir(parents=True)
    name = "demo"
    if arguments.checkpoint:
        name = arguments.checkpoint.stem
        (models / "checkpoints" / arguments.checkpoint.name).symlink_to(
            arguments.checkpoint.resolve()
        )
    catalog = Catalog(models)
    model = catalog.find("checkpoint", name)
    plain = ImageRequest(
        prompt="",
        negative_prompt="",
        checkpoint=model.name,
        checkpoint_hash=catalog.sha256(model),
        vae="baked",
        vae_hash="",
        sampler="DPM++ 2M",
        schedule_type="karras",
        steps=arguments.steps,
        cfg_scale=7.5,
        width=arguments.size,
        height=arguments.size,
        seed=0,
        clip_skip=1,
        exact=False,
    )
    prompts = PROMPTS[: arguments.images]
    return [replace(plain, prompt=text, seed=seed) for seed, text in enumerate(prompts)]


def _engine(
    models: Path, device: str, precision: Precision = "auto", cache: Path | None = None
) -> Renderer:
    compiles = cache is not None
    return Renderer(
        EngineOptions(
            models=models, device=device, precision=precision, compile=compiles, cache=cache
        )
    )


def _make(engine: Renderer, requests: Sequence[ImageRequest], batch: int) -> list[RenderedImage]:
    images: list[RenderedImage] = []
    for begin in range(0, len(requests), batch):
        images += engine.render(requests[begin : begin + batch], lambda *_: None)
    return images


def _ways(
    folder: Path, models: Path, requests: Sequence[ImageRequest], device: str
) -> Iterator[tuple[str, list[RenderedImage]]]:
    yield "once more", _make(_engine(models, device), requests, 1)
    for batch in (2, 4, 8):
        if batch <= len(requests):
            yield f"batch of {batch}", _make(_engine(models, device), requests, batch)
    yield "compiled", _make(_engine(models, device, cache=folder / "compiled"), requests, 1)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    for precision in precisions if device != "cpu" else precisions[:2]:
        yield precision, _make(_engine(models, device, precision), requests, 1)


def _moved(plain: Sequence[RenderedImage], others: Sequence[RenderedImage]) -> tuple[str, ...]:
    apart = np.stack([np.abs(_pixels(a) - _pixels(b)) for a, b in zip(plain, others, strict=True)])
    moved = (apart.max(axis=-1) > 8).mean()
    return f"{apart.max()}", f"{apart.mean():.4f}", f"{100 * moved:.2f} %"


def _pixels(image: RenderedImage) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    flat = np.frombuffer(image.pixels, np.uint8).astype(np.int16)
    return flat.reshape(image.height, image.width, 3)


if __name__ == "__main__":
    main()
