"""The frame with which the engine probes a worker: a tiny grey JPEG."""

from __future__ import annotations

from server.worker import WorkerFrame

SIDE_PX = 8

_QUANTISATION = "ffdb004300" + "01" * 64
_FRAME = "ffc0000b08" + "0008" * 2 + "01011100"  # baseline, 8 bits, one component
_CODES = "ffc40014" + "{:02x}" + "01" + "00" * 15 + "{:02x}"  # one code, of one bit
_SCAN = "ffda0008010100003f00"
# The only code of either table, twice: a block without coefficients; then ones to fill the byte.
_JPEG = bytes.fromhex(
    "ffd8"
    + _QUANTISATION
    + _FRAME
    + _CODES.format(0x00, 0)
    + _CODES.format(0x10, 0)
    + _SCAN
    # DC: 0 bits of difference; AC: end of block
    + "3f"
    + "ffd9"
)

PROBE = WorkerFrame(tag=b"", image=_JPEG, px=SIDE_PX)
