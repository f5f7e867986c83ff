"""Emulated devices: how long a batch takes and what is found in it, without running a DNN.

Both worlds take durations and answers from here. A duration is a draw by number: it depends on
the worker's seed and on which of its batches it is, not on what was drawn before, so that a worker
process and one in virtual time draw the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from jellyfish.detections import Detections
from jellyfish.errors import DataError

if TYPE_CHECKING:
    from jellyfish.files.clip_detections import ClipDetections

LOAD_MS = 100.0  # what loading and warming a DNN is said to take
P99 = 2.33  # standard deviations above the mean

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_inverse_normal = NormalDist().inv_cdf


def uniform(seed: int, n: int) -> float:
    """Return the `n`-th random number of stream `seed`, in (0, 1) (SplitMix64)."""
    return ((_mixed(_mixed(seed) + (n + 1) * _GOLDEN) >> 11) + 0.5) * 2.0**-53


def worker_seed(seed: int, worker: int) -> int:
    """Return the seed of worker number `worker` in a run with `seed`."""
    return _mixed(seed * 1000 + worker + 1)


def _mixed(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class LatencyModel(ABC):
    """For how long a batch occupies an emulated device."""

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> LatencyModel:
        """Return the model that `value`, the content of an emulation.json, describes.

        `{"kind": "jitter", "latency_ms": [dnn][batch - 1], "sigma", "cap"}` or
        `{"kind": "samples", "samples_ms": [dnn][batch - 1][...]}`.

        Raises:
            DataError: it describes none; the text says why.
        """
        kind = value.get("kind") if isinstance(value, Mapping) else None
        try:
            if kind == "jitter":
                return JitterModel(value["latency_ms"], value["sigma"], value["cap"])
            if kind == "samples":
                return SampledModel(value["samples_ms"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"emulation of kind {kind}: {error!r}") from error
        raise DataError(f"emulation: kind is {kind!r}; there are: jitter, samples")

    @property
    @abstractmethod
    def dnns(self) -> int:
        """Number of DNNs."""

    @property
    @abstractmethod
    def max_batch(self) -> int:
        """Largest batch size that every DNN has."""

    def duration_ms(self, dnn: int, batch: int, seed: int, n: int) -> float:
        """Return for how many ms the `n`-th batch of the worker with `seed` occupies it.

        Raises:
            DataError: the model has no such DNN or batch size; the text names it.
        """
        if not (0 <= dnn < self.dnns and 0 < batch <= self.max_batch):
            raise DataError(
                f"the emulation has DNNs 0 to {self.dnns - 1} at batches of 1 to {self.max_batch}; "
                f"asked for DNN {dnn} at {batch}"
            )
        return self._drawn_ms(dnn, batch, uniform(seed, n))

    @abstractmethod
    def _drawn_ms(self, dnn: int, batch: int, u: float) -> float:
        """Return the duration at the quantile or position `u`."""


class JitterModel(LatencyModel):
    """A stated latency, its p99, times a lognormal factor: min(cap, exp(N(-2.33 sigma, sigma))).

    Args:
        latency_ms: [dnn][batch - 1].
        sigma: of the factor's logarithm; 0 for no jitter.
        cap: the factor's most.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, latency_ms: Sequence[Sequence[float]], sigma: float, cap: float) -> None:
        self._latency_ms = tuple(tuple(map(float, row)) for row in latency_ms)
        self._sigma, self._cap = float(sigma), float(cap)
        if not self._latency_ms or not all(self._latency_ms):
            raise ValueError("latency_ms is empty, or a DNN's is")
        if not all(0 < ms < 1e9 for row in self._latency_ms for ms in row):
            raise ValueError("latency_ms must be positive")
        if not (0 <= self._sigma < 10 and 0 < self._cap < 1e3):
            raise ValueError(f"sigma {sigma} and cap {cap} must be positive")
        self._max_batch = min(map(len, self._latency_ms))

    @property
    def dnns(self) -> int:
        """Number of DNNs."""
        return len(self._latency_ms)

    @property
    def max_batch(self) -> int:
        """Largest batch size that every DNN has."""
        return self._max_batch

    def _drawn_ms(self, dnn: int, batch: int, u: float) -> float:
        factor = exp(self._sigma * (_inverse_normal(u) - P99))
        return self._latency_ms[dnn][batch - 1] * min(self._cap, factor)


class SampledModel(LatencyModel):
    """Latencies as they were measured, drawn with equal chances.

    Args:
        samples_ms: [dnn][batch - 1][sample].

    Raises:
        ValueError: a value is out of range, or a batch size has no samples.
    """

    def __init__(self, samples_ms: Sequence[Sequence[Sequence[float]]]) -> None:
        self._samples_ms = tuple(tuple(tuple(map(float, s)) for s in row) for row in samples_ms)
        if not self._samples_ms or not all(row and all(row) for row in self._samples_ms):
            raise ValueError("samples_ms is empty, or those of a DNN or batch size are")
        if not all(0 < ms < 1e9 for row in self._samples_ms for one in row for ms in one):
            raise ValueError("samples_ms must be positive")
        self._max_batch = min(map(len, self._samples_ms))

    @property
    def dnns(self) -> int:
        """Number of DNNs."""
        return len(self._samples_ms)

    @property
    def max_batch(self) -> int:
        """Largest batch size that every DNN has."""
        return self._max_batch

    def _drawn_ms(self, dnn: int, batch: int, u: float) -> float:
        samples = self._samples_ms[dnn][batch - 1]
        return samples[int(u * len(samples))]


class EmulatedAnswers:
    """What the zoo's DNNs found in the frames of some clips, by a frame's tag `CLIP:FRAME`.

    Args:
        clips: per clip, and per input size in px, what was found once and for all.
    """

    def __init__(self, clips: Mapping[str, Mapping[int, ClipDetections]]) -> None:
        self._clips = clips
        self._known: dict[tuple[bytes, int], Detections | str] = {}

    def answer(self, tag: bytes, dnn_px: int, sent_px: int) -> Detections | str:
        """Return what the DNN at `dnn_px` finds in a frame that was sent at `sent_px`.

        A frame sent smaller than the DNN's input is answered as the DNN of the smaller size
        answers. Text, saying what is wrong with that frame, where nothing is known of it.
        """
        key = tag, min(dnn_px, sent_px)
        found = self._known.get(key)
        if found is None:
            found = self._looked_up(*key)
            if not isinstance(found, str):  # nonsense is not kept: anyone may send any amount
                self._known[key] = found
        return found

    def _looked_up(self, tag: bytes, px: int) -> Detections | str:
        name, _, number = tag.decode(errors="replace").rpartition(":")
        sizes = self._clips.get(name)
        if sizes is None or not number.isascii() or not number.isdigit():
            return f"tag {tag!r:.80} is no frame of an emulated clip"
        fitting = [size for size in sizes if size <= px]
        if not fitting:
            return f"clip {name} has no detections at {px} px or below"
        frames = sizes[max(fitting)].frames
        if int(number) >= len(frames):
            return f"clip {name} has {len(frames)} frames, not {number}"
        return frames[int(number)]
