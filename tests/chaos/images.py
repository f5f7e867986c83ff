"""Real JPEGs of every size, and files that are no honest frames."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

SCAN_S = 0.0012  # what a scan too many costs a worker, of the largest file that was measured
SOS = b"\xff\xda"


@lru_cache
def jpeg(px: int, number: int) -> bytes:
    """Return frame `number` of a made-up clip, `px` x `px`."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    image = cv2.resize(small, (px, px), interpolation=cv2.INTER_CUBIC)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return data.tobytes()


@lru_cache
def heavy(px: int) -> bytes:
    """Return noise, `px` x `px`: as heavy as honest content gets."""
    noise = np.random.default_rng(0).integers(0, 255, (px, px, 3)).astype(np.uint8)
    done, data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return data.tobytes()


@lru_cache
def bomb(count: int) -> bytes:
    """Return a file of `count` scans that claims 4096 x 4096."""
    honest = bytearray(jpeg(128, 0))
    size = honest.index(b"\xff\xc0") + 5
    honest[size : size + 4] = (4096).to_bytes(2, "big") * 2
    start = honest.index(SOS)
    scan = bytes(honest[start : start + 2 + int.from_bytes(honest[start + 2 : start + 4], "big")])
    return bytes(honest[:start]) + (scan + b"\x00" * 20) * count + b"\xff\xd9"


def scans(file: bytes | memoryview) -> int:
    """Return how many scans a file has; 0 where it is no JPEG."""
    return _scans(bytes(file))


@lru_cache
def _scans(image: bytes) -> int:
    return image.count(SOS) if image.startswith(b"\xff\xd8") else 0
