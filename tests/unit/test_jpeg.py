import re
import time
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.source import encode
from jellyfish.jpeg import MAX_SCANS, MAX_SEGMENTS, Header, fault, read_header
from server.devices.detector import decode_jpeg
from server.limits import FRAME_BYTES_PER_PIXEL, FRAME_EXTRA_BYTES
from tests.jpeg_files import (
    BASELINE,
    END,
    by_pillow,
    frame_header,
    noise,
    refinement_bomb,
    scan_bomb,
    scan_header,
    segment,
)

PX = 96
PLENTY = 1 << 24
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6
REAL: dict[str, bytes] = {
    "as our client sends it": encode(noise(PX), PX),
    "full colours": by_pillow(noise(PX), subsampling=0),
    "4:2:2": by_pillow(noise(PX), subsampling=1),
    "grey": by_pillow(noise(PX), "L"),
    "cmyk": by_pillow(noise(PX), "CMYK"),
    "optimised": by_pillow(noise(PX), optimize=True),
    "restarts": by_pillow(noise(PX), restart_marker_blocks=1),
    "progressive": by_pillow(noise(PX), progressive=True),
    "progressive, grey": by_pillow(noise(PX), "L", progressive=True),
    "progressive, restarts": by_pillow(noise(PX), progressive=True, restart_marker_blocks=1),
    "with data beside": by_pillow(noise(PX), exif=EXIF, icc_profile=bytes(200_000), comment=b"!"),
    "a thumbnail within": by_pillow(noise(PX), comment=encode(noise(PX), 48)),
}
HONEST = REAL["as our client sends it"]
START, TABLES = HONEST[:2], HONEST[2 : HONEST.index(b"\xff\xc0")]
REST = HONEST[HONEST.index(b"\xff\xc4") :]  # Huffman tables, scan and end


def with_frame(*sides: int, **what: Any) -> bytes:
    return START + TABLES + frame_header(*sides, **what) + REST


@pytest.mark.parametrize("name", REAL)
def test_files_of_encoders_are_taken(name: str) -> None:
    data = REAL[name]
    assert fault(data, PX, PLENTY) is None
    assert decode_jpeg(data, PX).shape == (PX, PX, 3)
    header = read_header(data)
    assert (header.width, header.height) == (PX, PX)
    assert header.components == {"grey": 1, "cmyk": 4}.get(name.split(", ")[-1], 3)
    assert header.one_scan != name.startswith("progressive")


def test_a_header_tells_what_the_picture_is() -> None:
    wide = by_pillow(noise(PX)[:40])
    data_at = wide.index(b"\xff\xda") + 2 + 12
    assert read_header(wide) == Header(False, PX, 40, 3, scan_components=3, data_at=data_at)


@pytest.mark.parametrize("padding", [b"\0", bytes(64), b"\xff" * 5000, HONEST, b"\xff\xda" * 99])
def test_what_follows_the_end_is_padding(padding: bytes) -> None:
    assert fault(HONEST + padding, PX, PLENTY) is None
    assert (decode_jpeg(HONEST + padding, PX) == decode_jpeg(HONEST, PX)).all()


@pytest.mark.parametrize("name", REAL)
def test_fill_bytes_may_come_before_every_marker(name: str) -> None:
    data = REAL[name]
    at = read_header(data).data_at
    head, at_marker = data[:2], 2
    while at_marker < at:
        length = int.from_bytes(data[at_marker + 2 : at_marker + 4])
        head += b"\xff" * 7 + data[at_marker : at_marker + 2 + length]
        at_marker += 2 + length
    filled = head + data[at:].removesuffix(END) + b"\xff" * 7 + END
    assert fault(filled, PX, PLENTY) is None
    assert (decode_jpeg(filled, PX) == decode_jpeg(data, PX)).all()


@pytest.mark.parametrize("name", REAL)
def test_a_file_cut_anywhere_is_cut_short(name: str) -> None:
    data = REAL[name]
    for length in {*range(2, 700, 3), *range(700, len(data), 997), len(data) - 1}:
        said = fault(data[:length], PX, PLENTY)
        assert said == "the JPEG is cut short", length


