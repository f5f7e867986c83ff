"""Hosts that are odd or broken: full disks, clocks, rights, ways in; over real sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from experiment import grid, paths, preflight
from experiment.cell import run_cell
from experiment.deploy import code_of, put_code, try_role
from experiment.fleet import Fleet
from experiment.host_file import read_hosts
from experiment.preflight import look
from experiment.ssh import Ssh
from experiment.testbed import NamespaceTestbed
from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json
from jellyfish.files.tables import read_table
from tests.conftest import ROOT
from tests.integration.test_emulated_cell import config_over
from tests.sshd import MISSING, Sshd, available
from tests.streams import Streams
from tests.unit.test_envs import closure, environment, packages

Config = dict[str, Any]
AHEAD_S = 3600
pytestmark = [
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.timeout(600),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and namespaces need root")


@pytest.fixture(scope="module")
def config(root: Path, sshd: Sshd) -> Config:
    return config_over(root, sshd.hosts_file())


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """Yield a folder that is a file system of its own, of that size."""
    at.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    subprocess.run(mounted, check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


@as_root
def test_a_disk_that_is_full(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        hosts = read_hosts(sshd.hosts_file(work=str(disk / "work")))
        with Ssh(hosts.server, hosts) as host:
            with pytest.raises(RunError, match=r"server: the disk of .*/disk/work is full: 1 MB"):
                look(host, host.spec)
            monkeypatch.setattr(preflight, "MIN_FREE_MB", 0)
            facts = look(host, host.spec)
            fill(disk)
            with pytest.raises(RunError, match=r"server: cannot write .*: its disk is full"):
                put_code(host, facts, code_of(ROOT))


def test_a_name_that_nobody_knows(sshd: Sshd) -> None:
    hosts = read_hosts(sshd.hosts_file(address="no-such-host.invalid"))
    with (
        pytest.raises(RunError, match=r"server \(.*no-such-host\.invalid.*it cannot be reached"),
        Ssh(hosts.server, hosts),
    ):
        pass


def nobodys_python(rights: str) -> str:
    """Return an interpreter that somebody without rights may start: ours may be in root's home."""
    for python in (sys.executable, "/usr/bin/python3.11"):
        tried = [*rights.split(), "sh", "-c", f"{python} -c pass"]
        if subprocess.run(tried, capture_output=True).returncode == 0:
            return python
    pytest.skip("no Python 3.11 outside root's home")


@contextmanager
def open_to_all(*folders: Path) -> Iterator[None]:
    """Let everybody write in some folders meanwhile; made when missing."""
    before = {}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        before[folder] = folder.stat().st_mode
        folder.chmod(0o777)
    try:
        yield
    finally:
        for folder, mode in before.items():
            folder.chmod(mode)


@as_root
def test_a_host_where_nobody_may_be_root(config: Config, testbed: NamespaceTestbed) -> None:
    """Its Python gives up root's rights: the user who logs in has none there."""
    wrapped = testbed.folder / "python"
    rights = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    started = f"PYTHONPATH={':'.join(filter(None, sys.path))} exec {nobodys_python(rights)}"
    wrapped.write_text(f'#!/bin/sh\n[ $(id -u) = 0 ] && exec {rights} "$0" "$@"\n{started} "$@"\n')
    wrapped.chmod(0o755)
    value = yaml.safe_load(testbed.hosts.read_text())
    theirs = [testbed.folder, testbed.folder.parent]
    for client in value["clients"]:
        client["python"] = str(wrapped)
        shutil.rmtree(Path(client["work"], "runs"), ignore_errors=True)  # of an earlier test
        theirs += [Path(client["work"]), Path(client["work"], "files")]
    path = testbed.folder / "hosts.nobody.yaml"
    path.write_text(yaml.safe_dump(value))
    cannot = r".* may not shape traffic: .*(?:is not installed|sudo: )"
    said = rf"client-1: {cannot}(?s:.)*client-2: {cannot}"
    (run,) = grid.runs(config, grid.cells(config)[0])
    with open_to_all(*theirs):
        with (
            pytest.raises(RunError, match=said) as seen,
            Fleet({**config, "hosts": str(path)}, ROOT),
        ):
            pass
        rule = "nobody ALL=(root) NOPASSWD: /usr/local/sbin/jellyfish-tc eth0"
        assert str(seen.value).count(rule) == 2
        with Fleet({**config, "hosts": str(path)}, ROOT, shapes=False) as fleet:
            told = fleet.shaping_commands(run)  # what it is for can be told without it
    assert set(told) == {"client-1", "client-2"}
    assert all("tc qdisc replace dev eth0 root handle 4a46:" in one for one in told.values())
    assert all(
        f"line: {rule}" in one and "administrator: install -o" in one for one in told.values()
    )


