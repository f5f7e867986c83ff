"""The profiles that send the simulated grid to a cluster: what they say, and what they schedule."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser

from tests.integration.workflow_checkout import ROOT, Checkout

pytestmark = pytest.mark.beside

CLUSTERS = ("kubernetes", "slurm")
PREFIXES = {"kubernetes": "cluster-generic-", "slurm": "slurm-"}  # of an executor's own options
MEASURED = {"cell", "latency", "planning_timings"}
SCENARIO = """
scenario: scaled
grid:
  - {world: simulated, device: gpu, workers: 1, traces: [synthetic], clients: [1, 2],
     slo_ms: [75, 150], fps: [25], clips: [smoke-1], repetitions: 1}
figures: {fig_7: {simulated: {trace: synthetic, clients: 2, slo_ms: 150, fps: 25}}}
"""


def profile(name: str) -> dict[str, Any]:
    text = (ROOT / "workflow" / "profiles" / name / "config.yaml").read_text()
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def rules() -> set[str]:
    files = (ROOT / "workflow").rglob("*.smk")
    named = [re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE) for path in files]
    return {"all", *(name for names in named for name in names)}


def local_rules() -> set[str]:
    text = (ROOT / "workflow" / "rules" / "targets.smk").read_text()
    (block,) = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)
    return set(re.findall(r"\w+", block))


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_profile_says_what_the_default_says(name: str) -> None:
    """A profile that is named takes the default one's place."""
    assert profile("default").items() <= profile(name).items()


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_profile_uses_options_that_there_are(name: str) -> None:
    """Options of an executor's own are known only where its plugin is: see the slow tests."""
    known = {
        option.removeprefix("--")
        for action in get_argument_parser()._actions
        for option in action.option_strings
    }
    own = {option for option in profile(name) if option.startswith(PREFIXES[name])}
    assert set(profile(name)) - own <= known
    assert profile(name)["executor"] == PREFIXES[name].rstrip("-")


@pytest.mark.parametrize("name", CLUSTERS)
def test_groups_are_of_rules_that_there_are_and_leave_this_machine(name: str) -> None:
    groups = dict(entry.split("=") for entry in profile(name)["groups"])
    sizes = dict(entry.split("=") for entry in profile(name)["group-components"])
    assert set(groups) <= rules() - local_rules()
    assert set(groups.values()) == set(sizes)


def test_what_measures_this_machine_stays_on_it() -> None:
    assert local_rules() <= rules()
    assert local_rules() >= MEASURED


def test_plugins_are_optional_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locks = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements-dev.lock").read_text()
    for name in CLUSTERS:
        (pin,) = project["optional-dependencies"][name]
        assert re.fullmatch(rf"snakemake-executor-plugin-{PREFIXES[name][:-1]}==[0-9.]+", pin)
        assert pin not in locks