REFUSED = {
    "not a JPEG": [b"", b"\xff", b"junk", b"\x89PNG\r\n\x1a\n", HONEST[1:]],
    "97 x 96 px; at most 96 x 96": [with_frame(97, 96)],
    "96 x 97 px; at most 96 x 96": [with_frame(96, 97)],
    "65535 x 65535 px": [with_frame(65535, 65535)],
    r"height open \(DNL\)": [with_frame(96, 0)],
    "0 px wide": [with_frame(0, 96)],
    "12 bits a sample": [with_frame(96, 96, bits=12)],
    "0 components": [with_frame(96, 96, components=0)],
    "2 components": [with_frame(96, 96, components=2)],
    "5 components": [with_frame(96, 96, components=5)],
    "lossless": [with_frame(96, 96, marker=0xC3)],
    "hierarchical": [with_frame(96, 96, marker=0xC5), START + segment(0xDE, b"\0" * 6) + REST],
    "arithmetic-coded": [with_frame(96, 96, marker=0xC9), START + segment(0xCC, b"\0\0") + REST],
    "two frame headers": [START + frame_header(96, 96) * 2 + REST],
    "frame header has a wrong length": [
        START + segment(BASELINE, frame_header(96, 96)[4:-1]) + REST,
        START + segment(BASELINE, b"") + REST,
    ],
    "sampling factor 0 x 1": [with_frame(96, 96).replace(b"\x01\x11\0", b"\x01\x01\0", 1)],
    "sampling factor 5 x 1": [with_frame(96, 96).replace(b"\x01\x11\0", b"\x01\x51\0", 1)],
    "scan before its frame header": [START + TABLES + REST],
    "scan of 0 of 3 components": [
        START + frame_header(96, 96) + scan_header([], 0, 63, 0) + END,
        START + frame_header(96, 96) + segment(0xDA, b"") + END,
    ],
    "scan of 4 of 3 components": [
        START + frame_header(96, 96) + scan_header([1, 2, 3, 4], 0, 63, 0) + END
    ],
    "holds no picture": [START + END, START + TABLES + END],
    "bytes between segments": [START + b"x" + HONEST[2:], START + b"\xff\x00" + HONEST[2:]],
    "without a length": [START + b"\xff\xfe\0\1" + HONEST[2:]],
    "marker D0": [START + b"\xff\xd0" + HONEST[2:]],
    "marker D8": [START + HONEST],
    "marker DC": [START + segment(0xDC, b"\0\x60") + HONEST[2:]],
    f"more than {MAX_SEGMENTS} segments": [START + segment(0xFE, b"") * 5000 + HONEST[2:]],
    "9000 scans; at most 16": [scan_bomb(PX, 9000), scan_bomb(PX, 9000, components=3)],
    "17 scans; at most 16": [scan_bomb(PX, MAX_SCANS + 1)],
}


@pytest.mark.parametrize(
    ("says", "data"), [(s, d) for s, all_of in REFUSED.items() for d in all_of]
)
def test_what_is_refused_is_told_why(says: str, data: bytes) -> None:
    assert re.search(says, fault(data, PX, PLENTY) or "taken")


def test_as_many_scans_as_allowed_are_taken() -> None:
    assert fault(scan_bomb(PX, MAX_SCANS), PX, PLENTY) is None


def test_no_table_or_comment_hides_scans_behind_a_false_end() -> None:
    bomb = scan_bomb(PX, 30)
    second = bomb.index(b"\xff\xda", bomb.index(b"\xff\xda") + 1)
    hidden = bomb[:second] + segment(0xFE, END) + bomb[second:]
    assert fault(hidden, PX, PLENTY) == "30 scans; at most 16"


def test_weight_is_bounded_and_more_so_for_several_scans() -> None:
    weight = len(HONEST)
    assert fault(HONEST, PX, weight) is None
    assert fault(HONEST, PX, weight - 1) == f"{weight} bytes; at most {weight - 1}"
    progressive = REAL["progressive"]
    weight = len(progressive)
    assert fault(progressive, PX, 4 * weight) is None
    says = f"{weight} bytes in several scans; at most {weight - 1}"
    assert fault(progressive, PX, 4 * weight - 1) == says


@given(st.binary(max_size=300), st.integers(1, 5000), st.integers(0, PLENTY))
def test_any_bytes_get_a_verdict(data: bytes, px: int, most: int) -> None:
    for start in (b"", START, START + TABLES, START + TABLES + frame_header(96, 96)):
        assert isinstance(fault(start + data, px, most), str | None)


@given(st.data())
def test_damaged_files_get_a_verdict_and_those_taken_an_image_or_a_reason(
    data: st.DataObject,
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(list(REAL.values()))))
    for _ in range(data.draw(st.integers(1, 4))):
        limit = data.draw(st.sampled_from([700, len(damaged)]))  # headers, or anywhere
        at = data.draw(st.integers(0, min(limit, len(damaged))))
        damaged[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    if fault(bytes(damaged), PX, PLENTY) is not None:
        return
    try:
        image = decode_jpeg(bytes(damaged), PX)
    except ValueError:
        return
    assert image.shape == (PX, PX, 3)


def test_the_worst_frame_taken_decodes_within_five_honest_ones() -> None:
    cv2.setNumThreads(1)
    px = 320
    most = FRAME_BYTES_PER_PIXEL * px * px + FRAME_EXTRA_BYTES
    honest = encode(noise(px), px)
    after = honest.removesuffix(END) + scan_header([1, 2, 3], 0, 63, 0) * 5000 + END
    hostile = [
        *(by_pillow(noise(px), quality=q, subsampling=0) for q in (35, 50, 75, 90)),
        *(by_pillow(noise(px), quality=q, progressive=True) for q in (30, 50, 65)),
        *(by_pillow(noise(px), quality=q, progressive=True, subsampling=0) for q in (20, 30)),
        *(refinement_bomb(px, n, dense=False) for n in (1, 3)),
        *(refinement_bomb(px, n, dense=True, components=1) for n in (0,)),
        *(scan_bomb(px, n, c) for n in (1, MAX_SCANS) for c in (1, 3, 4)),
        after,
    ]
    assert [fault(data, px, most) for data in hostile] == [None] * len(hostile)
    assert fault(refinement_bomb(px, 12, dense=True), px, most) is not None
    assert fault(by_pillow(noise(px), quality=90, progressive=True), px, most) is not None
    rounds = [[_cpu_s(data, px) for data in (honest, *hostile)] for _ in range(7)]
    costs = [min(taken) for taken in zip(*rounds, strict=True)]
    assert max(costs) < 5 * costs[0], [cost / costs[0] for cost in costs]


def _cpu_s(data: bytes, px: int) -> float:
    start = time.thread_time()
    assert decode_jpeg(data, px).shape == (px, px, 3)
    return time.thread_time() - start
