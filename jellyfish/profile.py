"""The profile of a zoo: what each DNN costs and earns (RTSS 2022, section IV)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jellyfish.errors import ConfigError

FloatArray = NDArray[np.float64]


def monotone(latency_ms: FloatArray) -> FloatArray:
    """Return `latency_ms` (M, B) raised to be non-decreasing in DNN and in batch size.

    Measured tails cross; the scheduler relies on larger DNNs and batches never being faster.
    """
    return np.maximum.accumulate(np.maximum.accumulate(latency_ms, axis=0), axis=1)


def _read_only(values: Sequence[Any] | FloatArray, name: str, ndim: int) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ConfigError(f"profile: {name} must be a non-empty {ndim}-dimensional array")
    if not np.isfinite(array).all():
        raise ConfigError(f"profile: {name} holds a value that is not finite")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Profile:
    """Costs and worth of M DNNs at batch sizes 1..B; DNN m is an index into these arrays.

    Args:
        input_px: (M,) input size in pixels, ascending.
        frame_bytes: (M,) bytes of a frame encoded at that size.
        accuracy: (M,) worth of an answer, 0 to 1.
        latency_ms: (M, B) p99 milliseconds for which a batch occupies the worker, JPEG decode
            and NMS included; made monotone here.

    Raises:
        ConfigError: lengths differ, or a value is out of its range; the text names the field.
    """

    input_px: FloatArray
    frame_bytes: FloatArray
    accuracy: FloatArray
    latency_ms: FloatArray

    def __init__(
        self,
        *,
        input_px: Sequence[float] | FloatArray,
        frame_bytes: Sequence[float] | FloatArray,
        accuracy: Sequence[float] | FloatArray,
        latency_ms: Sequence[Sequence[float]] | FloatArray,
    ) -> None:
        fields = {
            "input_px": _read_only(input_px, "input_px", 1),
            "frame_bytes": _read_only(frame_bytes, "frame_bytes", 1),
            "accuracy": _read_only(accuracy, "accuracy", 1),
            "latency_ms": _read_only(latency_ms, "latency_ms", 2),
        }
        dnns = len(fields["input_px"])
        for name, array in fields.items():
            if len(array) != dnns:
                raise ConfigError(f"profile: {name} has {len(array)} rows, input_px has {dnns}")
        if (np.diff(fields["input_px"]) <= 0).any() or fields["input_px"][0] <= 0:
            raise ConfigError("profile: input_px must be positive and ascending")
        for name in ("frame_bytes", "latency_ms"):
            if (fields[name] <= 0).any():
                raise ConfigError(f"profile: {name} must be positive")
        if (fields["accuracy"] < 0).any() or (fields["accuracy"] > 1).any():
            raise ConfigError("profile: accuracy must lie between 0 and 1")
        raised = monotone(fields["latency_ms"])
        raised.setflags(write=False)
        fields["latency_ms"] = raised
        for name, array in fields.items():
            object.__setattr__(self, name, array)

    @property
    def dnns(self) -> int:
        """Number of DNNs, M."""
        return len(self.input_px)

    @property
    def max_batch(self) -> int:
        """Largest profiled batch size, B."""
        return int(self.latency_ms.shape[1])

    @cached_property
    def throughput(self) -> FloatArray:
        """(M, B) frames per second of DNN m at batch size b, at the p99 latency."""
        carried: FloatArray = np.arange(1, self.max_batch + 1) * 1000.0 / self.latency_ms
        carried.setflags(write=False)
        return carried

    @cached_property
    def fastest(self) -> FloatArray:
        """(M, B + 1) the most that DNN m carries with batches of up to 0, 1, ...; -inf for none."""
        carried = np.full((self.dnns, self.max_batch + 1), -np.inf)
        np.maximum.accumulate(self.throughput, axis=1, out=carried[:, 1:])
        carried.setflags(write=False)
        return carried

    def index_of(self, px: int) -> int:
        """Return the DNN whose input size is `px`.

        Raises:
            ConfigError: no DNN has that size.
        """
        found = np.flatnonzero(self.input_px == px)
        if not len(found):
            sizes = ", ".join(str(int(p)) for p in self.input_px)
            raise ConfigError(f"no DNN takes {px} px; the profile has {sizes}")
        return int(found[0])

    def as_dict(self) -> dict[str, Any]:
        """Return the four arrays as lists, ready for JSON; `Profile(**d)` reads it back."""
        return {
            "input_px": [int(px) for px in self.input_px],
            "frame_bytes": self.frame_bytes.tolist(),
            "accuracy": self.accuracy.tolist(),
            "latency_ms": self.latency_ms.tolist(),
        }
