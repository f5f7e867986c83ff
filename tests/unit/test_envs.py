"""The environments of the roles: the versions of the lock, and enough of them for each role."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("analysis", "cell", "client", "data", "server")
# What conda-forge calls differently. Its builds carry OpenCV's own version, PyPI's a fourth part.
PYPI = {"pytorch": "torch", "py-opencv": "opencv-python-headless", "matplotlib-base": "matplotlib"}
UNLOCKED = {"python", "pip"}


def locked(name: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(package): version for package, version in pins}


def packages(role: str) -> dict[str, str]:
    """Return what a role's file lists, by the name on PyPI, with versions."""
    entries = yaml.safe_load((ROOT / "envs" / f"{role}.yaml").read_text())["dependencies"]
    found = {}
    for entry in entries:
        match = re.fullmatch(r"([a-z0-9-]+)(?:=([0-9.]+)(?:=.+)?)?", entry)
        assert match, f"envs/{role}.yaml: {entry} is no NAME=VERSION"
        if match[1] not in UNLOCKED:
            found[PYPI.get(match[1], match[1])] = match[2]
    return found


def test_a_file_per_role() -> None:
    assert {path.stem for path in (ROOT / "envs").glob("*.yaml")} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_versions_are_those_of_the_lock(role: str) -> None:
    lock = locked()
    wanted = packages(role)
    assert wanted
    for name, version in wanted.items():
        assert name in lock, f"envs/{role}.yaml lists {name}, which requirements.lock lacks"
        assert (lock[name] + ".").startswith(version + "."), f"{name}: {version} != {lock[name]}"
        assert version == lock[name] or name == "opencv-python-headless"


@pytest.mark.parametrize("role", ROLES)
def test_only_conda_forge(role: str) -> None:
    content = yaml.safe_load((ROOT / "envs" / f"{role}.yaml").read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    assert not [entry for entry in content["dependencies"] if not isinstance(entry, str)]


def test_the_lock_pins_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock, dev = locked(), locked("requirements-dev.lock")
    for text in project["dependencies"]:
        name, version = text.split("==")
        assert lock.get(canonicalize_name(name)) == version, f"{text}: run `make lock`"
    for text in project["optional-dependencies"]["dev"]:
        name, version = text.split("==")
        pinned = {**lock, **dev}.get(canonicalize_name(name))
        assert pinned == version, f"{text}: run `make lock`"


def closure(names: set[str]) -> set[str]:
    """Return `names` and everything that pip would install with them, as it is installed here."""
    found: set[str] = set()
    queue = [(name, frozenset[str]()) for name in names]
    while queue:
        name, extras = queue.pop()
        found.add(name)
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            wanted = canonicalize_name(requirement.name)
            asked = any(_applies(requirement, extra) for extra in ("", *extras))
            if asked and wanted not in found and _installed(wanted):
                queue.append((wanted, frozenset(requirement.extras)))
    return found


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> bool:
    """Whether it is here: which CUDA packages torch brings depends on its build."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def environment(names: set[str], folder: Path) -> Path:
    """Make a virtual environment that holds these packages alone; return its Python.

    They are linked from the environment that runs the tests, whose versions are the lock's: the
    same files as pip would unpack, without the minutes.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in names:
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(distribution(name).locate_file(top))))
    return folder / "bin" / "python"


def imports(python: Path, role: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    ended = subprocess.run(
        [python, ROOT / "envs" / "roles.py", role],
        capture_output=True,
        text=True,
        env=clean,
        cwd="/",
        check=False,
    )
    assert ended.returncode == 0, f"envs/{role}.yaml is not enough:\n{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize("role", ROLES)
def test_a_role_needs_no_more_than_its_file_lists(role: str, tmp_path: Path) -> None:
    python = environment(closure(set(packages(role))), tmp_path / role)
    assert "modules imported" in imports(python, role)


def test_a_package_that_is_not_listed_is_missed(tmp_path: Path) -> None:
    python = environment(closure({"pyyaml"}), tmp_path / "bare")
    with pytest.raises(AssertionError, match="not enough"):
        imports(python, "client")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("role", ROLES)
def test_pip_makes_the_environment(role: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / role], check=True)
    python = tmp_path / role / "bin" / "python"
    lock = locked()
    wanted = [f"{name}=={lock[name]}" for name in packages(role)]
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.lock"]
    subprocess.run([*pip, *wanted], check=True)
    assert "modules imported" in imports(python, role)
