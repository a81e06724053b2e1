"""Pictures as files' bytes, and with settings in their metadata."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def picture_with(path: Path, keyword: str, text: str, colour: str = "black") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(keyword, text)
    Image.new("RGB", (64, 64), colour).save(path, pnginfo=chunks)
    return path
