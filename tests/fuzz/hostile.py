"""Files that somebody may put into the folders to stop picowatch, some of megabytes."""

import json
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pillow_heif
from PIL import Image

from tests.catalog.files import safetensors
from tests.pictures import encoded

pillow_heif.register_heif_opener()
Files = dict[str, bytes]
MEGABYTE = 1_000_000


# Files, made when they are needed, and a piece of the error file; None if the recipe may be good.
Hostile = tuple[Callable[[], Files], str | None]
Photo = tuple[Callable[[], bytes], str]


def _recipe(text: str, says: str | None = None, name: str = "a.yaml") -> Hostile:
    return lambda: {f"inbox/{name}": text.encode()}, says


TEXTS = {
    "brackets": "prompt: '" + "(" * MEGABYTE + "'",
    "weights": "prompt: '" + "(a:1.2)" * 140_000 + "'",
    "bars": "prompt: '{" + "|" * MEGABYTE + "'",
    "wildcards": "prompt: '" + "{a|b}" * 200_000 + "'",
    "wildcards without end": "prompt: '" + "__a b " * 160_000,
    "wildcards within braces": "prompt: '" + "{" * 99 + "{a|b}" * 200_000 + "}" * 99 + "'",
    "lora tags": "prompt: '" + "<lora:y:1>" * 100_000 + "'",
    "embeddings": "prompt: '" + "a " * 500_000 + "'\nseed: 1\ncount: 1000",
    "loras": "prompt: a\nloras: '" + "y," * 400_000 + "'",
    "sweeps": "- {prompt: a, sweep: {steps: 1..100, cfg_scale: 1..10}}\n" * 18_000,
    "sweep of a long prompt": "prompt: '" + "a " * 500_000 + "'\nsweep: {cfg_scale: 1..10 step "
    "0.01, 'prompt: a': [b]}",
    "long range": "prompt: a\nsweep: {steps: 1.." + "9" * MEGABYTE + "}",
    "blank lines": "steps: 3\n" + "\n" * MEGABYTE,
    "a quarter of a million flags": "a" + " --a" * 250_000,
    "open quotes": "a" + ' --seed "' * 100_000,
    "prompts": "a\n" * 500_000,
    "long words": ("a" * 20_000 + "\n") * 50,
    "unknown fields": "".join(f"{number:05}tps: 1\n" for number in range(24_000)),
    "wrong values": "[" + "{prompt: a, steps: 0, seed: x}, " * 6_000 + "]",
    "parameters": "Steps: 1, Sampler: Euler, a" + " " * MEGABYTE,
    "whole blocks": "a.Negative prompt: b.Steps: 1, Seed: 1\n" * 25_000,
    "json": "Steps: 1, Sampler: Euler, a: " + "[" * MEGABYTE,
    "base 60": "steps: 1" + ":1" * 500_000,
    "aliases": "a: &a [x]\nb: [" + "*a, " * 200_000 + "]",
    "documents": "--- a\n" * 150_000,
    "nested lists": "[" * 100_000,
    "long unclosed quote": 'prompt: "' + "a\n" * 500_000,
    "zeros": "\0" * MEGABYTE,
}

UNKNOWN = "".join(f",c{number:05}" for number in range(100_000))
TABLES = {
    "unknown columns": f"prompt{UNKNOWN}\na{',x' * 100_000}\n",
    "empty columns": f"prompt{',' * 500_000}\na{',' * 500_000}\n",
    "one long column": "prompt\n" + f"a{',x' * 100_000}\n" * 5,
    "notes": f"prompt{',_a' * 100_000}\na{',1' * 100_000}\n",
}


# -- pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, width: int = 1, height: int = 1) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = [chunk(b"IHDR", head), *chunks, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@cache
def _zeros() -> bytes:
    """500 MB in zlib's form (RFC 1950), of which one is packed: after a full flush, blocks do not
    refer to those before.
    """
    piece, checksum = bytes(MEGABYTE), 1
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(500):
        checksum = zlib.adler32(piece, checksum)
    return b"\x78\xda" + block * 500 + b"\x03\x00" + checksum.to_bytes(4)


