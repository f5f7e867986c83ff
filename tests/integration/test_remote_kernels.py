"""What a host has compiled of the scheduler serves all code with the same kernels; real sshd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiment.deploy import CODE, COMPILED, KERNELS, code_of, put_code
from experiment.host_file import read_hosts
from experiment.preflight import look
from experiment.ssh import Ssh
from tests.conftest import ROOT
from tests.sshd import MISSING, Sshd, available

WARM = """
import json, sys
from jellyfish.scheduling import solvers
from jellyfish.scheduling.kernels.compiling import _Cache
solvers.warm("paper")
kernels = "jellyfish.scheduling.kernels."
modules = [module for name, module in list(sys.modules.items()) if name.startswith(kernels)]
found = {id(f): f for m in modules for f in vars(m).values() if hasattr(f, "signatures")}
stats = [f.stats for f in found.values() if isinstance(f._cache, _Cache)]
print(json.dumps([sum(s.cache_hits.values()) for s in stats]))
print(json.dumps([sum(s.cache_misses.values()) for s in stats]))
"""
pytestmark = [
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def checkout(folder: Path, edited: str | None = None) -> Path:
    """Return a copy of the code, with a comment more in one file."""
    for part in CODE:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    if edited is not None:
        with (folder / edited).open("a") as file:
            file.write("# edited\n")
    return folder


class Host:
    """The server of a hosts file, over SSH, with nothing put there yet."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh, self._facts = ssh, look(ssh, ssh.spec)
        self.work = Path(self._facts.work)

    def put(self, root: Path) -> Path:
        """Put a checkout's code there; return its folder."""
        return Path(put_code(self._ssh, self._facts, code_of(root)))

    def warm(self, code: Path) -> tuple[int, int]:
        """Load a scheduler in that code; return how many kernels were read and compiled."""
        command = f"cd '{code}' && '{self._facts.python}' -c '{WARM}'"
        hits, misses = map(json.loads, self._ssh.said(command, timeout_s=400).splitlines())
        return sum(hits), sum(misses)

    def compiled(self) -> dict[Path, Any]:
        """Return all files with compiled code, and when each was written."""
        files = [path for path in self.work.rglob("*.nb[ci]*") if path.is_file()]
        return {path.resolve(): path.stat().st_mtime_ns for path in files}


def test_other_code_with_the_same_kernels_compiles_nothing(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        hosts = read_hosts(sshd.hosts_file())
        with Ssh(hosts.server, hosts) as ssh:
            host = Host(ssh)
            first = host.put(checkout(tmp_path / "first"))
            read, made = host.warm(first)
            compiled = host.compiled()
            assert read == 0
            assert made == len([path for path in compiled if path.suffix == ".nbc"]) > 10

            second = host.put(checkout(tmp_path / "second", "client/__init__.py"))
            assert second != first
            read, made = host.warm(second)
            assert read > 0
            assert made == 0
            assert host.compiled() == compiled

            third = host.put(checkout(tmp_path / "third", f"{KERNELS}annealing.py"))
            assert third not in (first, second)
            kept = [(code / COMPILED).resolve() for code in (first, second, third)]
            assert kept[0] == kept[1] != kept[2]
            assert {folder.parent for folder in kept} == {host.work / "kernels"}
            assert not list(kept[2].rglob("*.nb*"))  # nothing stale to be read