@as_root
def test_an_alias_whose_way_leads_through_another_host(
    config: Config, testbed: NamespaceTestbed
) -> None:
    jump, inner = testbed.clients
    testbed.execute(inner, "ip", "route", "add", "blackhole", f"{testbed.manager}/32")
    try:
        ssh_config = testbed.folder / "jump_config"
        ssh_config.write_text(
            testbed.ssh_config.read_text().replace(
                f"Host {inner.namespace}\n", f"Host inner\n  ProxyJump {jump.namespace}\n"
            )
        )
        value = yaml.safe_load(testbed.hosts.read_text()) | {"ssh_config": ssh_config.name}
        there = value["clients"][1]
        value["clients"][1] = {"name": "inner", "address": "inner", "work": there["work"]}
        value["clients"][1] |= {key: there[key] for key in ("python", "interface", "shaper")}
        path = testbed.folder / "hosts.jump.yaml"
        path.write_text(yaml.safe_dump(value))
        hosts = read_hosts(path)
        with Ssh(hosts.clients[1], hosts) as host:
            assert f" {inner.address}/" in host.said("ip -4 -o address show dev eth0")
            came_from = host.said("echo $SSH_CONNECTION").split()[0]
            assert came_from == jump.address
        with Fleet({**config, "hosts": str(path)}, ROOT) as fleet:
            place = fleet.placement("run").of_client(1)
            place.begin()
            place.write("x.json", {"a": 1})
            assert place.read("x.json") == {"a": 1}
            assert place.start("date", [sys.executable, "-c", "pass"]).end() is not None
    finally:
        testbed.execute(inner, "ip", "route", "delete", f"{testbed.manager}/32")


def conda_shaped(prefix: Path, role: str) -> Path:
    """Make an environment of what a role's file lists where conda would; return its Python.

    Not by conda, which is not here; the packages are the lock's.
    """
    return environment(closure(set(packages(role))), prefix)


def test_conda_environments_by_name_and_by_prefix(tmp_path: Path) -> None:
    base = tmp_path / "home" / "miniforge3"
    named = conda_shaped(base / "envs" / "device", "client")
    with Sshd(tmp_path / "d", environment={"HOME": str(tmp_path / "home")}) as sshd:
        path = sshd.hosts_file()
        value = yaml.safe_load(path.read_text())
        for conda in ("device", "~/miniforge3/envs/device", str(base / "envs" / "device")):
            del value["server"]["python" if "python" in value["server"] else "conda"]
            value["server"]["conda"] = conda
            path.write_text(yaml.safe_dump(value))
            hosts = read_hosts(path)
            with Ssh(hosts.server, hosts) as host:
                facts = look(host, host.spec)
                assert Path(facts.python) == named
                code = put_code(host, facts, code_of(ROOT))
                try_role(host, "client", facts.python, code)
                with pytest.raises(RunError, match=r"cannot run the server: .*No module named"):
                    try_role(host, "server", facts.python, code)


