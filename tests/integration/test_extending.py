"""docs/extending.md: its files are written, its changes made, its commands run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.workflow_checkout import ROOT, Checkout

pytestmark = pytest.mark.beside

GUIDE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANGE = re.compile(r"^--- a/(\S+)\n\+\+\+ .*\n((?:[-+](?!-).*\n)+)", re.MULTILINE)
BELOW = re.compile(r"# (\S+), below \w+\n")


def blocks(kind: str) -> list[str]:
    """Return the blocks of one language, in their order."""
    return [text for language, text in BLOCK.findall(GUIDE.read_text()) if language == kind]


def follow(checkout: Checkout) -> None:
    """Write every file and make every change that the guide shows."""
    for text in (*blocks("yaml"), *blocks("text"), *blocks("python")):
        if below := BELOW.match(text):
            checkout.append(below[1], f"\n\n{text[below.end() :]}")
            continue
        name, _, content = text.partition("\n")
        path = checkout.root / name.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for text in blocks("diff"):
        for path, change in re.findall(
            r"^--- a/(\S+)\n\+\+\+ .*\n((?:[-+](?!-).*\n)+)", text, re.M
        ):
            _replace(checkout, path, change.splitlines())


def _replace(checkout: Checkout, path: str, change: list[str]) -> None:
    """Put the lines with a + in the place of the one with a -, which stays if they end with it."""
    (old,) = [line[1:] for line in change if line.startswith("-")]
    new = "\n".join(line[1:] for line in change if line.startswith("+"))
    checkout.edit(path, f"{old}\n", f"{new}\n")


@pytest.fixture
def followed(tmp_path: Path) -> Checkout:
    checkout = Checkout.copied_to(tmp_path)
    follow(checkout)
    return checkout


def run(checkout: Checkout, command: str) -> str:
    """Run a line of the guide with the environment of the tests; return what it prints."""
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = checkout.run("sh", "-c", command, env=env)
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-5000:]}"
    return ended.stdout


def test_a_solver_of_ones_own(followed: Checkout) -> None:
    (solver,) = [text for text in blocks("sh") if "experiment.plan" in text]
    ours, best = (run(followed, line) for line in solver.splitlines())
    assert '"effectiveness": 1.0' in ours
    assert '"accuracy": 0.33' in ours  # of the smallest DNN
    assert '"accuracy": 0.33' not in best


def test_a_device_and_a_policy_are_known_to_the_config(followed: Checkout) -> None:
    said = run(followed, "snakemake -n all --configfile mine.yaml opencv.yaml")
    assert "latency" in said
    said = run(followed, "snakemake -n fig_policies --configfile mine.yaml impatient.yaml")
    assert "draw_fig_policies" in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command(followed: Checkout, assets: Path) -> None:
    for kind in ("weights", "videos"):
        shutil.copytree(assets / kind, followed.root / "results" / "data" / kind)
    for text in blocks("sh"):
        for line in text.splitlines():
            run(followed, line)
    runs = {path.name.split("-r0-")[0] for path in (followed.root / "results" / "runs").iterdir()}
    assert "measured-minex1-jellyfish-synthetic-1-slo5000-fps1-smoke-1" in runs
    assert "simulated-gpux1-impatient-synthetic-4-slo100-fps25-smoke-1" in runs
    assert "simulated-gpux1-jellyfish-commute-4-slo100-fps25-smoke-1" in runs
