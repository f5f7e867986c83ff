"""A cell on hosts over real SSH, on loopback: emulated device, gRPC, relays; and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from experiment import grid, paths, processes
from experiment.cell import run_cell
from experiment.fleet import Fleet
from experiment.processes import ProcessId
from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json
from jellyfish.files.provenance import read_provenance
from jellyfish.files.tables import read_table
from jellyfish.records import Outcome
from tests.integration.test_cell import MANAGER
from tests.integration.test_emulated_cell import config_over
from tests.sshd import MISSING, Sshd, available
from tests.streams import Streams

Config = dict[str, Any]
STREAM_S = 15.0  # of runs that are cut off: a busy machine disturbs them late
pytestmark = [
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def config(root: Path, sshd: Sshd) -> Config:
    value = config_over(root, sshd.hosts_file())
    return value | {"network": {**value["network"], "tls": "mutual"}}


def remote_processes(sshd: Sshd) -> list[ProcessId]:
    """Return everything that runs on the hosts: below each agent, and the agents."""
    agents = [
        process
        for process in processes.every()
        if "experiment.remote" in (command := processes.command(process.pid))
        and any(str(sshd.folder) in word for word in command)
    ]
    return [*agents, *(below for agent in agents for below in processes.descendants(agent.pid))]


def streams(sshd: Sshd) -> Streams:
    return Streams(sshd.folder / "work", "client-host-*")


@pytest.fixture(scope="module")
def killed(config: Config, results: Path, root: Path, sshd: Sshd) -> list[ProcessId]:
    """Kill a manager in the middle of the cell's run; return what ran on the hosts."""
    command = [sys.executable, "-c", MANAGER, json.dumps(config), str(results)]
    both = streams(sshd)
    with subprocess.Popen(command, cwd=root) as manager:
        both.wait(1.2, lambda: manager.poll() is None)
        there = remote_processes(sshd)
        manager.kill()
    return there


def test_a_killed_manager_leaves_no_process_on_any_host(killed: list[ProcessId]) -> None:
    assert len(killed) >= 11  # 3 agents, server, 2 workers, planner, 2 clients, 2 relays
    assert processes.wait_gone(killed, 25.0) == []


@pytest.fixture(scope="module")
def done(
    config: Config, results: Path, killed: list[ProcessId]
) -> tuple[grid.Run, Path, dict[str, Any]]:
    """Measure the cell anew."""
    (cell,) = grid.cells(config)
    index = read_json(run_cell(config, cell, results))
    (run,) = grid.runs(config, cell)
    return run, paths.run_folder(run.key, results), index


def test_every_frame_of_every_host_has_a_row(
    done: tuple[grid.Run, Path, dict[str, Any]],
) -> None:
    _, folder, index = done
    frames = read_table(folder / "frames.parquet").to_pandas()
    assert sorted(frames.client) == [0] * 60 + [1] * 60
    assert index["runs"][0]["outcomes"]["ok"] > 20  # whatever else this machine does
    for i in (0, 1):  # taking turns
        job = read_json(folder / "jobs" / f"client-{i}.job.json")
        assert f"/work/client-host-{i}/runs/" in job["out_dir"]
        assert (folder / "logs" / f"client-{i}.log").exists()
        assert job["tls_key"].startswith(f"{job['out_dir']}/client-{i}.")
    assert not list(folder.glob("*.pid"))


def test_keys_are_gone_with_the_run(
    done: tuple[grid.Run, Path, dict[str, Any]], sshd: Sshd
) -> None:
    _, folder, _ = done
    assert read_json(folder / "jobs" / "server.job.json")["tls_client_ca"]
    assert not [*folder.rglob("*.pem"), *(sshd.folder / "work").glob("*/runs/**/*.pem")]


def test_a_run_says_which_hosts_it_was_on(
    done: tuple[grid.Run, Path, dict[str, Any]], config: Config
) -> None:
    run, folder, _ = done
    told = read_json(folder / "hosts.json")
    assert told["clients"] == ["client-host-0", "client-host-1"]
    assert set(told["hosts"]) == {"server", *told["clients"]}
    assert abs(told["hosts"]["server"]["clock_offset_s"]) < 30  # this very machine
    assert read_provenance(folder).versions == told["hosts"]["server"]["versions"]
    assert run.seed == grid.runs({**config, "hosts": None}, run.cell)[0].seed


def test_nothing_is_copied_twice(
    done: tuple[grid.Run, Path, dict[str, Any]], config: Config, root: Path, sshd: Sshd
) -> None:
    def there() -> dict[str, int]:
        found = (sshd.folder / "work").glob("*/[cf]*/*")
        return {str(path): path.stat().st_ino for path in found}

    before = there()
    assert len([path for path in before if "/files/" in path]) > 3
    assert not [path for path in before if ".part" in path]
    _, folder, _ = done
    with Fleet(config, root) as hosts:
        clip = hosts.placement("x").of_client(0).file(folder / "frames.parquet")
    assert Path(clip).read_bytes() == (folder / "frames.parquet").read_bytes()
    after = there()
    assert {path: inode for path, inode in after.items() if path != clip} == before
    # An edit in this checkout meanwhile is another digest, and no copy of the same.


