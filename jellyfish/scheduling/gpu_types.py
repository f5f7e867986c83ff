"""What a GPU can be: the (DNN, batch size) pairs of a problem, and whom each can serve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jellyfish.profile import FloatArray
from jellyfish.scheduling.problem import Problem


@dataclass(frozen=True)
class GpuTypes:
    """The T pairs of DNN and batch size that some optimal plan can do with.

    Args:
        dnn: (T,) index into the profile.
        batch: (T,) batch size.
        accuracy: (T,) of the DNN.
        throughput: (T,) frames/s, which mapped frame rates must stay below.
        eligible: (C, T) whether the client's deadline and frame rate allow the type.
    """

    dnn: NDArray[np.int64]
    batch: NDArray[np.int64]
    accuracy: FloatArray
    throughput: FloatArray
    eligible: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.dnn)


def gpu_types(problem: Problem) -> GpuTypes:
    """Return the types that serve somebody and that no other type is at least as good as."""
    profile = problem.profile
    every = GpuTypes(
        dnn=np.repeat(np.arange(profile.dnns), profile.max_batch),
        batch=np.tile(np.arange(1, profile.max_batch + 1), profile.dnns),
        accuracy=np.repeat(profile.accuracy, profile.max_batch),
        throughput=profile.throughput.ravel(),
        eligible=_eligible(problem),
    )
    keep = np.flatnonzero(~_dominated(every))
    return GpuTypes(
        every.dnn[keep],
        every.batch[keep],
        every.accuracy[keep],
        every.throughput[keep],
        np.ascontiguousarray(every.eligible[:, keep]),
    )


def _eligible(problem: Problem) -> NDArray[np.bool_]:
    profile = problem.profile
    batches = np.arange(1, profile.max_batch + 1)
    in_time = batches <= problem.largest_batch[:, :, np.newaxis]  # (C, M, B)
    keeps_up = profile.throughput > problem.fps[:, np.newaxis, np.newaxis]
    return np.asarray((in_time & keeps_up).reshape(problem.clients, profile.throughput.size))


def _dominated(types: GpuTypes) -> NDArray[np.bool_]:
    """Return (T,) where another type is as accurate, as fast and serves the same and more."""
    serves = types.eligible.astype(np.float32)  # matrix products of floats are the fast ones
    beyond = serves.T @ (1 - serves)  # (T, T) how many the one serves and the other does not
    as_good = (
        (beyond == 0)
        & (types.accuracy <= types.accuracy[:, np.newaxis])[:, :].T
        & (types.throughput <= types.throughput[:, np.newaxis]).T
    )
    # Of types that are as good as each other, the first stays.
    first = np.tril(np.ones_like(as_good), -1)
    better = as_good & (~as_good.T | first)
    unused = ~types.eligible.any(axis=0)
    return np.asarray(better.any(axis=1) | unused)
