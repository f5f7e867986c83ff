"""The latency budget: what the network, the device and the server leave of an SLO for a DNN.

Milliseconds, bytes and kbit/s (1 kbit = 1000 bits, so that kbit/s are bits per ms). RTSS 2022,
section IV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jellyfish.profile import FloatArray

BITS_PER_BYTE = 8


def network_ms(bits: float, bandwidth_kbps: float, wire_ms: float) -> float:
    """Return the ms that `bits` take at `bandwidth_kbps`, plus the wire latency both ways.

    Infinite when the bandwidth is not a positive number: nothing would ever arrive.
    """
    if not bandwidth_kbps > 0:
        return float("inf")
    return bits / bandwidth_kbps + 2 * wire_ms


def latency_budget_ms(
    *,
    frame_bytes: ArrayLike,
    fps: ArrayLike,
    slo_ms: ArrayLike,
    bandwidth_kbps: ArrayLike,
    wire_ms: ArrayLike = 0.0,
    device_ms: ArrayLike = 0.0,
    response_bytes: ArrayLike = 0.0,
    overhead_ms: float = 0.0,
) -> FloatArray:
    """Return the ms that each of C clients has left for each of M DNNs, (C, M), never negative.

    It is zero where the bandwidth does not carry the frame rate at that DNN's frame size (carried
    means more, not as much), and for a client that has any value which makes no sense (a rate that
    is not positive, a bandwidth that is not a number): one such client must not disturb others.

    Args:
        frame_bytes: (M,) bytes of a frame at each DNN's input size.
        fps: (C,) frames per second.
        slo_ms: (C,) end-to-end SLO.
        bandwidth_kbps: (C,) uplink bandwidth.
        wire_ms: (C,) or scalar, one way.
        device_ms: (C,) or scalar, from a frame's capture to its sending.
        response_bytes: (C,) or scalar.
        overhead_ms: the server's own time per frame.
    """
    frame_bits = BITS_PER_BYTE * np.asarray(frame_bytes, np.float64)  # (M,)
    rate = _column(fps)
    bandwidth = _column(bandwidth_kbps)
    bits = frame_bits + BITS_PER_BYTE * _column(response_bytes)
    with np.errstate(all="ignore"):  # zeros, infinities and NaN end in the mask below
        network = bits / bandwidth + 2 * _column(wire_ms)
        budget = _column(slo_ms) - _column(device_ms) - network - overhead_ms
        carried = (rate > 0) & (bandwidth * 1000.0 / frame_bits > rate)
    return np.where(carried & (budget > 0), budget, 0.0)


def _column(values: ArrayLike) -> FloatArray:
    return np.atleast_1d(np.asarray(values, np.float64))[:, np.newaxis]
