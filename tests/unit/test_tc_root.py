"""What sudo lets a user run: whatever they ask, tc gets only lines of a few fixed forms."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.shaping import tc_helper, tc_root
from client.shaping.tc_root import BOUNDS, LONGEST, PORTS_EACH, VERBS, Lines, RefusedError, parse

FILE = Path(tc_root.__file__)
# Written out here a second time, by hand: nothing of the program decides what is safe.
_OWN = r"4a46:[1-9a-f][0-9a-f]{0,2}"  # a class of ours
_AT = rf"dev eth0 parent 4a46: classid {_OWN}"
_BELOW = rf"dev eth0 parent {_OWN} handle (?:4a4[7-9a-f]|4a[5-9a-f][0-9a-f]|[45][0-9a-f]{{3}}):"
_N = r"[1-9]\d{0,11}"
_TBF = rf"tbf rate {_N}bit burst {_N} limit {_N}"
_HTB = rf"htb rate {_N}bit ceil {_N}bit burst {_N} cburst {_N} quantum {_N}"


def _filter(protocol: str, prio: int, word: str) -> str:
    match = rf"match {word} protocol 6 0xff match {word} sport {_N} 0xfff0 flowid {_OWN}"
    return rf"filter add dev eth0 parent 4a46: protocol {protocol} prio {prio} u32 {match}"


FORMS = re.compile(
    "|".join(
        (
            rf"qdisc replace dev eth0 root handle 4a46: htb default 0 direct_qlen {_N}",
            rf"class add {_AT} htb rate 100000000000bit quantum {_N}",
            rf"class (?:add|change) {_AT} {_HTB}",
            rf"qdisc (?:add|change) {_BELOW} {_TBF}",
            rf"qdisc add {_BELOW} bfifo limit {_N}",
            _filter("ip", 1, "ip"),
            _filter("ipv6", 2, "ip6"),
        )
    )
)

HOSTILE = [
    b"exec bpf import /tmp/x run /usr/bin/id -u",
    b"exec bpf dbg",
    b"qdisc delete dev eth0 root",
    b"qdisc replace dev lo root tbf rate 1kbit burst 2000 limit 3000",
    b"-batch /etc/shadow",
    b"-force",
    b"-n other qdisc show",
    b"root",
    b"root 999",
    b"root 1000 dev lo",
    b"root 1000;id",
    b"root 1000 ",
    b" root 1000",
    b"root  1000",
    b"root\t1000",
    b"root 1000\r",
    b"root 1000\\",
    b"root 1000 # comment",
    b"root $(id)",
    b"root `id`",
    b"root 0x3e8",
    b"root 01000",
    b"root +1000",
    b"root 1e3",
    b"root 1_000",
    b"root -1000",
    b"root 1000\0",
    b"root\x001000",
    "root \u0661\u0660\u0660\u0660".encode(),  # Arabic digits, which int() takes
    "root \uff11\uff10\uff10\uff10".encode(),
    b"\xff\xfe root 1000",
    b"root \xc3\x28",
    b"root " + b"9" * 100,
    b"root " + b"1" * 100_000,
    b"tbf 1 20480 1000000 2000 100000",
    b"tbf 0 20480 1000000 2000 100000 1514",
    b"tbf 4033 20480 1000000 2000 100000 1514",
    b"tbf 46536 20480 1000000 2000 100000 1514",  # its leaf would be handle 1:0000
    b"tbf 1 22 1000000 2000 100000 1514",
    b"tbf 1 20481 1000000 2000 100000 1514",
    b"tbf 1 65536 1000000 2000 100000 1514",
    b"tbf 1 20480 0 2000 100000 1514",
    b"tbf 1 20480 1000000 2000 99999999999 1514",
    b"tbf 1 20480 1000000 2000 100000 1514 parent 1:",
    b"fq 1 20480 1000000 2000 100000 1514",
    b"TBF 1 20480 1000000 2000 100000 1514",
    b"rate 1 1000000",
    b"rate 1 1000000 2000\nexec bpf dbg",
    b"",
]


def begun() -> Lines:
    lines = Lines("eth0")
    lines.of(b"root 1000")
    lines.of(b"tbf 7 20480 1000000 2000 100000 1514")
    return lines


@pytest.mark.parametrize("request_", HOSTILE, ids=lambda one: ascii(one[:40]))
@pytest.mark.parametrize("state", ["at first", "once begun"])
def test_what_is_no_request_is_refused(request_: bytes, state: str) -> None:
    with pytest.raises(RefusedError) as seen:
        (Lines("eth0") if state == "at first" else begun()).of(request_)
    assert str(seen.value).isascii()
    assert str(seen.value).isprintable()
    assert len(str(seen.value)) < 1000


@pytest.mark.parametrize(
    "request_",
    [b"rate 8 1000000 2000", b"root 1000", b"tbf 7 20480 1000000 2000 100000 1514"],
)
def test_what_is_not_due_is_refused(request_: bytes) -> None:
    with pytest.raises(RefusedError):
        begun().of(request_)
    if not request_.startswith(b"root"):
        with pytest.raises(RefusedError, match="`root` comes first"):
            Lines("eth0").of(request_)


@pytest.mark.parametrize(
    "name",
    ["", "-batch", "-", ".", "..", "eth0 root", "eth0;id", "eth0\n", "../../x", "a" * 16, "éth0"],
)
def test_what_is_no_interface_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="is no interface's name"):
        Lines(name)


numbers = st.one_of(
    st.integers(-10, 1 << 70),
    *(st.sampled_from([least - 1, least, most, most + 1]) for least, most in BOUNDS.values()),
    st.integers(1, 8),
    st.integers(60, 4000).map(lambda n: n * PORTS_EACH),
)
words = st.one_of(numbers.map(lambda n: b"%d" % n), st.binary(max_size=6))
likely = st.builds(
    lambda verb, rest: b" ".join((verb.encode(), *rest)),
    st.sampled_from(sorted(VERBS)),
    st.lists(words, max_size=8),
)
due = st.one_of(  # mostly what would be done, so that all states are met
    st.just(b"root 1000"),
    st.builds(
        lambda verb, n, port, rate: b"%s %d %d %d 2000 100000 1514" % (verb, n, 16 * port, rate),
        st.sampled_from([b"tbf", b"htb"]),
        st.integers(1, 4032),
        st.integers(64, 4095),
        st.integers(1000, 10**11),
    ),
    st.builds(lambda n, rate: b"rate %d %d 2000" % (n, rate), st.integers(1, 8), st.integers(1000)),
)


@given(st.lists(st.one_of(due, likely, st.binary(max_size=60)), max_size=20))
def test_whatever_is_asked_tc_gets_only_lines_of_the_fixed_forms(requests: list[bytes]) -> None:
    lines = Lines("eth0")
    for request in (b"root 1000", *requests):
        try:
            told = lines.of(request)
        except RefusedError:
            continue
        for line in told:
            assert FORMS.fullmatch(line), (request, line)
            ports = re.search(r"sport (\d+)", line)
            assert ports is None or 1024 <= int(ports[1]) <= 65520


@given(st.sampled_from(sorted(VERBS)), st.data())
def test_what_lies_within_the_bounds_is_a_request(verb: str, data: st.DataObject) -> None:
    asked = [data.draw(st.integers(*BOUNDS[field])) for field in VERBS[verb]]
    request = " ".join((verb, *map(str, asked))).encode()
    assert len(request) <= LONGEST
    assert parse(request) == (verb, asked)


def test_it_stands_alone_on_any_system_python() -> None:
    """It is copied out of the checkout, for the system's Python, which may be 3.9."""
    source = FILE.read_text()
    assert source.startswith("#!/usr/bin/python3 -IS\n")
    for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


