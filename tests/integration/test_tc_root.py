"""The helper on a real interface, fed by somebody hostile: what the real tc is told is recorded."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.shaping import tc_root
from experiment.testbed import INTERFACE, NamespaceTestbed
from tests.conftest import ROOT
from tests.integration.test_tc import in_node, tc_shows
from tests.unit.test_tc_root import FORMS, HOSTILE

BEGIN = b"root 1000\ntbf 1 20480 1000000 2000 100000 1514\nrate 1 2000000 2000\n"
PUT_BACK = "qdisc delete dev eth0 root"
# Runs the helper with a tc that writes down its arguments and each line, and does them.
RECORD = """\
import sys
sys.path.insert(0, sys.argv[1])
from client.shaping import tc_root
tc_root._TC = (sys.argv[2],)
sys.exit(tc_root.main(sys.argv[3:]))
"""
TC = """\
#!/bin/sh
printf 'tc %s\\n' "$*" >> {log}
[ "$1" = -batch ] || exec /usr/sbin/tc "$@"
tee -a {log} | /usr/sbin/tc "$@"
"""


def feed(testbed: NamespaceTestbed, folder: Path, asked: bytes) -> tuple[int, str, list[str]]:
    """Return exit code, what it said, and what tc was told."""
    log, tc = folder / "log", folder / "tc"
    log.write_text("")
    tc.write_text(TC.format(log=log))
    tc.chmod(0o755)
    command = [sys.executable, "-c", RECORD, str(ROOT), str(tc), INTERFACE]
    done = subprocess.run(
        in_node(testbed.clients[0], *command), input=asked, capture_output=True, timeout=60
    )
    return done.returncode, done.stderr.decode(), log.read_text().splitlines()


def only_fixed_forms(told: list[str]) -> bool:
    calls = {"tc qdisc show dev eth0", "tc -batch -", PUT_BACK}
    return all(line in calls or FORMS.fullmatch(line) for line in told)


def test_what_is_asked_is_done_and_put_back(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    before = tc_shows(testbed.clients[0])
    code, said, told = feed(testbed, tmp_path, BEGIN)
    assert (code, said) == (0, "")
    assert only_fixed_forms(told)
    assert sum(line.startswith("qdisc change dev eth0 parent 4a46:1") for line in told) == 1
    assert told.count(PUT_BACK) == 1
    assert tc_shows(testbed.clients[0]) == before


@pytest.mark.parametrize(
    "asked",
    [
        b"\n".join(HOSTILE[:3]) + b"\n",
        *(BEGIN + request + b"\n" + BEGIN for request in (*HOSTILE[:6], b"\0" * 300, b"\xff\n")),
        BEGIN + b"rate 1 " + b"9" * (1 << 20),  # without an end
        BEGIN + b"rate 1 1000000 2000 \\\nexec bpf dbg\n",
        BEGIN + b"rate 1 1000000 2000\rexec bpf dbg\n",
    ],
    ids=lambda asked: ascii(asked[-40:]),
)
def test_hostile_requests_reach_no_tc(
    testbed: NamespaceTestbed, tmp_path: Path, asked: bytes
) -> None:
    before = tc_shows(testbed.clients[0])
    code, said, told = feed(testbed, tmp_path, asked)
    assert code == 1
    assert "want one of" in said or "want a number" in said
    assert len(said.splitlines()) == 1
    assert only_fixed_forms(told)
    assert tc_shows(testbed.clients[0]) == before


def test_a_request_that_is_cut_short_is_none(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    code, _, told = feed(testbed, tmp_path, BEGIN + b"rate 1 3000000 2000")
    assert code == 0
    assert not any("3000000bit" in line for line in told)


def test_a_qdisc_of_somebody_elses_is_not_replaced(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    tc = ["/usr/sbin/tc", "-n", node.namespace, "qdisc"]
    subprocess.run([*tc, "add", "dev", INTERFACE, "root", "handle", "7:", "htb"], check=True)
    try:
        before = tc_shows(node)
        code, said, told = feed(testbed, tmp_path, BEGIN)
        assert code == 1
        assert "has a qdisc that could not be put back afterwards: `htb 7:" in said
        assert not any("replace" in line for line in told)
        assert tc_shows(node) == before
    finally:
        subprocess.run([*tc, "delete", "dev", INTERFACE, "root"], check=True)


@pytest.mark.parametrize("planted", ["link", "open to all"])
def test_a_planted_folder_for_locks_is_not_used(
    testbed: NamespaceTestbed, tmp_path: Path, planted: str
) -> None:
    """In a /run of its own, seen by this one process alone."""
    plant = "ln -s {0} /run/{1}" if planted == "link" else "mkdir -m 777 /run/{1}"
    script = f'mount -t tmpfs none /run && {plant.format(tmp_path, tc_root.NAME)} && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-IS", tc_root.__file__, INTERFACE]
    done = subprocess.run(
        in_node(testbed.clients[0], *command), stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 1
    assert b"/run/jellyfish-tc is not a folder of root's alone; remove it" in done.stderr
    assert not list(tmp_path.iterdir())


def test_signals_do_not_keep_it_from_putting_back(testbed: NamespaceTestbed) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    command = [sys.executable, "-IS", tc_root.__file__, INTERFACE]
    with subprocess.Popen(
        in_node(node, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.write(BEGIN)
        answers = b""
        while answers.count(b"\n") < 3:
            answers += helper.stdout.read(100)
        assert "qdisc htb 4a46:" in tc_shows(node)
        helper.terminate()
        time.sleep(0.1)
        assert helper.poll() is None
        helper.stdin.close()
        assert helper.wait(10) == 0
    assert tc_shows(node) == before
