"""The benchmark of the data path: it runs for a moment, and tells what misses its limit."""

from __future__ import annotations

import pytest

from benchmarks.data_path import LARGE, SMALL, Measured, Size, main, misses
from benchmarks.data_path_clients import Speed, jpeg


def test_it_runs_both_servers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.3", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "| 9 KB |" in said
    assert "| 94 KB |" in said
    assert "overhead" in said
    assert "RSS in MB: server" in said
    assert "planner" in said
    assert "worker" in said
    assert "to the first answer" in said


def measured(small: float, large: float, overhead_ms: float) -> Measured:
    bare = Speed(1000, 100, 100)
    speeds = {SMALL.name: [(Speed(small * 1000, 150, 300), bare)]}
    speeds[LARGE.name] = [(Speed(large * 1000, 150, 300), bare)]
    return Measured(speeds, [(overhead_ms + 0.8, 0.8)], {}, [1.0])


def test_what_misses_its_limit_is_told() -> None:
    assert misses(measured(0.66, 0.56, 0.4)) == []
    (line,) = misses(measured(0.64, 0.56, 0.4))
    assert "9 KB: share below 65%" in line
    (line,) = misses(measured(0.66, 0.54, 0.4))
    assert "94 KB: share below 55%" in line
    assert misses(measured(0.66, 0.56, 0.6)) == ["overhead above 0.5 ms"]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_frames_fill_their_size(size: Size) -> None:
    assert 0.9 * size.frame_bytes <= len(jpeg(size.px, size.frame_bytes)) <= size.frame_bytes
