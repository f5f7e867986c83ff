"""Log lines cannot be forged, and whoever does not read them holds nobody up."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from server.logs import Formatter, escaped

ROOT = Path(__file__).resolve().parents[2]

CHATTY = """
import logging, sys
from server.logs import log_to_stderr
stderr = log_to_stderr("%(message)s")
for k in range(20000):
    logging.info("line %d %s", k, "x" * 200)
print("not held up", flush=True)
sys.stdin.readline()
stderr.say("last words")
stderr.flush_for(float(sys.argv[1]))
"""


def chatty(patience_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHATTY, str(patience_s)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n2026-01-01 INFO all is well", r"a\n2026-01-01 INFO all is well"),
        ("\x1b[2J\x00\r\u2028\u202e\x9b", r"\x1b[2J\x00\r\u2028\u202e\x9b"),
        ("Größe, 大きさ: 3 %", "Größe, 大きさ: 3 %"),
    ],
)
def test_what_is_logged_is_one_line(text: str, line: str) -> None:
    record = logging.LogRecord("server", logging.INFO, "", 0, "client %s", (text,), None)
    assert Formatter("%(message)s").format(record) == f"client {line}"
    assert escaped(text) == line


def test_what_an_exception_says_is_indented() -> None:
    try:
        raise ValueError("first\n2026-01-01 INFO forged\x1b")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "it failed", None, sys.exc_info())
    first, *rest = Formatter("%(levelname)s %(message)s").format(record).splitlines()
    assert first == "ERROR it failed"
    assert rest
    assert all(line.startswith("    ") and "\x1b" not in line for line in rest)


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    process = chatty(60)
    assert process.stdout is not None
    assert process.stdout.readline() == "not held up\n"
    _, errors = process.communicate("go on\n", timeout=60)
    lines = errors.splitlines()
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert numbers == sorted(set(numbers)), "in order, none twice"
    said = [line for line in lines if line.endswith("were dropped: nobody read them")]
    dropped = sum(int(line.split()[0]) for line in said)
    assert len(numbers) + ("last words" in lines) + dropped == 20001
    assert dropped > 10_000
    assert process.returncode == 0


def test_the_end_does_not_wait_for_a_reader() -> None:
    with chatty(0.1) as process:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.wait(timeout=60) == 0