def _photo(side: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A picture that looks like one to a compressor: soft noise."""
    generator = np.random.default_rng(1)
    small = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
    whole = small.resize((side, side), Image.Resampling.BILINEAR).convert(mode)
    return encoded(whole, kind, **options)


def _tiff(*entries: tuple[int, int, int, int], behind: int) -> bytes:
    """A TIFF of one directory (tag, type, count, value), with zeros behind it."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4 + behind)


def _exif(comment: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _texts(count: int, text: bytes) -> bytes:
    packed = zlib.compress(text)
    return png(*(chunk(b"iTXt", b"a%d\0\1\0\0\0" % n + packed) for n in range(count)))


_NO_DATA = chunk(b"IDAT", b"")
_GIF = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
_SEGMENT = b"\xff\xe1" + struct.pack(">H", 2 + 65_006) + b"Exif\0\0" + bytes(65_000)
_NONE, _BAD, _HUGE, _NOTHING = "not a picture", "damaged", "the limit is 250", "no settings"
_LONG = "too long to be settings"

# What the answer says of each as a start image, and of its settings.
PICTURES: dict[str, tuple[Callable[[], bytes], str | None, str]] = {
    "PNG of 20 million pixels": (lambda: _photo(4_472, "PNG", compress_level=1), None, _NOTHING),
    "PNG of 256 million pixels": (lambda: png(width=16_000, height=16_000), _HUGE, _NOTHING),
    "endless pixels": (lambda: png(chunk(b"IDAT", _zeros())), None, _NOTHING),
    "a million chunks": (lambda: png(_NO_DATA * MEGABYTE), _BAD, _NOTHING),
    "colour profile of 500 MB": (lambda: png(chunk(b"iCCP", b"a\0\0" + _zeros())), _BAD, _LONG),
    "lying length": (lambda: png()[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(99), _BAD, _NOTHING),
    "zTXt of 500 MB": (lambda: png(chunk(b"zTXt", b"parameters\0\0" + _zeros())), _BAD, _LONG),
    "a thousand texts without names": (
        lambda: png(*[chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(8 * MEGABYTE)))] * 1_000),
        *(_BAD, _LONG),
    ),
    "a hundred texts": (lambda: _texts(100, ("🐶" + "a" * 999_000).encode()), _BAD, _LONG),
    "deep JSON": (lambda: png(chunk(b"tEXt", b"picowatch\0" + b"[" * MEGABYTE)), "", "not JSON"),
    "EXIF of 48 MB": (
        lambda: png(chunk(b"eXIf", _exif(b"UNICODE\0" + "🐶a".encode("utf-16-le") * 8 * MEGABYTE))),
        *("", ""),
    ),
    "JPEG of 64 million pixels": (lambda: _photo(7_996, "JPEG"), None, _NOTHING),
    "a thousand segments of EXIF": (lambda: b"\xff\xd8" + _SEGMENT * 1_000, _BAD, _NONE),
    "WebP of 8 million pixels": (
        lambda: _photo(2_824, "WEBP", lossless=True, quality=0, method=0),
        *(None, _NOTHING),
    ),
    "HEIC of 8 million pixels": (
        lambda: _photo(2_824, "HEIF", "RGBA", quality=20, chroma=444),
        *(None, _NOTHING),
    ),
    "TIFF in one strip": (
        lambda: _photo(2_824, "TIFF", "CMYK", compression="tiff_lzw", strip_size=1 << 30),
        *(None, ""),
    ),
    "TIFF of many tags": (
        lambda: _tiff(*((tag, 1, 40 << 20, 8) for tag in range(60_000)), behind=41 << 20),
        *("It is a TIFF that is not whole", ""),
    ),
    "GIF of three million frames": (lambda: _GIF + _FRAME * 3 * MEGABYTE, "animated", ""),
    "64 MB of zeros": (lambda: bytes(64 << 20), _NONE, _NONE),
}


# -- photos, whose EXIF, XMP and colour profile are used


_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LAUGHS = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))


def _xmp(inside: str, head: str = "") -> bytes:
    inner = f'<rdf:Description rdf:about="" xmlns:dc="d">{inside}</rdf:Description>'
    return f'{head}<x:x xmlns:x="x"><rdf:RDF xmlns:rdf="{_RDF}">{inner}</rdf:RDF></x:x>'.encode()


def _profile(size: int) -> bytes:
    """A profile with a table of curves of 4096 numbers, which reaches to its end."""
    head = struct.pack(">I", size) + b"lcms\4\x30\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    row = struct.pack(">I4sII", 1, b"A2B0", 144, size - 144)
    table = b"mft2\0\0\0\0\3\3\xff\0" + bytes(36) + struct.pack(">HH", 4096, 4096)
    return (head.ljust(128, b"\0") + row + table).ljust(size, b"\x7f")


