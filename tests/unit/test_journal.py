"""Records on disks that are full, stall or fail: real files, limits and pipes."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jellyfish.errors import RunError
from jellyfish.files.journal import Journal, Lines, read_lines


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def started(journal: Journal) -> threading.Thread:
    thread = threading.Thread(target=journal.run, daemon=True)
    thread.start()
    return thread


def test_a_full_disk_costs_nothing_that_fits_into_memory(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "rows.jsonl", 1 << 20)
    records = [{"row": k, "text": "x" * 50} for k in range(200)]
    with room_for(1111):  # in the middle of a line
        for record in records[:100]:
            lines.append(record)
        with pytest.raises(OSError, match="too large"):
            lines.write()
        assert lines.path.stat().st_size == 1111
        assert [r["row"] for r in read_lines(lines.path)] == list(range(len_of(lines.path)))
        lines.append(records[100])
    for record in records[101:]:
        lines.append(record)
    lines.write()
    assert list(read_lines(lines.path)) == records
    assert lines.lost == 0
    lines.close()


def len_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_beyond_what_may_wait_records_are_dropped_whole_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines(tmp_path / "rows.jsonl", 1000)
    with room_for(0):
        for k in range(500):
            lines.append(k)
        with pytest.raises(OSError, match="too large"):
            lines.write()
    kept = 500 - lines.lost + len_of_waiting(lines)
    lines.write()
    lines.append("after")
    lines.write()
    assert list(read_lines(lines.path)) == [*range(kept), "after"]
    assert lines.lost == 500 - kept > 0
    assert len([r for r in caplog.records if "are dropped" in r.message]) == 1  # said once
    lines.close()


def len_of_waiting(lines: Lines) -> int:
    """Return how many records `lost` counts only because they have not been written yet."""
    return lines.lost - lines._dropped


def test_files_that_fail_leave_the_others_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal()
    bad, good = journal.lines(tmp_path / "bad.jsonl"), journal.lines(tmp_path / "good.jsonl")
    state = journal.latest(tmp_path / "state.json")
    bad.path.symlink_to("/dev/full")
    started(journal)
    for k in range(3):
        bad.append(k)
        good.append(k)
        state.replace({"k": k})

    def fails() -> None:
        raise OSError(28, "No space left on device")

    made: list[str] = []
    jobs = {tmp_path / "a": fails, tmp_path / "b": lambda: made.append("b")}
    with pytest.raises(RunError, match=r"/a cannot be written: No space left on device$"):
        journal.close(30, jobs)
    assert made == ["b"]
    assert list(read_lines(good.path)) == [0, 1, 2]
    assert json.loads(state.path.read_text()) == {"k": 2}
    assert "bad.jsonl lacks 3 records" in caplog.text


def test_a_disk_that_stalls_holds_nobody_up(tmp_path: Path) -> None:
    journal = Journal()
    stalls = journal.lines(tmp_path / "stalls.jsonl")
    os.mkfifo(stalls.path)  # opening it waits for a reader
    thread = started(journal)
    time.sleep(0.1)
    for k in range(1000):
        stalls.append(k)  # if it waited, it would for ever
    with pytest.raises(RunError, match=r"did not take .*rows\.parquet within 0\.1 s"):
        journal.close(0.1, {tmp_path / "rows.parquet": lambda: None})
    with stalls.path.open("rb") as reader:  # it works again
        thread.join(30)
        assert [json.loads(line) for line in reader] == list(range(1000))


def test_what_is_no_whole_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for torn in (b'{"row": 2', b"12", b'{"row": 2}', b"\xff\xfe"):
        path.write_bytes(b'{"row": 0}\n{"ro\n\n{"row": 1}\n' + torn)
        assert list(read_lines(path)) == [{"row": 0}, {"row": 1}]


def test_an_earlier_life_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('"first"\n"to')
    journal = Journal()
    lines = journal.lines(path)
    started(journal)
    lines.append("second")
    journal.close(30, {})
    assert list(read_lines(path)) == ["second"]
    assert (tmp_path / "rows.jsonl.last").read_text() == '"first"\n"to'


def test_records_are_on_disk_within_a_second_or_so(tmp_path: Path) -> None:
    journal = Journal()
    lines = journal.lines(tmp_path / "rows.jsonl")
    started(journal)
    lines.append(1)
    deadline = time.monotonic() + 20
    while not (lines.path.exists() and lines.path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(read_lines(lines.path)) == [1]
    journal.close(30, {})
