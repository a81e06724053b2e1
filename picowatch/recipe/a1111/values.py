"""The values that A1111 writes otherwise than recipes; the table of fields names these."""

from picowatch.recipe.written import plain_number

# What A1111 calls the files of Real-ESRGAN (modules/realesrgan_model.py).
UPSCALERS = {
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
}
_CALLED = {file: name for name, file in UPSCALERS.items()}
VAE_ENDING = ".safetensors"  # A1111 finds a VAE by the whole name of its file


def plain_text(value: object) -> str:
    """Return a value as recipes have it, too."""
    return plain_number(value) if isinstance(value, float) else str(value)


def file_name(name: str) -> str:
    """Return a model's name: the file's, whatever its folder."""
    return name.rpartition("/")[2]


def upscaler_name(name: str) -> str:
    """Return an upscaler's name, which A1111 chose for some files."""
    return _CALLED.get(file_name(name), file_name(name))
