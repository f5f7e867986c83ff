"""JPEGs of many kinds for tests: by encoders, and by hand where no encoder would."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFile

ImageFile.MAXBLOCK = 1 << 24  # Pillow's buffer for noise at high quality

BASELINE, PROGRESSIVE = 0xC0, 0xC2
END = b"\xff\xd9"
_DC_ZERO = "0"  # one symbol, a code of one bit
_ONE, _RUN, _LAST = "000", "001", "010"  # codes of the AC symbols below
_AC_SYMBOLS = (0x01, 0xE0, 0x00)  # a coefficient of 1 bit, 2^14 blocks end, this block ends


def noise(px: int, seed: int = 0) -> np.ndarray:
    """Return uniform noise (px, px, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (px, px, 3)).astype(np.uint8)


def by_pillow(image: np.ndarray, mode: str = "RGB", **how: Any) -> bytes:
    """Return an RGB image as Pillow saves it."""
    out = io.BytesIO()
    Image.fromarray(image).convert(mode).save(out, "JPEG", **how)
    return out.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    """Return a segment with its marker and length."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def frame_header(
    width: int, height: int, components: int = 3, marker: int = BASELINE, bits: int = 8
) -> bytes:
    """Return a frame header without subsampling."""
    each = b"".join(bytes([i + 1, 0x11, 0]) for i in range(components))
    return segment(marker, struct.pack(">BHHB", bits, height, width, components) + each)


def scan_header(components: Sequence[int], first: int, last: int, bits: int) -> bytes:
    """Return a scan header: coefficients `first` to `last`, successive approximation `bits`."""
    each = b"".join(bytes([c, 0]) for c in components)
    return segment(0xDA, bytes([len(components)]) + each + bytes([first, last, bits]))


def scan_bomb(px: int, scans: int, components: int = 1) -> bytes:
    """Return a grey progressive picture whose later scans say, in a few bytes, nothing."""
    blocks = _blocks(px)
    nothing = _packed(((_RUN + "0" * 14) * -(-blocks // (1 << 14)),))
    out = _progressive_start(px, components)
    for i in range(scans - 1):
        out += scan_header([i % components + 1], 1, 63, 0) + nothing
    return out + END


def refinement_bomb(px: int, refinements: int, dense: bool, components: int = 3) -> bytes:
    """Return a picture of coefficients that are refined again and again, a bit each."""
    blocks = _blocks(px)
    block = "".join(_ONE + "10"[k % 2] for k in range(63))
    out = _progressive_start(px, components)
    for c in range(components):
        out += scan_header([c + 1], 1, 63, 0x01) + _packed((block * blocks if dense else "",))
    for i in range(refinements):
        out += scan_header([i % components + 1], 1, 63, 0x10) + _packed(_refinement(blocks))
    return out + END


def _progressive_start(px: int, components: int) -> bytes:
    tables = segment(0xDB, b"\x00" + b"\x01" * 64)
    tables += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    tables += segment(0xC4, b"\x10" + bytes([0, 0, 3] + [0] * 13) + bytes(_AC_SYMBOLS))
    header = frame_header(px, px, components, PROGRESSIVE)
    flat = _packed((_DC_ZERO * _blocks(px) * components,))
    scan = scan_header(range(1, components + 1), 0, 0, 0)
    return b"\xff\xd8" + tables + header + scan + flat


def _refinement(blocks: int) -> Iterator[str]:
    while blocks:
        run = min(blocks, (1 << 15) - 1)
        if run >= 1 << 14:
            yield _RUN + format(run - (1 << 14), "014b")
        else:
            run = 1
            yield _LAST
        yield ("10" * 31 + "1") * run
        blocks -= run


def _blocks(px: int) -> int:
    return (-(-px // 8)) ** 2


def _packed(bits: Any) -> bytes:
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    data = int(joined or "0", 2).to_bytes(len(joined) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")
