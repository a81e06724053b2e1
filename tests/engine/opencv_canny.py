"""The recorded result of OpenCV's Canny for a small picture, with thresholds of 100 and 200.

`cv2.Canny(picture, 100, 200)` of opencv-python-headless 5.0.0.93 and of 4.14.0.94 (both gave the
same), with numpy 2.4.6 on x86-64. A row of pixels is 16 hexadecimal digits, an edge is a bit that
is set. The picture is made of integers only, so that every machine draws the same one.
"""

import numpy as np

from picowatch.engine.preprocess import Pixels


def grain() -> Pixels:
    """Noise, blurred: weak edges beside strong ones."""
    index = np.arange(48 * 64 * 3, dtype=np.uint64)
    noise = (index * np.uint64(2654435761) >> np.uint64(13)) % np.uint64(256)
    padded = np.pad(noise.astype(int).reshape(48, 64, 3), ((2, 2), (2, 2), (0, 0)), mode="edge")
    blurred = sum(padded[y : y + 48, x : x + 64] for y in range(5) for x in range(5))
    return (np.asarray(blurred) // 25 * 3 % 256).astype(np.uint8)


def unpacked(rows: str) -> Pixels:
    """Return the edges in rows of digits, as 255 each."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(rows), np.uint8))
    return bits.reshape(-1, 64) * np.uint8(255)


GRAIN = """
a400100008004001980070000803be01000018000800020280fff000080003020100007ff8000201
81800080001ffe00c10000c00020000f5f00008000300010c007ff800020001b40040001ffe00012
400c00010000fff3c00000030000000207f8000100018000c40001ff0001000306000100007f0002
c00001800080003f3c00010000c00040800fff000080006040100007ff800043401800080003ffc2
c010000c000400021ff000080006000180007ff800040000000040003ffc00038000c000000000fa
4000400060000082407fc000400000c1c040001fc0000000006000200007ff838040003000080002
5fc00020000c00024001ffe000080001c00200007ff800000003000080003fff80020000c0002000
5ffe000080006003500007ff8000400250000000003fc002c0000c000020001f6000080000300010
c003f8000020001b40040001ffe00012c00600020000fff300040003000100003ffc000200018000
c0001fff00008001007fd0000000e0008000200000000003
"""
