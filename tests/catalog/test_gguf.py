"""GGUF files: recognised by their headers, and refused in words where they are damaged."""

import struct
from math import prod
from pathlib import Path

import pytest

from picowatch.catalog.headers import BLOCKS, TYPES
from tests.catalog.files import Shapes, found_in, refused_in
from tests.catalog.shapes import Z_IMAGE, flux

U32, TEXT, LIST = 4, 8, 9
_NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = entry("general.architecture", TEXT, text("flux"))
Q4_K_S = entry("general.file_type", U32, struct.pack("<I", 14))


def gguf(
    shapes: Shapes,
    kind: str = "Q4_K",
    metadata: tuple[bytes, ...] = (ARCHITECTURE, Q4_K_S),
    version: int = 3,
    number: int | None = None,
) -> tuple[bytes, int]:
    head = b"GGUF" + struct.pack("<IQQ", version, len(shapes), len(metadata)) + b"".join(metadata)
    offset = 0
    for name, shape in shapes.items():
        chosen = kind if len(shape) == 2 and shape[1] % 256 == 0 else "F32"
        block, size = BLOCKS.get(chosen, (1, 1))
        head += text(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", side) for side in reversed(shape))
        head += struct.pack("<IQ", _NUMBERS[chosen] if number is None else number, offset)
        offset += -(-prod(shape) // block * size // 32) * 32
    begin = -(-len(head) // 32) * 32
    return head, begin + offset


def add(models: Path, content: tuple[bytes, int], name: str = "checkpoints/it.gguf") -> None:
    head, size = content
    path = models / name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


CODES = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
EVERY_TYPE = (
    *(entry(f"n{kind}", kind, struct.pack(f"<{code}", 1)) for kind, code in CODES.items()),
    entry("words", LIST, struct.pack("<IQ", TEXT, 2) + text("a") + text("b")),
    entry("longs", LIST, struct.pack("<IQ3Q", 10, 3, 1, 2, 3)),
    entry("lists", LIST, struct.pack("<IQIQ2BIQ", LIST, 2, 0, 2, 1, 2, TEXT, 1) + text("a")),
)


@pytest.mark.parametrize(
    ("kind", "metadata", "stored"),
    [
        ("Q8_0", (ARCHITECTURE, Q4_K_S), "Q8_0"),
        ("Q4_K", (ARCHITECTURE, Q4_K_S), "Q4_K_S"),
        ("Q4_K", (ARCHITECTURE,), "Q4_K"),
        ("Q4_K", (*EVERY_TYPE, Q4_K_S), "Q4_K_S"),
        ("BF16", (), "bfloat16"),
        ("Q5_K", (entry("general.file_type", TEXT, text("17")),), "Q5_K_M"),
    ],
)
def test_the_type_of_most_weights_is_told(
    tmp_path: Path, kind: str, metadata: tuple[bytes, ...], stored: str
) -> None:
    """As the declared mixture, if it is of that type. The name keeps its ending."""
    add(tmp_path, gguf(Z_IMAGE, kind, metadata), "checkpoints/z_turbo.gguf")
    found = found_in(tmp_path)
    assert (found.name, found.family, found.stored) == ("z_turbo.gguf", "z_image", stored)
    assert found.missing.startswith("z_turbo.gguf has only the transformer of Z-Image")


HEAD, SIZE = gguf(flux())
CLAIMING = HEAD[:8] + struct.pack("<Q", 2**62) + HEAD[16:]


def _with(kind: int, value: bytes, key: str = "x") -> tuple[bytes, int]:
    return gguf(flux(), metadata=(entry(key, kind, value),))


HALF = gguf({"double_blocks.0.img_attn.qkv.weight": (8, 100)}, number=12)
TWO, TWO_SIZE = gguf({"img_in.weight": (8, 256), "img_up.weight": (8, 256)})
WIDE = struct.pack("<IQIQ", LIST, 1_999_999, 0, 2)
DEEP = struct.pack("<IQ", LIST, 1) * 2000
TWICE = TWO.replace(b"img_up", b"img_in"), TWO_SIZE  # one would hide the other
DAMAGED: list[tuple[tuple[bytes, int], str]] = [
    ((b"", 0), "is empty"),
    ((b"GGML" + HEAD[4:], SIZE), "is not a GGUF file"),
    (gguf(flux(), version=1), "is a GGUF file of version 1"),
    ((HEAD, SIZE - 40), "is cut off: "),
    ((CLAIMING, SIZE), "is damaged: it claims 4,611,686,018,427,387,904 tensors"),
    (_with(LIST, struct.pack("<IQ", TEXT, 2**33)), "is damaged: it claims 8,589,934,592 values"),
    (_with(99, b""), "is damaged: its metadata has a value of an unknown type"),
    (_with(LIST, struct.pack("<IQ", 99, 1)), "is damaged: its metadata has a value of an unknown"),
    (_with(LIST, DEEP), "is damaged: its header cannot be read"),
    (_with(LIST, WIDE), "cannot be used: its metadata has too many values"),
    (_with(TEXT, text("²"), "general.alignment"), "is damaged: its alignment"),
    (gguf(flux(), number=99), "is quantised as type 99, which picowatch does not know"),
    (TWICE, "is damaged: it has two tensors 'img_in.weight'"),
    (HALF, "is damaged: its tensor 'double_blocks.0.img_attn.qkv.weight' has no valid shape"),
]


def test_what_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    """Before anything of its size is taken from memory."""
    for content, words in DAMAGED:
        add(tmp_path, content)
        assert refused_in(tmp_path).startswith(f"it.gguf {words}")
    (tmp_path / "checkpoints/it.gguf").unlink()
    add(tmp_path, gguf(flux()), "vae/it.gguf")
    assert refused_in(tmp_path).endswith(": picowatch reads only transformers from such files.")