@pytest.fixture(scope="module")
def with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the plugins on top of the one that runs tests."""
    folder = tmp_path_factory.mktemp("plugins")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (here,) = (p for p in map(Path, sys.path) if (p / "snakemake").is_dir())
    (site / "below.pth").write_text(f"{here}\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [pin for name in CLUSTERS for pin in project["optional-dependencies"][name]]
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *pins]
    subprocess.run([*install, "-c", ROOT / "requirements.lock"], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout.copied_to(tmp_path_factory.mktemp("fresh"))


def dry_run(python: Path, checkout: Checkout, name: str) -> str:
    where = ("--workflow-profile", f"workflow/profiles/{name}")
    asked = ("all", "--configfile", "config/simulated.yaml")
    ended = checkout.run(str(python), "-m", "snakemake", "-n", *asked, *where)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_dry_run_groups_what_it_sends(name: str, with_plugins: Path, fresh: Checkout) -> None:
    said = dry_run(with_plugins, fresh, name)
    sent: dict[str, list[int]] = {}
    for group, jobs in re.findall(r"Group job (\w+) .*:\n((?:\n|    .*\n)+)", said):
        sent.setdefault(group, []).append(jobs.count("    rule "))
    assert sent["cells"] == [8, 8, 8]
    assert max(sent["detections"]) == 8
    assert sent["accuracy"] == [16]
    assert sum(sent["figures"]) == 4
    cells = re.findall(r"rule simulated_cell:\n(?: .*\n)*? +resources: (.*)", said)
    assert len(cells) == 24
    assert all("mem_mb=1500" in needs and "runtime=10" in needs for needs in cells)


@pytest.fixture
def small(assets: Path, tmp_path: Path) -> Checkout:
    """A clone with the downloads, and a simulated grid of four cells as `small.yaml`."""
    checkout = Checkout.copied_to(tmp_path / "clone")
    for kind in ("weights", "videos"):
        shutil.copytree(assets / kind, checkout.root / "results" / "data" / kind)
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    scenario = {**smoke, **yaml.safe_load(SCENARIO)}
    (checkout.root / "small.yaml").write_text(yaml.safe_dump(scenario))
    return checkout


def scored(python: Path, checkout: Checkout, *options: str, env: dict[str, str]) -> str:
    """Have Snakemake score the small grid; return what it says."""
    asked = ("results/scaled/scores.md", "--configfile", "small.yaml", "--latency-wait", "20")
    ended = checkout.run(str(python), "-m", "snakemake", *asked, *options, env=env)
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert len(list((checkout.root / "results" / "runs").iterdir())) == 4
    assert "| 2 | 150 | 25 |" in (checkout.root / "results" / "scaled" / "scores.md").read_text()
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_grid_through_kubectl(with_plugins: Path, small: Checkout, tmp_path: Path) -> None:
    """No Kubernetes: tests/kubectl.py runs a pod's command as a process."""
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "kubectl.py"} "$@"\n')
    kubectl.chmod(0o755)
    (tmp_path / "jobs").mkdir()
    env = {"PATH": f"{kubectl.parent}:{os.environ['PATH']}"}
    env["KUBECTL_FOLDER"] = str(tmp_path / "jobs")
    where = ("--workflow-profile", "workflow/profiles/kubernetes")
    assert "external jobid 'job.batch/jellyfish-" in scored(with_plugins, small, *where, env=env)
    pods = [
        yaml.safe_load(path.read_text()) for path in (tmp_path / "jobs").glob("*/manifest.yaml")
    ]
    specs = [pod["spec"]["template"]["spec"] for pod in pods]
    needs = [spec["containers"][0]["resources"]["requests"] for spec in specs]
    assert {"cpu": "4", "memory": "6000M"} in needs
    assert all(spec["activeDeadlineSeconds"] >= 600 for spec in specs)


def test_a_pod_has_what_the_job_asks_for(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    asked = {"threads": 3, "resources": {"mem_mb": 700, "runtime": 2}}
    script.write_text(f"#!/bin/sh\n# properties = {json.dumps(asked)}\ntrue\n")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec cat\n")
    kubectl.chmod(0o755)
    submit = ROOT / "workflow" / "profiles" / "kubernetes" / "submit.py"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def submitted() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, submit, script]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)

    pod = yaml.safe_load(submitted().stdout)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["sh", str(script)]
    assert container["resources"]["requests"] == {"cpu": "3", "memory": "700M"}
    assert container["volumeMounts"][0]["mountPath"] == str(ROOT)
    assert pod["activeDeadlineSeconds"] == 120
    script.write_text("#!/bin/sh\ntrue\n")
    assert "is no job script of Snakemake's" in submitted().stderr


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    """A Slurm of one node: Debian's slurmctld, slurmd, slurm-client and munge, as root."""
    if os.geteuid() != 0 or any(shutil.which(name) is None for name in ("slurmd", "munged")):
        pytest.skip("needs root and apt-get install slurmctld slurmd slurm-client munge")
    script = [ROOT / "envs" / "slurm.sh"]
    env = {**os.environ, "JELLYFISH_SLURM": str(tmp_path / "slurm")}
    subprocess.run([*script, "up"], env=env, check=True)
    try:
        yield
    finally:
        subprocess.run([*script, "down"], env=env, check=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("slurm")
def test_a_grid_through_slurm(with_plugins: Path, small: Checkout) -> None:
    options = ("--workflow-profile", "workflow/profiles/slurm", "--slurm-no-account")
    options += (
        "--slurm-status-command",
        "squeue",
        "--slurm-init-seconds-before-status-checks",
        "5",
    )
    said = scored(with_plugins, small, *options, env={})
    assert said.count("submitted with SLURM jobid") >= 3


def test_the_guide_names_what_to_install() -> None:
    guide = (ROOT / "docs" / "scaling.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in CLUSTERS:
        assert f"workflow/profiles/{name}" in guide
        assert project["optional-dependencies"][name][0] in guide
