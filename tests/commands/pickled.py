"""Files as torch.save writes them, byte by byte: whole ones, and others that never were."""

import io
import struct
import zipfile


def text(value: str) -> bytes:
    """A text of up to 255 bytes."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """A number of up to four bytes."""
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    offset: int = 0, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1)
) -> bytes:
    """The call that rebuilds a tensor from storage "0", which has six numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n"
    storage += text("0") + text("cpu") + number(6) + b"tQ"
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


SIX = struct.pack("<6f", *range(6))
EVIL = {
    "system": b"cposix\nsystem\n" + b"(" + text("touch it-went-off") + b"tR",
    "by protocol 4": text("os") + text("mkdir") + b"\x93" + text("it-went-off") + b"\x85R",
    "by an instance": b"(" + text("it-went-off") + b"iposix\nmkdir\n",
    "through torch": b"ctorch.hub\nload\n(" + text("a/b") + text("c") + b"tR",
}