def test_nothing_around_it_is_imported_or_run(tmp_path: Path) -> None:
    """A module beside it, in the current directory, in PYTHONPATH or at home would leave a mark."""
    evil = f"open({str(tmp_path / 'mark')!r}, 'w')\n"
    for name in ("json", "select", "sitecustomize", "usercustomize", "startup"):
        (tmp_path / f"{name}.py").write_text(evil)
    for name in ("tc", "sh"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho > {tmp_path / 'mark'}\n")
        (tmp_path / name).chmod(0o755)
    copy = tmp_path / "jellyfish-tc"
    copy.write_bytes(FILE.read_bytes())
    here = str(tmp_path)
    names = ("HOME", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PATH", "TC_LIB_DIR", "IFS")
    environment = dict.fromkeys(names, here)
    environment["PYTHONSTARTUP"] = str(tmp_path / "startup.py")
    for interface in ("lo", "no-such-one", "-batch"):
        done = subprocess.run(
            [sys.executable, "-IS", str(copy), interface],
            input=b"exec bpf dbg\n",
            capture_output=True,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
    assert not (tmp_path / "mark").exists()


def test_what_its_user_could_change_is_known(tmp_path: Path) -> None:
    (tmp_path / "own").touch()
    assert tc_helper.changeable(tmp_path / "own") == tmp_path / "own"
    if os.geteuid() != 0:  # root could change anything
        assert tc_helper.changeable(Path("/usr/bin/env")) is None