@as_root
@pytest.mark.hosts
@pytest.mark.slow
def test_a_disk_that_fills_up_in_the_middle(
    config: Config, results: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "MIN_FREE_MB", 0)
    with small_disk(tmp_path / "disk", "64m") as disk:
        path = sshd.hosts_file()
        value = yaml.safe_load(path.read_text())
        value["clients"][1]["work"] = str(disk / "work")
        path = sshd.folder / "hosts.small.yaml"
        path.write_text(yaml.safe_dump(value))
        streams_s = config["client"] | {"stream_s": 10.0}  # a busy machine fills it late
        config = {**config, "hosts": str(path), "seed": 21, "client": streams_s}
        there = Streams(disk, "work", hosts=1)

        def fill_in_the_middle() -> None:
            there.wait(1.0)
            fill(disk)

        filler = Thread(target=fill_in_the_middle, daemon=True)
        filler.start()
        (cell,) = grid.cells(config)
        (run,) = grid.runs(config, cell)
        with pytest.raises(RunError, match=r"client-host-1: the disk of .*/disk/work.* is full"):
            run_cell(config, cell, results)
        filler.join(5.0)
        part = paths.run_folder(run.key, results).with_name(f".{run.key}.part")
        rows = read_table(part / "frames.parquet").to_pandas()
        cut = rows[(rows.client == 1) & rows.reason.str.startswith("the client left no rows")]
        assert set(cut.outcome) == {"lost"}  # from when on the disk was full
        assert (rows[rows.client == 0].outcome == "ok").any()


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A host whose clocks, of the day and since the start, are an hour ahead."""
    folder = tmp_path_factory.mktemp("ahead")
    compiler = shutil.which("cc")
    if compiler is None or os.geteuid() != 0:
        pytest.skip("needs a C compiler and root")
    clock = folder / "clock.so"
    source = ROOT / "tests" / "clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O", str(source), "-o", clock], check=True)
    below = ["unshare", "--time", f"--monotonic={AHEAD_S}", "--fork", "--kill-child"]
    with Sshd(folder / "d", below, {"LD_PRELOAD": str(clock)}) as sshd:
        yield sshd


@pytest.mark.hosts
@pytest.mark.slow
def test_hosts_of_all_kinds_measure_one_cell(
    config: Config, results: Path, sshd: Sshd, ahead: Sshd, tmp_path: Path
) -> None:
    """A server in one environment, a client in another, and one whose clocks are an hour ahead."""
    value = yaml.safe_load(sshd.hosts_file().read_text())
    for host, role in ((value["server"], "server"), (value["clients"][0], "client")):
        host["conda"] = str(conda_shaped(tmp_path / role, role).parents[1])
        del host["python"]
    known = sshd.known_hosts.read_text() + ahead.known_hosts.read_text()
    (sshd.folder / "all_known").write_text(known)
    value |= {"known_hosts": "all_known"}
    value["clients"][1] = ahead.host(name="ahead")
    path = sshd.folder / "hosts.kinds.yaml"
    path.write_text(yaml.safe_dump(value))
    config = {**config, "hosts": str(path), "seed": 22}
    (cell,) = grid.cells(config)
    (run,) = grid.runs(config, cell)
    run_cell(config, cell, results)
    folder = paths.run_folder(run.key, results)
    told = read_json(folder / "hosts.json")["hosts"]
    assert told["ahead"]["clock_offset_s"] == pytest.approx(AHEAD_S, abs=60)
    assert abs(told["server"]["clock_offset_s"]) < 60
    rows = read_table(folder / "frames.parquet").to_pandas()
    mine, other = rows[rows.client == 1], rows[rows.client == 0]
    assert len(mine) == len(other) == 60
    apart_s = mine.capture_s.iloc[0] - other.capture_s.iloc[0]
    assert apart_s == pytest.approx(AHEAD_S, abs=60)  # and nobody has noticed:
    for own in (mine, other):
        answered = own[own.outcome == "ok"]
        assert len(answered) > 10  # whatever else this machine does
        assert answered.e2e_ms.between(5, 300).all()
        assert answered.server_ms.between(1, 300).all()
        assert own.bandwidth_true_kbps.notna().all()
