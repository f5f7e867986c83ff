"""The hosts file: what it says, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment import grid
from experiment.host_file import SCHEMA, read_hosts
from jellyfish.errors import ConfigError
from scripts import scenario
from tests.unit.test_house import keys, objects

ROOT = Path(__file__).resolve().parents[2]
HOSTS: dict[str, Any] = {
    "server": {"address": "gpu", "work": "~/w", "key": "id", "client_address": "10.0.0.1"},
    "clients": [
        {"name": "a", "address": "10.0.0.2", "work": "/w", "shaper": "tc", "interface": "eth1"},
        {"name": "b", "address": "10.0.0.3", "work": "/w", "python": "/opt/p"},
    ],
}


def written(tmp_path: Path, value: Any) -> Path:
    (tmp_path / "id").touch()
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def changed(server: dict[str, Any] | None = None, first: dict[str, Any] | None = None) -> Any:
    clients = [HOSTS["clients"][0] | (first or {}), HOSTS["clients"][1]]
    return {"server": HOSTS["server"] | (server or {}), "clients": clients}


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    hosts = read_hosts(written(tmp_path, HOSTS))
    assert [host.name for host in hosts.every] == ["server", "a", "b"]
    assert [host.shaper for host in hosts.clients] == ["tc", "relay"]
    assert hosts.server.key == tmp_path / "id"  # relative to the file
    assert (hosts.server.port, hosts.server.user, hosts.known_hosts) == (None, None, None)


def test_the_example_is_one(tmp_path: Path) -> None:
    text = (ROOT / "config" / "hosts.example.yaml").read_text()
    hosts = read_hosts(written(tmp_path, yaml.safe_load(text.replace("~/.ssh/id_ed25519", "id"))))
    assert [host.shaper for host in hosts.clients] == ["tc", "relay"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (changed(server={"password": "x"}), r"server: unknown key 'password'; there are: address"),
        (changed(first={"port": "x"}), r"clients\[0\]\.port: 'x' is not of type 'integer'"),
        (changed(first={"shaper": "magic"}), r"clients\[0\]\.shaper: 'magic' is not one of"),
        (changed(first={"tc": {"leaf": "fq"}}), r"clients\[0\]\.tc\.leaf: 'fq' is not one of"),
        (changed(first={"tc": {"first_port": 99}}), r"clients\[0\]\.tc\.first_port: 99 is"),
        (changed(first={"work": "w"}), r"clients\[0\]\.work: 'w' does not match"),
        (changed(first={"name": "b"}), r"two hosts are named 'b'; give each"),
        (changed(first={"name": "server"}), r"two hosts are named 'server'"),
        (changed(first={"key": "none"}), r"clients\[0\]\.key: no file .*/none"),
        (changed(server={"python": "/p", "conda": "c"}), r"server: python and conda exclude"),
        ({"clients": HOSTS["clients"]}, r"hosts\.yaml: server is missing"),
        ({**HOSTS, "clients": []}, r"clients: \[\] (should be non-empty|is too short)"),
        ({**HOSTS, "known_hosts": "none"}, r"known_hosts: no file .*/none"),
        ([], r"hosts\.yaml holds no keys of a hosts file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as seen:
        read_hosts(written(tmp_path, value))
    assert "hosts.yaml" in str(seen.value)


def test_a_scenario_checks_its_hosts_file(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"hosts file .*none\.yaml cannot be read"):
        scenario.load({**config, "hosts": str(tmp_path / "none.yaml")}, ROOT)
    scenario.load({**config, "hosts": str(written(tmp_path, HOSTS))}, ROOT)


def test_runs_on_other_machines_are_other_runs_of_the_same_seeds(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    cell = grid.cells(config)[0]
    other = changed(first={"shaper": "relay"})
    coarse = changed(first={"tc": {"leaf": "htb"}})
    reached_differently = changed(first={"user": "me", "port": 2222, "work": "/elsewhere"})
    found = []
    for i, value in enumerate((HOSTS, other, reached_differently, coarse)):
        (tmp_path / str(i)).mkdir()
        hosts = str(written(tmp_path / str(i), value))
        found.append(grid.runs({**config, "hosts": hosts}, cell)[0])
    here = grid.runs(config, cell)[0]
    assert len({here.key, found[0].key, found[1].key, found[3].key}) == 4
    assert found[0].key == found[2].key
    assert {run.seed for run in found} == {here.seed}


def test_a_profile_is_of_the_device_on_the_servers_host(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["devices"] |= {"drawn": {"kind": "emulated", "profile": "synthetic", "max_batch": 2}}
    elsewhere = {**config, "hosts": str(written(tmp_path, HOSTS))}
    assert grid.profile_key(config, "cpu") != grid.profile_key(elsewhere, "cpu")
    assert grid.profile_key(config, "drawn") == grid.profile_key(elsewhere, "drawn")
    clients = [{**HOSTS["clients"][0], "address": "another.example.org"}]
    others = {**config, "hosts": str(written(tmp_path, HOSTS | {"clients": clients}))}
    assert grid.profile_key(elsewhere, "cpu") == grid.profile_key(others, "cpu")


def test_the_manual_explains_every_key_of_a_hosts_file() -> None:
    schema = yaml.safe_load(SCHEMA.read_text())
    manual = (ROOT / "config" / "README.md").read_text()
    assert not {key for key in keys(schema) if f"`{key}`" not in manual}
    assert all("additionalProperties" in node for node in objects(schema))