def test_old_code_and_environments_go_and_nothing_else(
    config: Config, root: Path, sshd: Sshd
) -> None:
    work = sshd.folder / "work" / "server"
    old_s = time.time() - 10 * 86400

    def folder(kind: str, name: str, used_s: float = old_s, mark: str = ".jellyfish") -> Path:
        made = work / kind / name
        made.mkdir(parents=True)
        (made / mark).touch()
        (made / "complete").touch()
        os.utime(made / mark, (used_s, used_s))
        return made

    old = [folder(kind, f"{i:016x}", old_s - i) for kind in ("code", "venv") for i in range(5)]
    stays = [
        folder("code", "a" * 16, old_s - 10),  # a process lives in it
        folder("code", "b" * 16, time.time() - 3600),
        folder("code", "c" * 16, time.time() - 3600),
        folder("code", "d" * 16, time.time() - 3600),
        folder("code", "e" * 16, old_s - 10, mark="theirs"),
        folder("code", "notes", old_s - 10),
        folder("venv", "a" * 16, old_s - 10),  # a command line names it
        *old[5:8],  # the last three used
    ]
    script = "import time; print(flush=True); time.sleep(120)"
    lives = [sys.executable, "-c", script, str(work / "venv" / ("a" * 16) / "bin" / "python")]
    with subprocess.Popen(lives, cwd=stays[0], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with Fleet(config, root) as hosts:
                assert Path(hosts.server_place("x").source(Path("jellyfish"))).is_dir()
        finally:
            process.kill()
    assert [path for path in stays if not path.exists()] == []
    assert [path for path in old if path.exists()] == old[5:8]


@pytest.mark.hosts
@pytest.mark.slow
def test_one_of_two_managers_waits_or_refuses(
    config: Config, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entered: list[float] = []
    told = ""

    def wait() -> None:
        with Fleet(config, root):
            entered.append(time.monotonic())

    with Fleet(config, root):
        with (
            pytest.raises(RunError, match=r"client-host-0: it is in use by process \d+ of .*@"),
            Fleet({**config, "lock": "refuse"}, root),
        ):
            pass
        waits = Thread(target=wait, daemon=True)
        waits.start()
        deadline = time.monotonic() + 240
        while "waiting for client-host-0: it is in use by process" not in told:
            told += capsys.readouterr().err
            assert waits.is_alive(), told
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        waits.join(1.0)
        assert not entered
        left_s = time.monotonic()
    waits.join(240.0)
    assert entered, "the second manager was never let in"
    assert entered[0] > left_s


def failed_run(
    config: Config, results: Path, sshd: Sshd, seed: int, disturb: Any, said: str
) -> tuple[Path, float]:
    """Run the cell, disturb it in the middle, and return its folder and how long it then took."""
    config = {**config, "seed": seed, "client": {**config["client"], "stream_s": STREAM_S}}
    (cell,) = grid.cells(config)
    (run,) = grid.runs(config, cell)
    when: list[float] = []
    both = streams(sshd)

    def meddle() -> None:
        both.wait(2.0)
        when.append(time.monotonic())
        disturb()

    meddler = Thread(target=meddle, daemon=True)
    meddler.start()
    with pytest.raises(RunError, match=said):
        run_cell(config, cell, results)
    ended_s = time.monotonic()
    meddler.join(5.0)
    assert processes.wait_gone(remote_processes(sshd), 25.0) == []
    assert not paths.run_folder(run.key, results).exists()
    return paths.run_folder(run.key, results).with_name(f".{run.key}.part"), ended_s - when[0]


@pytest.mark.hosts
@pytest.mark.slow
def test_a_server_killed_in_the_middle(config: Config, results: Path, sshd: Sshd) -> None:
    def kill_server() -> None:
        (pid_file,) = (sshd.folder / "work" / "server").glob("runs/*/server.pid")
        processes.send(ProcessId(*map(int, pid_file.read_text().split())), signal.SIGKILL)

    said = r"server on server ended while clients were streaming \(exit code -9\)"
    folder, took_s = failed_run(config, results, sshd, 11, kill_server, said)
    assert took_s < 30
    rows = read_table(folder / "frames.parquet").to_pandas()
    assert set(rows[rows.outcome == Outcome.LOST].client) == {0, 1}
    assert (folder / "server.log").exists()


@pytest.mark.hosts
@pytest.mark.slow
def test_an_ssh_session_killed_in_the_middle(config: Config, results: Path, sshd: Sshd) -> None:
    def kill_session() -> None:
        work = str(sshd.folder / "work" / "client-host-0")
        (agent,) = [p for p in remote_processes(sshd) if work in processes.command(p.pid)]
        session = processes.ancestors(agent.pid)[0]
        processes.send(session, signal.SIGKILL)

    said = r"client-host-0: the SSH session"
    folder, took_s = failed_run(config, results, sshd, 12, kill_session, said)
    assert took_s < 30
    rows = read_table(folder / "frames.parquet").to_pandas()
    assert set(rows[rows.client == 0].outcome) == {Outcome.LOST}
    assert rows[rows.client == 0].reason.str.contains(said).all()
    assert (rows[rows.client == 1].outcome == Outcome.OK).any()
