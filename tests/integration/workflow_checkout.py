"""A copy of the checkout, as a clone has it, in which tests run Snakemake and make."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiment import grid
from tests.kernels import KEPT

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Checkout:
    """A copied checkout in `root`."""

    root: Path

    @classmethod
    def copied_to(cls, folder: Path) -> Checkout:
        """Copy what git knows, and what it would not ignore."""
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
        for name in names.decode().rstrip("\0").split("\0"):
            source, target = ROOT / name, folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)  # with its mode: some are run
        return cls(folder)

    def run(
        self, *command: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy; stdout and stderr come as one text in `stdout`."""
        return subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": "", **KEPT, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def snakemake(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the copy."""
        return self.run(sys.executable, "-m", "snakemake", *arguments, env=env)

    def planned(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, int]:
        """Return how many jobs of each rule a dry run announces."""
        ended = self.snakemake("-n", *arguments, env=env)
        assert ended.returncode == 0, ended.stdout
        table = re.search(r"^Job stats:\n.*\n[- ]+\n((?:.+\n)+?)total ", ended.stdout, re.MULTILINE)
        if table is None:
            assert "Nothing to be done" in ended.stdout, ended.stdout
            return {}
        rows = [line.split() for line in table[1].splitlines()]
        return {rule: int(count) for rule, count in rows}

    def pretend_finished(self) -> None:
        """Lay an empty file for every output, and have Snakemake record them as its own."""
        dry = self.snakemake("-n", "--forceall").stdout
        lines = re.findall(r"^    output: (.*)$", dry, re.MULTILINE)
        for path in {path for line in lines for path in line.split(", ")}:
            output = self.root / path.removesuffix(" (update)")
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        self._write_indexes()
        touched = self.snakemake("--cores", "1", "--touch", "--forceall")
        assert touched.returncode == 0, touched.stdout

    def _write_indexes(self) -> None:
        """Fill the cells' index files, which are looked into."""
        config = yaml.safe_load((self.root / "config" / "config.yaml").read_text())
        for cell in grid.cells(config):
            runs = [{"key": run.key} for run in grid.runs(config, cell)]
            self.write_index("default", cell.name, runs)

    def write_index(self, scenario: str, cell: str, runs: list[dict[str, str]]) -> None:
        """Write the index file of a cell with these runs."""
        index = self.root / "results" / scenario / "cells" / f"{cell}.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps({"cell": cell, "runs": runs}))

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace the one place in a file where `old` stands."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path}: {old!r} {text.count(old)} times"
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        """Add to the end of a file."""
        with (self.root / path).open("a") as file:
            file.write(text)
