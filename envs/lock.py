"""Write requirements.lock and requirements-dev.lock from the versions in pyproject.toml.

pip resolves both sets without installing them (`--dry-run --report`): first everything together,
so that a development tool never asks for another version of what the default environment holds,
then the default set within those versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run")
CUDA = ("nvidia-", "cuda-", "triton")


def resolve(requirements: list[str], within: list[str]) -> list[str]:
    """Return `name==version` of every package that `requirements` bring, sorted."""
    with tempfile.TemporaryDirectory() as directory:
        constraints, report = Path(directory, "within.txt"), Path(directory, "report.json")
        constraints.write_text("\n".join(within))
        arguments = ["--ignore-installed", "--report", str(report), "-c", str(constraints)]
        subprocess.run([sys.executable, *PIP, *arguments, *requirements], check=True)
        packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    # Which build of torch (2.13.0+cpu), and what CUDA it brings, is the machine's affair.
    pins = {p["name"].lower().replace("_", "-"): p["version"].split("+")[0] for p in packages}
    return [f"{n}=={v}" for n, v in sorted(pins.items()) if not n.startswith(CUDA)]


def main() -> None:
    """Write both files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    default, dev = project["dependencies"], project["optional-dependencies"]["dev"]
    everything = resolve([*default, *dev], within=[])
    pinned = resolve(default, within=everything)
    made = "Made by `make lock` from pyproject.toml; do not edit."
    head = [f"# Every package of the default environment. {made}"]
    (ROOT / "requirements.lock").write_text("\n".join([*head, *pinned, ""]))
    head = [f"# What tests and linters need besides. {made}", "-r requirements.lock"]
    rest = [pin for pin in everything if pin not in pinned]
    (ROOT / "requirements-dev.lock").write_text("\n".join([*head, *rest, ""]))


if __name__ == "__main__":
    main()
