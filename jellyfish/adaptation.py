"""The server's share of input-size adaptation: the size that it names with each answer."""

from __future__ import annotations

from collections.abc import Sequence

from jellyfish.budget import BITS_PER_BYTE, network_ms


def server_px(
    *,
    input_px: Sequence[int],
    frame_bytes: Sequence[float],
    dnn: int,
    batch_ms: float,
    spare_ms: float,
    bandwidth_kbps: float,
    fps: float,
    wire_ms: float,
    response_bytes: float,
) -> int:
    """Return the size that a client should send next (RTSS 2022, section V).

    It is the mapped DNN's, or the largest below it that the bandwidth carries at the client's
    rate and that leaves time for two batches; the smallest where none does.

    Args:
        input_px: (M,) the zoo's sizes, ascending.
        frame_bytes: (M,) bytes of a frame at each size.
        dnn: the DNN that the client is mapped to.
        batch_ms: latency of that DNN at its planned batch size.
        spare_ms: the client's SLO less its device time and the server's overhead.
        bandwidth_kbps: its uplink; kbit/s are bits per ms.
        fps: its frame rate.
        wire_ms: wire latency, one way.
        response_bytes: bytes of an answer.
    """
    for m in range(dnn, 0, -1):
        frame_bits = BITS_PER_BYTE * frame_bytes[m]
        bits = frame_bits + BITS_PER_BYTE * response_bytes
        carried = bandwidth_kbps * 1000 > frame_bits * fps
        budget_ms = spare_ms - network_ms(bits, bandwidth_kbps, wire_ms)
        if carried and budget_ms >= 2 * batch_ms:
            return input_px[m]
    return input_px[0]
