"""What can be wrong with a host is one clear error before anything is measured; real sshd."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment import preflight
from experiment.deploy import check_clean, code_of, put_environment, try_role
from experiment.fleet import Fleet, on_each
from experiment.host_file import read_hosts
from experiment.preflight import look
from experiment.ssh import Ssh
from jellyfish.errors import ConfigError, JellyfishError, RunError
from tests.sshd import MISSING, Sshd, available

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


def ssh_to(sshd: Sshd, **server: Any) -> Ssh:
    hosts = read_hosts(sshd.hosts_file(**server))
    return Ssh(hosts.server, hosts)


def test_a_connection_runs_puts_and_gets(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ssh_to(sshd) as host:
        assert host.said("echo a b") == "a b"
        with pytest.raises(RunError, match="server: oops"):
            host.said("echo oops >&2; exit 3")
        (tmp_path / "x").write_text("x")
        host.put(str(tmp_path / "x"), str(tmp_path / "y"))
        host.get(str(tmp_path / "y"), str(tmp_path / "z"))
        assert (tmp_path / "z").read_text() == "x"
        with pytest.raises(RunError, match="server: cannot read /nowhere"):
            host.get("/nowhere", str(tmp_path / "z"))
        with pytest.raises(RunError, match=r"server: no end after 1 s: sleep 9"):
            host.run("sleep 9", timeout=1)
        # Its thread may still be there when Invoke asks whether it was the timer.
        monkeypatch.setattr("invoke.runners.Runner.timed_out", property(lambda _: False))
        for warn in (False, True):
            with pytest.raises(RunError, match=r"server: no end after 1 s: sleep 9"):
                host.run("sleep 9", timeout=1, warn=warn)


def test_a_wrong_key(sshd: Sshd) -> None:
    with (
        pytest.raises(RunError, match=r"server \(.*\): it does not accept the key .*stranger"),
        ssh_to(sshd, key=str(sshd.folder / "stranger.key")),
    ):
        pass


def test_a_changed_and_an_unknown_host_key(sshd: Sshd) -> None:
    try:
        sshd.know(sshd.folder / "stranger.key.pub")
        with (
            pytest.raises(RunError, match=r"host key has changed: it shows SHA256:.*ssh-keygen -R"),
            ssh_to(sshd),
        ):
            pass
        sshd.known_hosts.write_text("")
        with (
            pytest.raises(RunError, match=r"host key is unknown: ssh-ed25519 SHA256:.*ssh-keyscan"),
            ssh_to(sshd),
        ):
            pass
        sshd.known_hosts.unlink()
        with pytest.raises(ConfigError, match=r"hosts\.yaml: known_hosts: no file"):
            ssh_to(sshd)
    finally:
        sshd.know(sshd.folder / "host.key.pub")


def test_a_host_that_is_not_there_is_tried_again(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiment.ssh.PAUSE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(RunError, match=rf"port {port}\): it cannot be reached"):
        ssh_to(sshd, port=port).open()
    assert time.monotonic() - begin > 0.2  # twice again


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"python": "/no/python"}, r"server: there is no /no/python \(`python` in the hosts"),
        ({"python": "/bin/false"}, r"server: the Python there cannot be used: exit code 1"),
        ({"python": None, "conda": "no-such"}, r"server: there is no conda environment 'no-such'"),
        ({"interface": "eth99"}, r"server: no network interface 'eth99'; there are: .*lo"),
        ({"work": "/proc/jellyfish"}, r"server: .*/proc/jellyfish.*`work` in the hosts file"),
    ],
)
def test_what_a_host_lacks_is_named(sshd: Sshd, server: dict[str, Any], said: str) -> None:
    path = sshd.hosts_file(**server)
    value = yaml.safe_load(path.read_text())
    value["server"] = {key: one for key, one in value["server"].items() if one is not None}
    path.write_text(yaml.safe_dump(value))
    hosts = read_hosts(path)
    with Ssh(hosts.server, hosts) as host, pytest.raises(RunError, match=said):
        look(host, hosts.server)


def test_a_full_disk_and_an_old_python(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh_to(sshd) as host:
        assert look(host, host.spec).cores
        monkeypatch.setattr(preflight, "VERSION", (4, 0))
        with pytest.raises(RunError, match=r"is Python 3\.11\.\d+, but 4\.0 is needed"):
            look(host, host.spec)
        monkeypatch.setattr(preflight, "MIN_FREE_MB", 10**12)
        with pytest.raises(RunError, match=r"server: the disk of .* is full: \d+ MB free"):
            look(host, host.spec)


def test_a_clock_that_is_an_hour_off_is_recorded_and_no_error(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time; now = time.time; time.time = lambda: now() + 3600\n"
    )
    wrapped = tmp_path / "python"
    wrapped.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    wrapped.chmod(0o755)
    with ssh_to(sshd, python=str(wrapped)) as host:
        assert look(host, host.spec).clock_offset_s == pytest.approx(3600, abs=60)


def test_an_environment_without_the_packages(sshd: Sshd, tmp_path: Path, root: Path) -> None:
    empty = tmp_path / "empty"
    subprocess.run(["python3", "-m", "venv", "--without-pip", str(empty)], check=True)
    with ssh_to(sshd, python=str(empty / "bin" / "python")) as host:
        facts = look(host, host.spec)
        python = put_environment(host, facts, root, made=False)
        with pytest.raises(RunError, match=r"server: .* cannot run the client: .*No module named"):
            try_role(host, "client", python, str(root))


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_environment_is_made_once_for_a_lock(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("# no packages, for the sake of time\n")
    with ssh_to(sshd, work=str(tmp_path / "work of a host")) as host:  # a shell would split it
        facts = look(host, host.spec)
        python = put_environment(host, facts, tmp_path, made=True)
        assert python.startswith(f"{facts.work}/venv/")
        assert host.said(f"'{python}' -c 'import sys; print(sys.version_info[:2])'") == "(3, 11)"
        made = Path(python).lstat()
        assert put_environment(host, facts, tmp_path, made=True) == python
        assert Path(python).lstat() == made
        (tmp_path / "requirements.lock").write_text("no-such-package-at-all==1.0 ; bad marker\n")
        with pytest.raises(RunError, match=r"server: .*(?s:.)*making .* from requirements\.lock"):
            put_environment(host, facts, tmp_path, made=True)
        assert not list(Path(facts.work, "venv").glob("*/complete"))[1:]
        full = replace(facts, free_mb=10.0)
        with pytest.raises(RunError, match=r"server: 10 MB free at .* an environment takes"):
            put_environment(host, full, tmp_path, made=True)


def test_every_host_that_fails_is_named(sshd: Sshd, root: Path) -> None:
    def do(name: str) -> str:
        if name == "b":
            return name
        raise RunError(f"{name}: no")

    found = on_each({"a": "a", "b": "b", "c": "c"}, do)
    assert found.done == {"b": "b"}
    with pytest.raises(JellyfishError, match=r"a: no\n  c: no"):
        found.results()


def test_code_that_is_not_committed_goes_nowhere(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True)

    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "a.py").write_text("a = 1\n")
    (tmp_path / "notes").write_text("")
    outside = code_of(tmp_path)  # no checkout of git's: all of it
    check_clean(tmp_path, allow_dirty=False)
    git("init", "-q")
    git("add", "client")
    git("commit", "-qm", "a")
    assert code_of(tmp_path) == outside
    check_clean(tmp_path, allow_dirty=False)
    (tmp_path / "client" / "b.py").write_text("b = 1\n")
    with pytest.raises(ConfigError, match=r"differs from its commit \(client/b\.py\)"):
        check_clean(tmp_path, allow_dirty=False)
    check_clean(tmp_path, allow_dirty=True)
    assert code_of(tmp_path).digest != outside.digest


def test_a_dirty_checkout_is_refused_before_any_host_is_reached(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "a.py").write_text("")
    config = {"hosts": str(sshd.hosts_file()), "allow_dirty": "false", "lock": "wait"}
    with pytest.raises(ConfigError, match=r"allow_dirty: true"):
        Fleet(config, tmp_path)
