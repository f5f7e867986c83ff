"""Import every module that a role runs: `python envs/roles.py ROLE`.

A check of envs/ROLE.yaml, inside an environment made from it: whatever it lacks fails here.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLES: dict[str, tuple[str, ...]] = {
    "data": ("scripts/clips.py", "scripts/data.py", "scripts/logged.py"),
    "server": ("server", "scripts/export_zoo.py", "scripts/logged.py"),
    "client": ("client",),
    "cell": ("server", "client", "experiment", "scripts/logged.py"),
    "analysis": (
        "scripts/caveats.py",
        "scripts/score.py",
        "scripts/tables.py",
        "scripts/figures",
        "scripts/logged.py",
    ),
}
# Imported only when first used.
LAZY = {"server": ("torch", "onnx"), "cell": ("torch", "pycocotools"), "analysis": ("pycocotools",)}


def modules(role: str) -> list[str]:
    """Return the names of the modules that `role` runs, and of what they import late."""
    names = []
    for place in ROLES[role]:
        path = ROOT / place
        files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
        names += [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    own = [name.removesuffix(".__init__") for name in names]
    return [*own, *LAZY.get(role, ())]


def main() -> None:
    """Import them all; the first that cannot be raises."""
    sys.path.insert(0, str(ROOT))
    names = modules(sys.argv[1])
    for name in names:
        importlib.import_module(name)
    print(f"{sys.argv[1]}: {len(names)} modules imported")


if __name__ == "__main__":
    main()
