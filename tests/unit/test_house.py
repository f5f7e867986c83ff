"""The house: which room may import which, how large a room may grow, what the manual covers."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import yaml

from experiment.grid import runs
from jellyfish.errors import ConfigError
from jellyfish.policy import POLICIES
from scripts import scenario

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {  # what each may import of the others: workflow -> ... -> jellyfish, never back
    "jellyfish": set[str](),
    "server": {"jellyfish"},
    "client": {"jellyfish"},
    "experiment": {"server", "client", "jellyfish"},
    "scripts": {"experiment", "server", "client", "jellyfish"},
}
# What the decisions must not know of: clocks, sockets, processes, frameworks.
FOREIGN = {"asyncio", "time", "socket", "subprocess", "threading", "multiprocessing"}
FOREIGN |= {"torch", "onnxruntime", "fabric", "invoke", "cv2"}
# What must run unchanged on a clock that jumps.
CLOCKLESS = (
    "server/engine.py",
    "server/queues.py",
    "client/session.py",
    "client/connection.py",
    "server/seats.py",
)


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    return [path for path in found if "_pb2" not in path.name]


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_one_way(room: str) -> None:
    assert sources(room)
    for path in sources(room):
        for name in imports(path):
            top = name.partition(".")[0]
            closed = ({*ROOMS, "tests", "workflow"} - ROOMS[room]) - {room}
            assert top not in closed, f"{path} imports {name}"


def test_decisions_know_no_clock_socket_or_framework() -> None:
    for path in sources("jellyfish"):
        inside = path.relative_to(ROOT / "jellyfish").parts[0]
        for name in imports(path):
            top = name.partition(".")[0]
            assert top not in FOREIGN, f"{path} imports {name}"
            assert top != "grpc" or inside == "protocol", f"{path} imports {name}"
            wire = name.startswith("jellyfish.protocol")
            assert not wire or inside == "protocol", f"{path} imports {name}"


@pytest.mark.parametrize("path", CLOCKLESS)
def test_engine_and_session_take_time_from_the_loop(path: str) -> None:
    for name in imports(ROOT / path):
        top = name.partition(".")[0]
        assert top not in {"time", "threading", "concurrent", "multiprocessing"}, name


def test_the_relay_starts_light() -> None:
    for path in (ROOT / "client/shaping/relay.py", ROOT / "jellyfish/trace.py"):
        assert not {name for name in imports(path) if name.startswith(("numpy", "grpc", "cv2"))}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_nothing_grows_large() -> None:
    files = [path for room in ROOMS for path in sources(room)]
    for path in files:
        assert len(path.read_text().splitlines()) <= 400, path
    lengths = []
    for path in files:
        for name, lines in functions(path):
            assert lines <= 60, f"{path}: {name} has {lines} lines"
            lengths.append(lines)
    assert median(lengths) <= 12
    assert quantiles(lengths, n=10)[-1] <= 35
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert len(path.read_text().splitlines()) <= 150, path


def schema() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / scenario.SCHEMA).read_text())
    return content


def keys(node: Any) -> set[str]:
    """Return every key that a schema knows, at any depth; not names that the user makes up."""
    found = set()
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "properties" and isinstance(value, dict):
                found |= set(value)
            found |= keys(value)
    elif isinstance(node, list):
        for value in node:
            found |= keys(value)
    return found


def test_the_manual_explains_every_key() -> None:
    manual = (ROOT / "config" / "README.md").read_text()
    missing = {key for key in keys(schema()) if f"`{key}`" not in manual}
    assert not missing


def objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def test_schemas_refuse_what_they_do_not_know() -> None:
    for node in objects(schema()):
        assert "additionalProperties" in node or "allOf" in node, node.get("description")


def config(*names: str) -> dict[str, Any]:
    """Return the default config with others laid over it, as Snakemake lays them."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for name in names:
        lay_over(found, yaml.safe_load((ROOT / "config" / name).read_text()))
    return found


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value


