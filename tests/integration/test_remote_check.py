"""`python -m scripts.hosts`: what a user can look at before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.testbed import NamespaceTestbed
from jellyfish.errors import ConfigError
from scripts import hosts
from tests.conftest import ROOT
from tests.integration.test_tc import tc_shows

FEW: dict[str, Any] = {
    "scenario": "few",
    "allow_dirty": True,
    "server": {"policy": "paper"},  # which compiles little
    "grid": [
        {"world": "measured", "device": "gpu", "workers": 1, "clients": [1, 3], "fps": [15]}
        | {"traces": ["synthetic"], "slo_ms": [150], "clips": ["vtest-1"], "repetitions": 1}
    ],
}
SIMULATED = {"grid": [FEW["grid"][0] | {"world": "simulated"}]}


@pytest.fixture
def few(tmp_path: Path) -> Path:
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(FEW))
    return path


def test_a_dry_run_tells_what_root_would_do_and_does_nothing(
    testbed: NamespaceTestbed, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [tc_shows(node) for node in testbed.nodes]
    asked = ["--configfile", str(few), "--hosts", str(testbed.hosts), "--dry-run"]
    assert hosts.main(asked) == 0
    said, first, second = capsys.readouterr().out.split("\n# on client-")
    for line in ("server (", "client-1 (", "client-2 ("):
        assert line in said
    assert "-3-slo150-fps15-vtest-1-r0-" in said  # the run with the most clients
    for commands, clients in ((first, 2), (second, 1)):  # taking turns
        assert "tc qdisc replace dev eth0 root handle 4a46: htb" in commands
        assert commands.count("tc class add dev eth0") == clients
        assert commands.splitlines()[-1].endswith("tc qdisc delete dev eth0 root")
    assert [tc_shows(node) for node in testbed.nodes] == before


def test_hosts_that_are_well(
    testbed: NamespaceTestbed, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosts.main(["--configfile", str(few), "--hosts", str(testbed.hosts)]) == 0
    said = capsys.readouterr().out
    assert f"client-1 ({testbed.clients[0].address}): clients, shaped by tc; Linux" in said
    assert "Python 3.11." in said
    assert "root" not in said


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, [], "the scenario names no hosts; say --hosts FILE"),
        ({}, ["--hosts", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (SIMULATED, ["--hosts", "config/hosts.example.yaml"], "measures nothing"),
        ({"grids": []}, [], "unknown key 'grids'"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(
    few: Path,
    change: dict[str, Any],
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    example = yaml.safe_load((ROOT / "config" / "hosts.example.yaml").read_text())
    del example["server"]["key"]
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump(example))
    options = [str(tmp_path / "hosts.yaml") if "example" in one else one for one in options]
    few.write_text(yaml.safe_dump(FEW | change))
    assert hosts.main(["--configfile", str(few), *options]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no keys"), ("- grid\n", "holds no keys"), ("grid: [\n", "cannot be read")],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "few.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"few.yaml {said}"):
        hosts.read_config(tmp_path / "few.yaml", None)