def _numbers(tag: int, count: int) -> bytes:
    """EXIF in which a tag is so many thirds."""
    entry = struct.pack(">HHHLLL", 1, tag, 5, count, 26, 0)
    return b"Exif\0\0MM\0*\0\0\0\x08" + entry + struct.pack(">LL", 1, 3) * count


def _tags(count: int) -> bytes:
    entries = (struct.pack(">HHLL", 30_000 + number, 4, 1, number) for number in range(count))
    head = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", count)
    return head + b"".join(entries) + bytes(4)


def _in_segments(exif: bytes) -> bytes:
    """A JPEG with EXIF that is longer than one segment."""
    pieces = [exif[at : at + 65_000] for at in range(6, len(exif), 65_000)]
    segments = (
        b"\xff\xe1" + struct.pack(">H", len(piece) + 8) + b"Exif\0\0" + piece for piece in pieces
    )
    return b"\xff\xd8" + b"".join(segments) + _photo(64, "JPEG")[20:]


def _profile_text(kind: bytes, text: bytes) -> bytes:
    """A PNG of one pixel with a raw profile, behind its pixels."""
    profile = b"Raw profile type " + kind + b"\0\0" + zlib.compress(text)
    pixel = chunk(b"IDAT", zlib.compress(bytes(4)))
    return png(pixel, chunk(b"zTXt", profile), width=1, height=1)


def _photos(name: str, says: str, *kinds: str, **options: object) -> dict[str, Photo]:
    return {
        f"{name}, {kind}": (partial(_photo, 64, kind, "RGB", **options), says) for kind in kinds
    }


_ATTRIBUTES = " ".join(f"dc:a{number}=''" for number in range(100_000))
_LOOP = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
_LONG_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(60 * MEGABYTE)
_MULTIPLIED = _xmp("&a9;", f'<!DOCTYPE x [<!ENTITY a0 "a">{_LAUGHS}]>')
_HEX = b"\nexif\n9\n" + b"ab" * 500_000
_ALL_KINDS = ("JPEG", "WEBP", "AVIF", "HEIF")
_MANY_NUMBERS = partial(_numbers, 0x11A, 1_500_000)

# Photos, and what the error file or the template's warning says; "" for a picture without one.
PHOTOS: dict[str, Photo] = {
    **_photos("EXIF in circles", "", *_ALL_KINDS, exif=_LOOP),
    **_photos("EXIF of 60 MB", _BAD, "WEBP", "HEIF", exif=_LONG_EXIF),
    "XMP of 60 MB": (lambda: _photo(64, "WEBP", xmp=bytes(60 * MEGABYTE)), _BAD),
    **_photos("XMP that multiplies", "it defines entities", "JPEG", xmp=_MULTIPLIED),
    **_photos("much XMP", "it has more than", "WEBP", xmp=_xmp("<dc:a/>" * 140_000)),
    **_photos("long XMP", "larger than a megabyte", "WEBP", xmp=_xmp(f"<dc:a {_ATTRIBUTES}/>")),
    **_photos("deep XMP", "cannot be read", "WEBP", xmp=_xmp("<dc:a>" * 9_000 + "</dc:a>" * 9_000)),
    "resolutions by the million": (lambda: _in_segments(_MANY_NUMBERS()), "large: XResolution"),
    **_photos("lenses by the thousand", "", "WEBP", exif=_numbers(0xC632, 30_000)),
    **_photos("EXIF of 20,000 tags", "too large", "WEBP", exif=_tags(20_000)),
    "a raw profile": (lambda: _profile_text(b"exif", _HEX), "EXIF of p/a.jpg cannot be read"),
    "a raw profile of garbage": (
        lambda: _profile_text(b"iptc", b"\niptc\n9\n" + b"x" * MEGABYTE),
        "IPTC of p/a.jpg cannot be read",
    ),
    **_photos("a profile of garbage", "", "PNG", icc_profile=b"\xff" * MEGABYTE),
    **_photos("a profile of 10 MB", "", *_ALL_KINDS, icc_profile=_profile(10 * MEGABYTE)),
    "a HEIC cut at 1000 of its bytes": (lambda: _photo(256, "HEIF")[:-1000], _BAD),
}


# -- models


def _lora(**metadata: object) -> bytes:
    weight = {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}
    header = {"__metadata__": metadata, "lora_te_a": weight}
    return safetensors(json.dumps(header).encode(), weights=2)


def _many_tensors() -> bytes:
    tensor = {"dtype": "F7", "shape": [], "data_offsets": [0, 0]}
    return safetensors(json.dumps({f"a{n}": tensor for n in range(100_000)}).encode())


