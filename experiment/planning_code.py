"""The code behind a solver: what makes its rows stale when it is edited."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from experiment.paths import ROOT
from experiment.provenance import code_digest

SHARED = (
    "experiment/planning.py",
    "experiment/planning_rows.py",
    "jellyfish/scheduling/solvers.py",
)  # behind every row, in themselves
ALL = (*SHARED, "jellyfish/scheduling", "jellyfish/budget.py", "jellyfish/profile.py")


@cache
def files_behind(solver: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the files whose code decides what `solver` answers, relative to the checkout.

    These are its own module in jellyfish/scheduling/, all that this imports from jellyfish/,
    directly or not, and what every solver's rows depend on.
    """
    found, left = set[Path](), [root / "jellyfish" / "scheduling" / f"{solver}.py"]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += _imported(path, root)
    return tuple(sorted({*SHARED, *(str(path.relative_to(root)) for path in found)}))


def digest_behind(solver: str, root: Path = ROOT) -> str:
    """Return the digest of the code behind `solver`."""
    return code_digest(root, files_behind(solver, root))


def _imported(path: Path, root: Path) -> Iterator[Path]:
    """Yield the files of jellyfish/ that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = root / f"{name.replace('.', '/')}.py"
            if name.startswith("jellyfish.") and file.is_file():
                yield file
