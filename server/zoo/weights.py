"""The values of a Darknet network: a header, then every float in the order of the layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jellyfish.errors import DataError

Floats = NDArray[np.float32]


class Weights:
    """The floats of a Darknet weights file, taken one after another; every one must be used.

    Raises:
        DataError: the file is missing, or too short for its own header.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) < 20:
            raise DataError(f"{path} is cut short: {len(data)} bytes do not hold a header")
        major, minor = np.frombuffer(data, "<i4", 2)
        # Version 0.2 widened the count of images seen from 4 bytes to 8.
        header = 20 if major * 10 + minor >= 2 else 16
        if (len(data) - header) % 4:
            raise DataError(f"{path} is cut short: {len(data)} bytes are not whole floats")
        self._floats = np.frombuffer(data, "<f4", offset=header)
        self._next = 0

    def take(self, *shape: int) -> Floats:
        """Return the next floats in `shape`.

        Raises:
            DataError: the file has no more.
        """
        count = int(np.prod(shape))
        if self._next + count > len(self._floats):
            raise DataError(
                f"{self._path} is cut short: the network needs more than its "
                f"{len(self._floats)} floats"
            )
        values = self._floats[self._next : self._next + count].reshape(shape)
        self._next += count
        return values

    def check_all_used(self) -> None:
        """Raise DataError where floats are left over: the weights are another network's."""
        left = len(self._floats) - self._next
        if left:
            raise DataError(
                f"{self._path} is too long: {left} of its {len(self._floats)} floats are left "
                "over; it belongs to another network"
            )
