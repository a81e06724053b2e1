"""What a picture of the demo model shows, judged by the pixels."""

from pathlib import Path

from PIL import Image

from training.scenes import COLOURS


def colour_at(picture: Path, x: float, y: float) -> str:
    """The name of the colour around a place, given as shares of width and height."""
    with Image.open(picture) as image:
        rgb = image.convert("RGB")
        column, row = round(x * (rgb.width - 1)), round(y * (rgb.height - 1))
        box = (max(0, column - 2), max(0, row - 2), column + 3, row + 3)
        average = rgb.crop(box).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(average, tuple)
    return min(
        COLOURS,
        key=lambda name: sum((a - b) ** 2 for a, b in zip(average, COLOURS[name], strict=True)),
    )


def background_of(picture: Path) -> str:
    """The colour of the corners."""
    corners = {colour_at(picture, x, y) for x in (0.03, 0.97) for y in (0.03, 0.97)}
    assert len(corners) == 1, corners
    return corners.pop()
