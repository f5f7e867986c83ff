"""The testbed of namespaces: hosts that SSH reaches, and nothing left of it afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from experiment import processes, testbed
from experiment.host_file import read_hosts
from experiment.testbed import NamespaceTestbed, namespaces
from jellyfish.errors import ConfigError, RunError
from scripts import scenario
from tests.conftest import ROOT
from tests.namespaces import own_prefix, own_testbed
from tests.unit.test_house import config


def links() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def ssh(made: NamespaceTestbed, host: str, command: str) -> str:
    line = ["ssh", "-F", str(made.ssh_config), host, command]
    done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


def test_ssh_reaches_every_host_and_nothing_is_left() -> None:
    before = links()
    with own_testbed() as made:
        assert [node.name for node in made.nodes] == ["server", "client-1", "client-2"]
        for node in made.nodes:
            shown = ssh(made, node.namespace, "ip -4 -o address show dev eth0")
            assert f" {node.address}/24 " in shown
            leads = ssh(made, node.namespace, f"ip route get {made.server.address}")
            assert "dev eth0" in leads or node == made.server
        pid = int(
            ssh(made, made.server.namespace, "sleep 300 </dev/null >/dev/null 2>&1 & echo $!")
        )
        left = processes.identify(pid)
        assert left is not None
        assert left.alive
        folder = made.folder
    assert not left.alive
    assert not [name for name in namespaces() if name.startswith(made.prefix)]
    assert links() == before
    assert not folder.exists()


def test_it_writes_a_hosts_file_that_experiments_read() -> None:
    with own_testbed(clients=1) as made:
        value = yaml.safe_load(made.hosts.read_text())
        assert value["server"]["address"] == made.server.address
        assert value["server"]["python"] == sys.executable
        assert [client["name"] for client in value["clients"]] == ["client-1"]
        assert value["clients"][0]["shaper"] == "tc"
        assert (made.folder / value["known_hosts"]).read_text().count("ssh-ed25519") == 2
        read = read_hosts(made.hosts)
        assert read.server.key == made.user_key
        scenery = config("testbed.yaml")
        assert scenery["hosts"] == str(testbed.default_folder() / "hosts.yaml")
        cells = scenario.load({**scenery, "hosts": str(made.hosts)}, ROOT).cells.values()
        assert Counter(cell.world for cell in cells) == {"measured": 3 * 2 + 1}


def test_up_twice_changes_nothing_and_half_a_testbed_is_made_anew() -> None:
    with own_testbed(clients=1) as made:
        key = made.user_key.read_bytes()
        made.up()
        assert made.user_key.read_bytes() == key
        subprocess.run(["ip", "netns", "delete", made.clients[0].namespace], check=True)
        assert not made.answers()
        made.up()
        assert made.answers()
        assert made.user_key.read_bytes() != key
        made.down()
        made.down()
        assert not made.answers()


def test_a_network_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with own_testbed(clients=1) as made:
        network = f"{made.server.address.rpartition('.')[0]}.0/24"
        second = NamespaceTestbed(tmp_path / "second", f"x{own_prefix()[1:]}", network, 1)
        with pytest.raises(RunError, match=r"10\.75\.\d+\.0/24 is in use here: 10\.75"), second:
            pass
        assert made.answers()


@pytest.mark.parametrize(
    ("prefix", "network", "says"),
    [
        ("much-too-long", "10.75.0.0/24", "testbed prefix 'much-too-long'"),
        ("jt", "10.75.0.1/24", "10.75.0.1/24 has host bits set"),
        ("jt", "10.75.0.0/30", "too small for 4 hosts"),
    ],
)
def test_what_cannot_be_a_testbed_is_refused(prefix: str, network: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NamespaceTestbed(Path("/nowhere"), prefix, network)


def test_who_is_not_root_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    if testbed.os.geteuid() == 0:
        command = ["setpriv", "--reuid=nobody", "--clear-groups", sys.executable]
        done = subprocess.run(
            [*command, "-m", "experiment.testbed", "up"], capture_output=True, text=True
        )
        code, said = done.returncode, done.stderr
    else:
        code, said = testbed.main(["up"]), capsys.readouterr().err
    assert code == 1
    assert said.strip() == "testbed: no testbed: network namespaces need root"