def test_every_scenario_is_valid() -> None:
    default = scenario.load(config(), ROOT)
    of_world = Counter(cell.world for cell in default.cells.values())
    assert of_world == {"measured": 4 * 2, "simulated": 4 * 3 * 2}
    assert default.zoo.input_px[0] == 128
    smoke = scenario.load(config("smoke.yaml"), ROOT)
    assert len(smoke.cells) == 2 + 2
    policies = scenario.load(config("policies.yaml"), ROOT)
    assert {cell.policy for cell in policies.cells.values()} == set(POLICIES)
    simulated = scenario.load(config("simulated.yaml"), ROOT)
    assert set(simulated.cells) == {n for n, c in default.cells.items() if c.world == "simulated"}
    published = scenario.load(config("paper.yaml"), ROOT)
    cells = list(published.cells.values())
    assert sum(len(runs(config("paper.yaml"), c)) for c in cells if c.slo != "var") == 648
    assert len(cells) == 3 * (24 + 2)
    agreement = scenario.load(config("agreement.yaml"), ROOT)
    worlds = [cell.world for cell in agreement.cells.values()]
    assert worlds.count("measured") == worlds.count("simulated") == 12 + 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bogus": 1}, r"unknown key 'bogus'; there are: allow_dirty, allow_missing"),
        ({"network": {"delay": 1}}, r"network: unknown key 'delay'; there are: delay_ms, tls"),
        ({"seed": "x"}, r"seed: 'x' is not of type 'integer'"),
        ({"traces": {"t": {"kind": "steps", "mbps": [1]}}}, r"traces\.t: step_s is missing"),
        ({"traces": {"t": {"kind": "none", "mbps": [1]}}}, r"traces\.t: unknown key 'mbps'"),
        ({"traces": {"t": {"kind": "wifi"}}}, r"traces\.t\.kind: 'wifi' is not one of"),
        ({"scenario": "runs"}, r"scenario: 'runs' cannot be used"),
        ({"scenario": "../up"}, r"scenario: '\.\./up' does not match"),
        ({"profile": {"batches": 99}}, r"profile\.batches: 99 is less than the minimum of 100"),
        ({"profile": {"batch_sizes": [1, 3]}}, r"profile\.batch_sizes must be 1, 2"),
        ({"profile": {"clip": "nope"}}, r"no 'nope' under clips"),
        ({"zoo": "config/zoo/nope.yaml"}, r"nope\.yaml cannot be read"),
        ({"assets": "nope.yaml"}, r"nope\.yaml cannot be read: No such file"),
        ({"scoring": {"classes": ["ghost"]}}, r"no 'ghost' under labels"),
        ({"scoring": {"labelled": "nope"}}, r"no 'nope' under assets"),
        ({"devices": {"d": {"kind": "emulated"}}}, r"devices\.d: profile is missing"),
        ({"devices": {"d": {"kind": "emulated", "profile": "no"}}}, r"no 'no' under devices"),
        ({"devices": {"cpu": {"max_batch": 2}}}, r"devices\.cpu: unknown key 'max_batch'"),
        ({"simulation": {"device_ms": -1}}, r"simulation\.device_ms: -1 is less than"),
        ({"traces": {"t": {"kind": "generated", "model": "5g"}}}, r"traces\.t"),
        ({"server": {"policy": "best"}}, r"no policy 'best'; there are: paper"),
        ({"clips": {"c": {"asset": "vtest", "first": 0}}}, r"clips\.c: frames is missing"),
    ],
)
def test_a_bad_config_is_named(change: dict[str, Any], said: str) -> None:
    changed = config()
    lay_over(changed, change)
    with pytest.raises(ConfigError, match=said):
        scenario.load(changed, ROOT)


@pytest.mark.parametrize("key", ["traces", "clips", "device", "policies", "mixed"])
def test_a_grid_that_names_what_there_is_not(key: str) -> None:
    changed = config()
    changed["grid"][0][key] = "nope" if key == "device" else ["nope"]
    with pytest.raises(ConfigError, match=r"no (policy )?'nope'"):
        scenario.load(changed, ROOT)


def test_the_readme_names_folders_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in ("workflow", "scripts", "experiment", "server", "client", "jellyfish", "config"):
        assert f"`{folder}/`" in readme
        assert (ROOT / folder).is_dir()


def test_make_says_what_it_can_do() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("all", "test", "lint", "clean", "smoke", "lock"):
        assert f"\n{target} " in f"\n{said.stdout}"
    assert "fig_8" in said.stdout


def test_what_runs_dnns_is_not_simulated() -> None:
    changed = config()
    changed["grid"][0]["world"] = "simulated"
    with pytest.raises(ConfigError, match="device 'cpu' of a simulated block is not emulated"):
        scenario.load(changed, ROOT)
