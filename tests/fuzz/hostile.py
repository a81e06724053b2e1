"""Files that somebody may put into the folders to stop picowatch, some of megabytes."""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

Files = dict[str, bytes]
MEGABYTE = 1_000_000
PHOTO_SIDE = 4_472  # 20 million pixels


@dataclass(frozen=True, slots=True)
class Hostile:
    """Files that are made when they are needed, and what the answer must say.

    `says` is a piece of the error file; None where the recipe is a good one.
    """

    files: Callable[[], Files]
    says: str | None


def _recipe(text: str | bytes, says: str | None, name: str = "a.yaml") -> Hostile:
    content = text.encode() if isinstance(text, str) else text
    return Hostile(lambda: {f"inbox/{name}": content}, says)


def _txt(text: str, says: str | None) -> Hostile:
    return _recipe(text, says, "a.txt")


def laughs(levels: int, width: int = 9) -> str:
    """Anchors that multiply: https://en.wikipedia.org/wiki/Billion_laughs_attack"""
    lines = ["a0: &a0 [lol]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


TEXTS = {
    "brackets": "prompt: '" + "(" * MEGABYTE + "'",
    "square brackets": "prompt: '" + "[" * MEGABYTE + "'",
    "weights": "prompt: '" + "(a:1.2)" * 140_000 + "'",
    "bars": "prompt: '{" + "|" * MEGABYTE + "'",
    "wildcards": "prompt: '" + "{a|b}" * 200_000 + "'",
    "underscores": "prompt: '" + "/__" * 300_000 + "'",
    "wildcards without end": "prompt: '" + "__a b " * 160_000,
    "open braces": "prompt: '" + "{" * MEGABYTE + "'",
    "wildcards within braces": "prompt: '" + "{" * 99 + "{a|b}" * 200_000 + "}" * 99 + "'",
    "lora tags": "prompt: '" + "<lora:y:1>" * 100_000 + "'",
    "embeddings": "prompt: '" + "a " * 500_000 + "'\nseed: 1\ncount: 1000",
    "loras": "prompt: a\nloras: '" + "y," * 400_000 + "'",
    "sweeps": "- {prompt: a, sweep: {steps: 1..100, cfg_scale: 1..10}}\n" * 18_000,
    "sweep of a long prompt": "prompt: '" + "a " * 500_000 + "'\nsweep: {cfg_scale: 1..10 step "
    "0.01, 'prompt: a': [b]}",
    "long range": "prompt: a\nsweep: {steps: 1.." + "9" * MEGABYTE + "}",
    "white space": "prompt: 'a" + " " * MEGABYTE + "BREA'",
    "blank lines": "steps: 3\n" + "\n" * MEGABYTE,
    "a quarter of a million flags": "a" + " --a" * 250_000,
    "open quotes": "a" + ' --seed "' * 100_000,
    "long dashes": "a" + " \u2014steps" * 100_000,
    "prompts": "a\n" * 500_000,
    "unknown fields": "".join(f"{number:05}tps: 1\n" for number in range(24_000)),
    "wrong values": "[" + "{prompt: a, steps: 0, seed: x}, " * 6_000 + "]",
    "parameters": "Steps: 1, Sampler: Euler, a" + " " * MEGABYTE,
    "parameters without end": "Steps: 1, Sampler: Euler, " + "a: b, " * 160_000,
    "whole blocks": "a.Negative prompt: b.Steps: 1, Seed: 1\n" * 25_000,
    "blocks": "a\nNegative prompt: b\n\n" * 45_000 + "Steps: 1, Sampler: Euler",
    "json": "Steps: 1, Sampler: Euler, a: " + "[" * MEGABYTE,
    "base 60": "steps: 1" + ":1" * 500_000,
    "control characters": "\x01\n" * 500_000,
    "laughs": laughs(400),
    "aliases": "a: &a [x]\nb: [" + "*a, " * 200_000 + "]",
    "tags": "- !!int x\n" * 100_000,
    "documents": "--- a\n" * 150_000,
    "nested lists": "[" * 100_000,
    "nested dashes": "- " * 100_000 + "a",
    "nested keys": "? " * 100_000,
    "long key": "a" * MEGABYTE + ": 1",
    "long plain scalar": "prompt: " + "a b: " * 200_000,
    "long unclosed quote": 'prompt: "' + "a\n" * 500_000,
    "escapes": 'prompt: "' + "\\ud800" * 150_000 + '"',
    "comments": "prompt: a" + " # b" * 250_000,
    "zeros": "\0" * MEGABYTE,
}


def _bytes_over_the_limit() -> Files:
    return {"inbox/a.yaml": b"prompt: " + b"a" * 10 * MEGABYTE}


# -- pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG's chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, width: int = 1, height: int = 1, depth: int = 8, colours: int = 2) -> bytes:
    """A PNG of these chunks between header and end."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    whole = [chunk(b"IHDR", head), *chunks, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@cache
def deflated(size: int) -> bytes:
    """Many zeros, packed as far as zlib can."""
    return _again_and_again(bytes(MEGABYTE), size // MEGABYTE)


def _again_and_again(piece: bytes, times: int) -> bytes:
    """zlib's stream (RFC 1950) of a piece that is packed once: blocks after a full flush do not
    refer to those before.
    """
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(times):
        checksum = zlib.adler32(piece, checksum)
    return b"\x78\xda" + block * times + b"\x03\x00" + checksum.to_bytes(4)


def flat_png(side: int, depth: int, colours: int, bytes_a_pixel: int) -> bytes:
    """A PNG that holds all its pixels, each row the difference of its neighbours."""
    row = b"\4" + bytes(range(256)) * (side * bytes_a_pixel // 256 + 1)
    eight = row[: 1 + side * bytes_a_pixel] * 8
    body = chunk(b"IDAT", _again_and_again(eight, side // 8))
    return png(body, width=side, height=side, depth=depth, colours=colours)


def photo(side: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A picture that looks like one to a compressor: soft noise."""
    generator = np.random.default_rng(1)
    small = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
    file = BytesIO()
    whole = small.resize((side, side), Image.Resampling.BILINEAR).convert(mode)
    whole.save(file, kind, **options)
    return file.getvalue()


def tiff(*entries: tuple[int, int, int, int], behind: bytes = b"") -> bytes:
    """A TIFF of one directory: tag, type, count, value."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + behind


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


def _jpeg_of(segments: bytes) -> bytes:
    """A good JPEG with more segments behind its first marker."""
    whole = photo(8, "JPEG")
    return whole[:2] + segments + whole[2:]


def _gif_frames() -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * 3 * MEGABYTE


def _gif_of(side: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02D\x01\x00;"


def _webp_of(side: int) -> bytes:
    size = struct.pack("<I", side - 1)[:3]
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + size
    # A lossless bitstream whose own header says the same.
    bits = (side - 1) | (side - 1) << 14
    vp8l = b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", bits) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(vp8x) + len(vp8l)) + b"WEBP" + vp8x + vp8l


_HUGE = "more than"
START_IMAGES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "PNG of 10,000 million pixels": (lambda: png(width=100_000, height=100_000), _HUGE),
    "PNG with all its 400 million pixels": (
        lambda: png(chunk(b"IDAT", deflated(400 * MEGABYTE)), width=20_000, height=20_000),
        _HUGE,
    ),
    "PNG photo of 20 million pixels": (lambda: photo(PHOTO_SIDE, "PNG", compress_level=1), None),
    "PNG of 16 bits and 20 million pixels": (lambda: flat_png(PHOTO_SIDE, 16, 6, 8), _HUGE),
    "PNG whose pixels never end": (
        lambda: png(chunk(b"IDAT", deflated(500 * MEGABYTE)), width=8, height=8),
        None,
    ),
    "PNG of a million chunks": (lambda: png(chunk(b"IDAT", b"") * MEGABYTE), "damaged"),
    "PNG with a packed colour profile": (
        lambda: png(chunk(b"iCCP", b"a\0\0" + deflated(500 * MEGABYTE))),
        "not a picture",
    ),
    "PNG with a lying length": (
        lambda: png()[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(99),
        "damaged",
    ),
    "JPEG of 64 million pixels": (lambda: photo(7_996, "JPEG"), None),
    "JPEG of 65 million pixels": (lambda: photo(8_064, "JPEG"), _HUGE),
    "progressive JPEG of 20.07 million pixels": (
        lambda: photo(4_480, "JPEG", progressive=True),
        _HUGE,
    ),
    "WebP of 268 million pixels": (lambda: _webp_of(16_383), "pixels"),
    "lossless WebP of 8 million pixels": (
        lambda: photo(2_824, "WEBP", lossless=True, quality=0, method=0),
        None,
    ),
    "AVIF of 8 million pixels": (
        lambda: photo(2_824, "AVIF", "RGBA", speed=10, subsampling="4:4:4"),
        None,
    ),
    "GIF of three million frames": (_gif_frames, "animated"),
    "TIFF of 4,000,000 million pixels": (
        lambda: tiff(
            (256, 4, 1, 2_000_000), (257, 4, 1, 2_000_000), (258, 3, 1, 8), (262, 3, 1, 1)
        ),
        "picture",
    ),
    "TIFF in one strip": (
        lambda: photo(2_824, "TIFF", "CMYK", compression="tiff_lzw", strip_size=1 << 30),
        None,
    ),
    "TIFF with a long directory": (
        lambda: tiff(
            (256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 12_000_000, 8), behind=bytes(48_000_000)
        ),
        "directory",
    ),
    "TIFF of many tags": (
        lambda: tiff(
            *((tag, 1, 40 * MEGABYTE, 8) for tag in range(60_000)), behind=bytes(41_000_000)
        ),
        "",
    ),
    "JPEG of a thousand segments of EXIF": (
        lambda: b"\xff\xd8" + jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 1_000,
        "in too many pieces",
    ),
    "GIF of millions of comments": (
        lambda: _gif_of(8)[:19] + b"\x21\xfe\0" * 15 * MEGABYTE,
        "",
    ),
    "JPEG of millions of markers": (
        lambda: b"\xff\xd8" + b"\xff\xe5\0\2" * 15 * MEGABYTE,
        "not a picture",
    ),
    "64 MB of zeros": (lambda: bytes(64 * 1024 * 1024), "not a picture"),
    "65 MB": (lambda: bytes(65 * 1024 * 1024 + 1), "the limit is"),
}


def _exif(comment: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _texts(count: int, text: bytes) -> bytes:
    packed = zlib.compress(text)
    chunks = (chunk(b"iTXt", b"a%d\0\1\0\0\0" % number + packed) for number in range(count))
    return png(*chunks)


SETTINGS_OF_PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zTXt of 500 MB": (
        lambda: png(chunk(b"zTXt", b"parameters\0\0" + deflated(500 * MEGABYTE))),
        "not a picture",
    ),
    "iTXt of 500 MB": (
        lambda: png(chunk(b"iTXt", b"picowatch\0\1\0\0\0" + deflated(500 * MEGABYTE))),
        "not a picture",
    ),
    "a hundred texts": (
        lambda: _texts(100, ("🐶" + "a" * 999_000).encode()),
        "not a picture",
    ),
    "a million chunks": (lambda: png(chunk(b"IDAT", b"") * MEGABYTE), "contains no settings"),
    "EXIF of 60 MB": (
        lambda: png(chunk(b"eXIf", _exif(b"UNICODE\0" + "🐶a".encode("utf-16-le") * 10**7))),
        "",
    ),
    "deep JSON": (
        lambda: png(chunk(b"tEXt", b"picowatch\0" + b"[" * 1_000_000)),
        "damaged",
    ),
    "parameters of a megabyte": (
        lambda: png(
            chunk(b"tEXt", b"parameters\0a\nSteps: 1, Sampler: Euler, " + b"a: b, " * 170_000)
        ),
        "",
    ),
    "JPEG of millions of markers": (
        lambda: b"\xff\xd8" + b"\xff\xe5\0\2" * 15 * MEGABYTE,
        "not a picture",
    ),
    "JPEG of a thousand segments of EXIF": (
        lambda: _jpeg_of(jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 1_000),
        "in too many pieces",
    ),
    "64 MB of zeros": (lambda: bytes(64 * 1024 * 1024), "not a picture"),
}


# -- models


def safetensors(header: bytes, length: int | None = None, weights: int = 0) -> bytes:
    """A file with this header, whatever length it claims."""
    claimed = len(header) if length is None else length
    return struct.pack("<Q", claimed) + header + bytes(weights)


def tensors(**entries: object) -> bytes:
    """A header of these entries."""
    return json.dumps(entries).encode()


def _tensor(shape: object, offsets: object, dtype: object = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _lora(**entries: object) -> bytes:
    """A LoRA of one weight, and what else its header says."""
    return safetensors(tensors(**entries, lora_te_a=_tensor([1], [0, 2])), weights=2)


MODELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "header of 2^63 bytes": (lambda: safetensors(b"{}", 1 << 63), "does not begin with a header"),
    "header of 100 MB": (
        lambda: safetensors(b"{" + b"[" * 99_999_999),
        "does not begin with a header",
    ),
    "deep header": (lambda: safetensors(b'{"a":' + b"[" * 15_000_000), "its header cannot be read"),
    "a long name": (
        lambda: safetensors(b'{"' + b"a" * 15_000_000 + b'":{}}'),
        "its header cannot be read",
    ),
    "many tensors": (
        lambda: safetensors(
            tensors(**{f"a{n}": _tensor([], [0, 0], "F7") for n in range(100_000)})
        ),
        "tensors",
    ),
    "negative shape": (
        lambda: safetensors(tensors(emb_params=_tensor([-1, -768], [0, 1536])), weights=1536),
        "its header cannot be read",
    ),
    "endless offsets": (
        lambda: safetensors(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,1e999]}}'),
        "its header cannot be read",
    ),
    "numbers as metadata": (
        lambda: _lora(__metadata__={"ss_base_model_version": 5}),
        "its tensors begin with",
    ),
    "tags of megabytes": (
        lambda: _lora(
            __metadata__={"ss_tag_frequency": json.dumps({"a": {"b" * 9_000_000: 1, "c" * 99: 2}})}
        ),
        "its tensors begin with",
    ),
    "many tags": (
        lambda: _lora(
            __metadata__={
                "ss_tag_frequency": json.dumps({"a": {f"b{n}": n for n in range(240_000)}})
            }
        ),
        "its tensors begin with",
    ),
}


def _model(content: Callable[[], bytes], says: str) -> Hostile:
    recipe = b"prompt: a\ncheckpoint: it\n"
    return Hostile(
        lambda: {"models/checkpoints/it.safetensors": content(), "inbox/a.yaml": recipe}, says
    )


def _start_image(content: Callable[[], bytes], says: str | None) -> Hostile:
    recipe = b"prompt: a\nimage: start.png\n"
    return Hostile(lambda: {"inbox/start.png": content(), "inbox/a.yaml": recipe}, says)


def _settings(content: Callable[[], bytes], says: str) -> Hostile:
    recipe = b"from: a.png\nprompt: b\ncheckpoint: nowhere\n"
    return Hostile(lambda: {"inbox/a.png": content(), "inbox/a.yaml": recipe}, says)


def _wildcards(lines: Callable[[], bytes], prompt: str = "__x__", count: int = 1) -> Hostile:
    recipe = f"prompt: '{prompt}'\ncount: {count}\nseed: 1\n".encode()
    return Hostile(lambda: {"models/wildcards/x.txt": lines(), "inbox/a.yaml": recipe}, None)


HOSTILE: dict[str, Hostile] = {
    **{f"{name}, YAML": _recipe(text, None) for name, text in TEXTS.items()},
    **{f"{name}, TXT": _txt(text, None) for name, text in TEXTS.items()},
    "10 MB in a line": Hostile(_bytes_over_the_limit, "1,048,576"),
    **{f"start image: {name}": _start_image(*made) for name, made in START_IMAGES.items()},
    **{f"from: {name}": _settings(*made) for name, made in SETTINGS_OF_PICTURES.items()},
    **{f"model: {name}": _model(*made) for name, made in MODELS.items()},
    "wildcards: short lines": _wildcards(lambda: b"ab\n" * 1_600_000),
    "wildcards: drawn a thousand times": _wildcards(lambda: b"abcd\n" * 290_000, count=1000),
    "wildcards: a long line": _wildcards(lambda: b"a" * 4_900_000),
    "wildcards: of themselves": _wildcards(lambda: b"{a|__x__}\n" * 20_000),
    "a thousand wildcards in a thousand images": _recipe(
        "prompt: '" + "{a|b}" * 1000 + "'\nseed: 1\ncount: 1000", "characters of prompts"
    ),
    "a thousand pieces of a long prompt": _recipe(
        "prompt: '"
        + "{a|b}" * 300
        + "x'\nsweep: {'prompt: x': ["
        + ", ".join(f"y{n}" for n in range(1000))
        + "]}",
        "wildcards and brackets",
    ),
    "as many signs as may be": _recipe(
        "prompt: '" + "{a|b}" * 80 + "'\nseed: 1\ncount: 1000", None
    ),
    "a long prompt in a thousand images": _recipe(
        "prompt: '" + "a " * 500_000 + "'\nseed: 1\ncount: 1000", "the limit is 20,000"
    ),
    "a thousand recipes with long defaults": Hostile(
        lambda: {
            "inbox/_defaults.yaml": b"prompt: '" + b"a " * 500_000 + b"'",
            "inbox/a.yaml": b"- seed: 1\n" * 1000,
        },
        "the limit is 20,000",
    ),
}
