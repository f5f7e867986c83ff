"""Whether a JPEG may be decoded, told from its markers alone (ITU-T T.81, annex B).

A decoder trusts what it is given: a few kB can claim gigapixels, and a few hundred can hold it for
a minute by thousands of scans over one picture. So a frame's header is read up to its first scan,
and what comes after is only searched, in microseconds, for further scans and for its end.

Taken are baseline, extended and progressive files, Huffman-coded, of 8 bits and 1 (grey), 3
(colour) or 4 (CMYK) components. One sequential scan of all components decodes in one pass. Any
other file keeps every coefficient and comes back to it, scan by scan: some four times the work a
byte. It may therefore have MAX_SCANS scans, and 1/SEVERAL_SCANS of the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SCANS = 16  # encoders make 10 for a progressive picture in colour
SEVERAL_SCANS = 4
MAX_SEGMENTS = 64  # before the first scan: some ten, and more with a large colour profile

_START, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff++([^\x00])")  # any number of fill bytes may come before a marker
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_PASSED_OVER = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, application data, comments
_REFUSED = {
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xDE, 0xDF), "hierarchical"),
    **dict.fromkeys((*range(0xC9, 0xD0),), "arithmetic-coded"),
}
_CUT = "the JPEG is cut short"


@dataclass(frozen=True, slots=True)
class Header:
    """What a JPEG says before its first scan's data, which begins at `data_at`."""

    progressive: bool
    width: int  # px
    height: int
    components: int
    scan_components: int = 0  # in the first scan
    data_at: int = 0

    @property
    def one_scan(self) -> bool:
        """Whether its first scan holds all of it; a decoder takes no further one then."""
        return not self.progressive and self.scan_components == self.components


def fault(data: bytes, max_px: int, max_bytes: int) -> str | None:
    """Return why a frame is no JPEG that may be decoded; None where it is one.

    Args:
        data: the frame, whatever it is. What follows its end is padding, whatever it is.
        max_px: its sides may be as long.
        max_bytes: it may weigh as much; a file of several scans, 1/SEVERAL_SCANS of it.
    """
    heavy = too_heavy(data, max_bytes)
    if heavy is not None:
        return heavy
    try:
        header = read_header(data)
    except ValueError as error:
        return str(error)
    if max(header.width, header.height) > max_px:
        return f"{header.width} x {header.height} px; at most {max_px} x {max_px}"
    if not header.one_scan:
        heavy = too_heavy(data, max_bytes // SEVERAL_SCANS, " in several scans")
        if heavy is not None:
            return heavy
        # Bytes of a table may look like one more scan; what they cannot do is hide one.
        scans = 1 + data.count(_SCAN, header.data_at)
        if scans > MAX_SCANS:
            return f"{scans} scans; at most {MAX_SCANS}"
    # Within a scan's data this pair of bytes is nothing else. From behind: it is near there.
    return None if data.rfind(_END, header.data_at) >= 0 else _CUT


def too_heavy(data: bytes, max_bytes: int, how: str = "") -> str | None:
    """Return that a frame weighs too much, if so; `how` it is coded is part of the text."""
    return f"{len(data)} bytes{how}; at most {max_bytes}" if len(data) > max_bytes else None


def read_header(data: bytes) -> Header:
    """Return what a JPEG says of itself up to its first scan.

    Raises:
        ValueError: it is no JPEG, cut short, or of a kind that is not taken; the text says which.
    """
    if not data.startswith(_START):
        raise ValueError("not a JPEG")
    at, frame = len(_START), None
    for _ in range(MAX_SEGMENTS):
        code, start, at = _segment(data, at)
        if code == _SCAN[1]:
            return _header(frame, data[start:at], at)
        if code in _SEQUENTIAL or code == _PROGRESSIVE:
            if frame is not None:
                raise ValueError("the JPEG has two frame headers")
            frame = _frame(code, data[start:at])
        elif code not in _PASSED_OVER:
            raise ValueError(_why_refused(code))
    raise ValueError(f"the JPEG has more than {MAX_SEGMENTS} segments before its first scan")


def _segment(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the marker of the segment at `at`, and where its content begins and ends."""
    code, start = _marker(data, at)
    if code == _END[1]:
        raise ValueError("the JPEG holds no picture")
    if 0xD0 <= code <= 0xD8 or code == 0x01:
        raise ValueError(_why_refused(code))
    end = start - 2 + int.from_bytes(data[start - 2 : start])
    if len(data) < start or len(data) < end:
        raise ValueError(_CUT)
    if end < start:
        raise ValueError(f"the JPEG has a segment (marker {code:02X}) without a length")
    return code, start, end


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """Return the marker at `at`, and where the content of its segment begins."""
    if len(data) > at + 1 and data[at] == 0xFF and 0 < data[at + 1] < 0xFF:  # as encoders write it
        return data[at + 1], at + 4
    found = _MARKER.match(data, at)
    if found is None:
        rest = data[at:].strip(b"\xff")
        raise ValueError("the JPEG has bytes between segments" if rest else _CUT)
    return found[1][0], found.end() + 2


def _frame(code: int, content: bytes) -> Header:
    if len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise ValueError("the JPEG's frame header has a wrong length")
    bits, height, width = content[0], _number(content, 1), _number(content, 3)
    components = content[5]
    if bits != 8:
        raise ValueError(f"the JPEG has {bits} bits a sample; want 8")
    if components not in (1, 3, 4):
        raise ValueError(f"the JPEG has {components} components; want 1, 3 or 4")
    if not height:
        raise ValueError("the JPEG leaves its height open (DNL), which is not taken")
    if not width:
        raise ValueError("the JPEG is 0 px wide")
    for sampling in content[7::3]:
        if not (1 <= sampling >> 4 <= 4 and 1 <= sampling & 15 <= 4):
            raise ValueError(f"the JPEG has a sampling factor {sampling >> 4} x {sampling & 15}")
    return Header(code == _PROGRESSIVE, width, height, components)


def _header(frame: Header | None, content: bytes, data_at: int) -> Header:
    if frame is None:
        raise ValueError("the JPEG has a scan before its frame header")
    components = content[0] if content else 0
    if not 1 <= components <= frame.components or len(content) != 4 + 2 * components:
        raise ValueError(f"the JPEG has a scan of {components} of {frame.components} components")
    return Header(
        frame.progressive, frame.width, frame.height, frame.components, components, data_at
    )


def _number(content: bytes, at: int) -> int:
    return content[at] << 8 | content[at + 1]


def _why_refused(code: int) -> str:
    kind = _REFUSED.get(code)
    if kind is not None:
        return f"the JPEG is {kind}, which is not taken"
    return f"the JPEG has marker {code:02X} before its first scan"