_LENGTH, _HEADER, _TENSORS = "begin with a header", "header cannot be read", "its tensors begin"
MODELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "header of 100 MB": (lambda: safetensors(b"{" + b"[" * 99_999_999), _LENGTH),
    "deep header": (lambda: safetensors(b'{"a":' + b"[" * 15_000_000), _HEADER),
    "a long name": (lambda: safetensors(b'{"' + b"a" * 15_000_000 + b'":{}}'), _HEADER),
    "many tensors": (_many_tensors, "tensors"),
    "numbers as metadata": (lambda: _lora(ss_base_model_version=5), _TENSORS),
    "tags of megabytes": (
        lambda: _lora(ss_tag_frequency=json.dumps({"a": {"b" * 9_000_000: 1, "c" * 99: 2}})),
        _TENSORS,
    ),
    "many tags": (
        lambda: _lora(ss_tag_frequency=json.dumps({"a": {f"b{n}": n for n in range(240_000)}})),
        _TENSORS,
    ),
}


# -- all of them


def _beside(recipe: str, file: str, content: Callable[[], bytes], says: str | None) -> Hostile:
    return lambda: {file: content(), "inbox/a.yaml": recipe.encode()}, says


def _wildcards(lines: bytes, count: int = 1) -> Hostile:
    recipe = f"prompt: __x__\ncount: {count}\nseed: 1\n"
    return _beside(recipe, "models/wildcards/x.txt", lambda: lines, None)


START_IMAGE = "prompt: a\nimage: start.png\n"
SETTINGS = "from: a.png\nprompt: b\ncheckpoint: nowhere\n"
MODEL = "prompt: a\ncheckpoint: it\n"
A_THOUSAND = "'\nseed: 1\ncount: 1000"
HOSTILE: dict[str, Hostile] = {
    **{f"{name}, YAML": _recipe(text) for name, text in TEXTS.items()},
    **{f"{name}, TXT": _recipe(text, name="a.txt") for name, text in TEXTS.items()},
    **{f"table: {name}": _recipe(text, name="a.csv") for name, text in TABLES.items()},
    "10 MB in a line": _recipe("prompt: " + "a" * 10 * MEGABYTE, "1,048,576"),
    **{
        f"start image: {name}": _beside(START_IMAGE, "inbox/start.png", content, says)
        for name, (content, says, _) in PICTURES.items()
    },
    **{
        f"from: {name}": _beside(SETTINGS, "inbox/a.png", content, says)
        for name, (content, _, says) in PICTURES.items()
    },
    **{
        f"model: {name}": _beside(MODEL, "models/checkpoints/it.safetensors", *made)
        for name, made in MODELS.items()
    },
    "wildcards: short lines": _wildcards(b"ab\n" * 1_600_000),
    "wildcards: drawn a thousand times": _wildcards(b"abcd\n" * 290_000, count=1000),
    "wildcards: a long line": _wildcards(b"a" * 4_900_000),
    "wildcards: of themselves": _wildcards(b"{a|__x__}\n" * 20_000),
    "a thousand wildcards in a thousand images": _recipe(
        "prompt: '" + "{a|b}" * 1000 + A_THOUSAND, "80 times"
    ),
    "a thousand wildcards in the details of a thousand images": _recipe(
        "prompt: a\ndetail:\n  find: face\n  prompt: '" + "{a|b}" * 1000 + A_THOUSAND, "80 times"
    ),
    "a thousand pieces of a long prompt": _recipe(
        f"prompt: '{'{a|b}' * 300}x'\nsweep: {{'prompt: x': {[f'y{n}' for n in range(1000)]}}}",
        "80 times",
    ),
    "a thousand LoRAs of A1111's other form": _recipe(
        "<lora:x:1:1>" * 1600 + "\nSteps: 3, Seed: 4", "is not a LoRA", name="a.txt"
    ),
    "as many signs as may be": _recipe("prompt: '" + "{a|b}" * 80 + A_THOUSAND),
    "a long prompt in a thousand images": _recipe(
        "prompt: '" + "a " * 500_000 + A_THOUSAND, "the limit is 20,000"
    ),
    "a thousand recipes with long defaults": (
        lambda: {
            "inbox/_defaults.yaml": b"prompt: '" + b"a " * 500_000 + b"'",
            "inbox/a.yaml": b"- seed: 1\n" * 1000,
        },
        "the limit is 20,000",
    ),
}
