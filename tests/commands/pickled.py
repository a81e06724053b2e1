"""Files as torch.save writes them, byte by byte: whole ones, and others that never were."""

import io
import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    """A text of up to 255 bytes."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """A number of up to four bytes, or of eight."""
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str = "0",
    type_: str = "FloatStorage",
    held: int = 6,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
) -> bytes:
    """The call that rebuilds a tensor."""
    storage = b"(" + text("storage") + b"ctorch\n" + type_.encode() + b"\n"
    storage += text(key) + text("cpu") + number(held) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def weights(**tensors: bytes) -> bytes:
    """A dictionary of tensors."""
    pairs = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + pairs + b"u."


def zipped(content: bytes, storages: dict[str, bytes], *, packed: bool = False) -> bytes:
    """As torch has written since 1.6."""
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, numbers_ in storages.items():
            archive.writestr(f"archive/data/{key}", numbers_)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def rowed(content: bytes, storages: dict[str, bytes], each: int = 4) -> bytes:
    """As torch wrote before 1.6."""
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    # Each storage said there of which other one it is a view; "tQ" ends its description.
    parts += [content.replace(b"tQ", b"NtQ"), pickle.dumps(list(storages), 2)]
    for held in storages.values():
        parts.append(struct.pack("<q", len(held) // each) + held)
    return b"".join(parts)


SIX = struct.pack("<6f", *range(6))
EVIL = {
    "system": b"cposix\nsystem\n" + b"(" + text("touch it-went-off") + b"tR",
    "eval": b"cbuiltins\neval\n" + b"(" + text("open('it-went-off', 'w')") + b"tR",
    "by protocol 4": text("os") + text("mkdir") + b"\x93" + text("it-went-off") + b"\x85R",
    "by an instance": b"(" + text("it-went-off") + b"iposix\nmkdir\n",
    "through torch": b"ctorch.hub\nload\n(" + text("a/b") + text("c") + b"tR",
    "attributes": b"ctorch._utils\n_rebuild_tensor_v2\n}(" + text("__code__") + text("x") + b"ub",
    "a call of a value": text("it") + b"(tR",
    "an extension": b"\x82\x01",
}
