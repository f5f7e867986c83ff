"""Trace files of every format give the rates that they hold, or one error that names the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jellyfish.errors import ConfigError
from jellyfish.files.traces import trace_from_config
from jellyfish.trace import Trace

ROOT = Path(__file__).parents[2]


def read(folder: Path, text: str, form: str, **more: Any) -> Trace:
    (folder / "trace").write_text(text)
    spec = {"kind": "file", "path": "trace", "format": form, **more}
    trace = trace_from_config("mine", spec, folder)
    assert trace is not None
    assert trace.name == "mine"
    return trace


def test_none_and_steps() -> None:
    assert trace_from_config("none", {"kind": "none"}, ROOT) is None
    trace = trace_from_config("s", {"kind": "steps", "mbps": [20, 7.5], "step_s": 2}, ROOT)
    assert trace == Trace(name="s", mbps=(20.0, 7.5), step_s=2.0)


def test_the_file_in_the_box() -> None:
    spec = {"kind": "file", "path": "config/traces/synthetic.txt", "format": "native", "step_s": 20}
    trace = trace_from_config("synthetic", spec, ROOT)
    assert trace is not None
    assert trace.mbps == (20, 15, 10, 7.5, 10, 15, 20)
    assert trace.period_s == 140


def test_native(tmp_path: Path) -> None:
    trace = read(tmp_path, "# Mbit/s\n5\n\n7.5 # slow\n0\n", "native")
    assert (trace.mbps, trace.step_s) == ((5, 7.5, 0), 1)


def test_mahimahi(tmp_path: Path) -> None:
    # 10 packets in each ms of the first 100 ms, one in each of the next: 120 and 12 Mbit/s
    lines = [f"{ms}\n" * (10 if ms <= 100 else 1) for ms in range(1, 201)]
    trace = read(tmp_path, "".join(lines), "mahimahi", step_s=0.1)
    assert trace.mbps == pytest.approx((120, 12), rel=0.01)
    assert trace.bits_until(trace.period_s) == pytest.approx(1100 * 12_000)


def test_seconds(tmp_path: Path) -> None:
    trace = read(tmp_path, "10 8\n12 4\n12.5 2\n13.5 6\n", "seconds")
    assert trace.mbps == pytest.approx((8, 8, 3, 4, 6))  # the last, for 1 s, in a half step too
    assert read(tmp_path, "0 3\n", "seconds", step_s=5).mbps == (3,)


@pytest.mark.parametrize("form", ["ghent", "riiser"])
def test_logs(tmp_path: Path, form: str) -> None:
    text = (
        "1453121790686 39287 51.0386528 3.7322078 2500000 1000\n"
        "1453121791686 40287 51.0386532 -3.7322284 1250000 0500\n"
        "1453121793186 41787 51.0386553 3.7322514 0 1500\n"
    )
    assert read(tmp_path, text, form).mbps == pytest.approx((20, 10, 0))


def test_csv(tmp_path: Path) -> None:
    text = "time,up,down\n0,1500,9\n1,250,9\n"
    assert read(tmp_path, text, "csv", column="up", unit="kbps").mbps == (1.5, 0.25)
    trace = read(tmp_path, text, "csv", column="down", unit="MB/s", step_s=0.5)
    assert (trace.mbps, trace.step_s) == ((72, 72), 0.5)


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("native", "5\nfast\n", "trace:2: 'fast' is no number"),
        ("native", "5\n\n-1\n", "trace:3: -1: want a finite number"),
        ("native", "nan\n", "trace:1: nan"),
        ("native", "1 2\n", "trace:1: 2 columns; want 1"),
        ("native", "# nothing\n", "holds no rates"),
        ("native", "0\n0\n", "carries 0 bits"),
        ("mahimahi", "5\n4\n", "trace:2: times must not fall"),
        ("mahimahi", "0\n0\n", "holds no rates"),
        ("seconds", "0 1\n1 2\n1 3\n", "trace:2: the next line's time must be later"),
        ("seconds", "0 1\n1 2\n2 3\n60 3\n61 2\n", "trace:3: a gap: 58 s to the next line"),
        ("seconds", "0 1\n1 -2\n2 3\n", "trace:2: -2: want a finite number, 0 or more"),
        ("seconds", "", "holds no rates"),
        ("seconds", "0\n", "trace:1: 1 columns; want 2"),
        ("ghent", "1 2 3 4 5\n", "trace:1: 5 columns; want 6"),
        ("ghent", "1 2 3 4 x 1000\n", "trace:1: 'x' is no number"),
        ("csv", "up\n3\n", "no column 'down'; there are: up"),
        ("csv", "down,up\n3,1\n,2\n", "trace:3: '' is no number"),
        ("csv", "", "no column 'down'"),
        ("native", "\0\xff", "trace:1: "),
        ("pcap", "", "no format 'pcap'; there are: native, mahimahi"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, form: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text, form, column="down")
    assert says in str(error.value)


def test_values_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no unit 'Gbps'"):
        read(tmp_path, "up\n1\n", "csv", column="up", unit="Gbps")
    with pytest.raises(ConfigError, match="step_s must be positive"):
        read(tmp_path, "1\n", "native", step_s=0)
    with pytest.raises(ConfigError, match=r"cannot read .*missing"):
        trace_from_config("m", {"kind": "file", "path": "missing", "format": "native"}, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"cannot read .*binary"):
        trace_from_config("b", {"kind": "file", "path": "binary", "format": "native"}, tmp_path)
    with pytest.raises(ConfigError, match="kind is 'wavy'"):
        trace_from_config("w", {"kind": "wavy"}, tmp_path)
