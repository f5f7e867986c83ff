"""Collects what provenance records: the checkout, the machine, the versions."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiment.grid import digest
from experiment.paths import ROOT
from jellyfish.files.provenance import Provenance

CODE = ("jellyfish", "server", "client")  # whose edits may change a result
SIMULATED_CODE = (
    "jellyfish",
    "server",
    "client",
    "experiment/charges.py",
    "experiment/jobs.py",  # when clients start
    "experiment/link.py",
    "experiment/simulation.py",
    "experiment/virtual_serving.py",
    "experiment/stored_source.py",
    "experiment/emulated_worker.py",
    "experiment/virtual_time.py",
)  # the same of a simulated one
PACKAGES = (
    "grpcio",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "protobuf",
    "pyarrow",
    "snakemake",
    "torch",
)


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def collect(
    *,
    key: str,
    settings: Mapping[str, Any],
    world: str,
    seed: int,
    device: str,
    started: str,
    digests: Mapping[str, str] | None = None,
    root: Path = ROOT,
    code: tuple[str, ...] = CODE,
    machine: Mapping[str, Any] | None = None,
) -> Provenance:
    """Return the provenance of a result that is complete now.

    Args:
        key, settings, world, seed, device, started, digests: see `Provenance`.
        root: the checkout.
        code: the packages and files whose code decides the result.
        machine: `this_machine` of another one that the result was made on; None for this one.
    """
    commit, dirty = checkout(root)
    return Provenance(
        key=key,
        config_hash=digest(settings),
        settings=settings,
        world=world,
        seed=seed,
        commit=commit,
        dirty=dirty,
        code_digest=code_digest(root, code),
        device=device,
        started=started,
        ended=now(),
        digests=dict(digests or {}),
        **(this_machine() if machine is None else machine),
    )


def this_machine() -> dict[str, Any]:
    """Return what a result says of the machine that it was made on."""
    return {
        "versions": versions(),
        "host": socket.gethostname(),
        "cpu": cpu(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(),
    }


def checkout(root: Path) -> tuple[str, bool]:
    """Return the commit of `root` and whether its files differ; (`unknown`, False) outside git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return "unknown", False
    return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()


def code_digest(root: Path = ROOT, code: tuple[str, ...] = CODE) -> str:
    """Return 16 hex digits over the names and contents of source files.

    Args:
        root: the checkout.
        code: packages, with all source files in them, and single files.
    """
    total = hashlib.sha256()
    for name in code:
        for path in sorted((root / name).rglob("*")) or [root / name]:
            if path.suffix in {".py", ".proto"}:
                total.update(str(path.relative_to(root)).encode() + b"\0")
                total.update(path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return 16 hex digits over the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


@cache
def cpu() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
