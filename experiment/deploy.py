"""Puts on a host what a run needs there, each thing once: code, environment, files.

    WORK/code/DIGEST     the files of the checkout that processes run from
    WORK/kernels/DIGEST  what they compile of the scheduler's kernels, by these kernels
    WORK/venv/DIGEST     the packages of requirements.lock, where no environment is configured
    WORK/files/SHA256*   clips, weights, models, profiles

All are named by their content, written whole and then renamed, so that what is there is right.
Folders carry a mark from the start, which tells of their last use; see `experiment.pruning`.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from experiment.preflight import Facts
from experiment.pruning import COMPLETE, MARK
from experiment.ssh import Ssh
from jellyfish.errors import ConfigError, RunError

CODE = ("jellyfish", "server", "client", "experiment", "config", "workflow/schemas")
KERNELS = "jellyfish/scheduling/kernels/"
COMPILED = ".numba_cache"  # where kernels are kept below the code (`kernels.compiling`)
LOCK = "requirements.lock"
VENV_TIMEOUT_S = 1800.0
TRY_TIMEOUT_S = 300.0
MIN_FREE_MB = 6000  # of an environment
TRIALS = {
    "server": "import server.process, server.worker_child",
    "client": "import client.__main__",
}
_IGNORED = ("__pycache__", ".part")


@dataclass(frozen=True)
class Code:
    """The code that runs: its digest and its files, by their paths in the checkout.

    Args:
        digest: 16 hex digits over names and contents.
        root: the checkout.
        files: relative paths, sorted.
        kernels: 16 hex digits over those that are compiled.
    """

    digest: str
    root: Path
    files: tuple[str, ...]
    kernels: str


def code_of(root: Path) -> Code:
    """Return the code of a checkout as it is now: files under version control, or all, outside git.

    Files that are new and not yet under version control go along where they are below CODE:
    a tree that has such or changed ones is dirty, and refused by default.
    """
    files = tuple(sorted(_listed(root)))
    kernels = tuple(name for name in files if name.startswith(KERNELS))
    return Code(_digest(root, files), root, files, _digest(root, kernels))


def _digest(root: Path, files: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for name in files:
        content = (root / name).read_bytes()
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def check_clean(root: Path, allow_dirty: bool) -> None:
    """Check that the code is that of a commit.

    Raises:
        ConfigError: files that go to the hosts differ from the commit, and that is not allowed.
    """
    if allow_dirty:
        return
    changed = _git(root, "status", "--porcelain", "--", *CODE, LOCK)
    if changed:
        names = [line[3:] for line in changed.splitlines()]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ConfigError(
            f"{root}: the checkout differs from its commit ({names[0]}{more}), so nobody could "
            "tell what ran on the hosts; commit first, or say `allow_dirty: true` in the config"
        )


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # no checkout of git's


def _listed(root: Path) -> list[str]:
    shown = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE)
    if shown:
        names = shown.split("\0")
    else:
        found = [path for part in CODE for path in (root / part).rglob("*")]
        names = [str(path.relative_to(root)) for path in found]
    wanted = {name for name in names if not any(part in name for part in _IGNORED)}
    return [name for name in wanted if (root / name).is_file()]


def put_code(ssh: Ssh, facts: Facts, code: Code) -> str:
    """Put the code on a host, unless it is there; return its directory.

    Raises:
        RunError: it cannot be written; the text names the host.
    """
    target = f"{facts.work}/code/{code.digest}"
    kernels = shlex.quote(f"{facts.work}/kernels/{code.kernels}")
    ssh.said(f"mkdir -p {kernels} && touch {kernels}/{MARK}")
    if _used(ssh, target):
        return target
    with TemporaryDirectory() as folder:
        packed = Path(folder) / "code.tar.gz"
        _pack(code, packed)
        remote = _temporary(ssh, facts, "code")
        ssh.put(str(packed), f"{remote}/packed")
    # Compiling takes a minute, and most code comes with the kernels that other code had.
    link = f"ln -s ../../kernels/{code.kernels} new/{COMPILED}"
    unpack = f"mkdir new && tar -xzf packed -C new && {link} && touch new/{MARK}"
    settle = f"{_settle(f'{remote}/new', target)} && rm -rf {shlex.quote(remote)}"
    ssh.said(f"cd {shlex.quote(remote)} && {unpack} && {settle}")
    return target


def _pack(code: Code, path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in code.files:
            content = (code.root / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))


def put_environment(ssh: Ssh, facts: Facts, root: Path, made: bool) -> str:
    """Return the interpreter that runs roles on a host; the environment is made if need be.

    Args:
        ssh, facts: the host.
        root: the checkout, whose requirements.lock says what is in an environment.
        made: whether the environment is to be made; else it is the configured one.

    Raises:
        RunError: it cannot be made; the text is the end of what pip says.
    """
    if not made:
        return facts.python
    lock = (root / LOCK).read_bytes()
    digest = hashlib.sha256(lock + facts.version.encode()).hexdigest()[:16]
    target = f"{facts.work}/venv/{digest}"
    if _exists(ssh, f"{target}/{COMPLETE}") and _used(ssh, target):
        return f"{target}/bin/python"
    if facts.free_mb < MIN_FREE_MB:
        raise RunError(
            f"{ssh.host}: {facts.free_mb:.0f} MB free at {facts.work}, and an environment takes "
            f"{MIN_FREE_MB} MB; make room, or name `python` or `conda` in the hosts file"
        )
    remote = _temporary(ssh, facts, "venv")
    ssh.put(str(root / LOCK), f"{remote}/{LOCK}")
    there, packed = shlex.quote(target), shlex.quote(remote)
    make = (
        f"rm -rf {there} && mkdir {there} && touch {there}/{MARK} && "
        f"{shlex.quote(facts.python)} -m venv {there} && "
        f"{there}/bin/python -m pip install --quiet --no-input --disable-pip-version-check "
        f"-r {packed}/{LOCK} && touch {there}/{MARK} {there}/{COMPLETE} && rm -rf {packed}"
    )
    try:
        # Two managers make one environment one after the other; the second finds it made.
        locked = f"[ -e {there}/{COMPLETE} ] || ({make})"
        venvs = shlex.quote(f"{facts.work}/venv")
        ssh.said(f"flock {venvs} sh -c {shlex.quote(locked)}", VENV_TIMEOUT_S)
    except RunError as error:
        raise RunError(
            f"{error}\n  (making {target} from {LOCK}; make room, see to its network, "
            "or name `python` or `conda` in the hosts file)"
        ) from error
    return f"{target}/bin/python"


def try_role(ssh: Ssh, role: str, python: str, code: str, more: tuple[str, ...] = ()) -> None:
    """Try whether an interpreter has what a role needs; once for each code and interpreter.

    Args:
        ssh: the host.
        role: server or client.
        python, code: the interpreter, and the code's directory there.
        more: more Python statements that must work.

    Raises:
        RunError: something is missing; the text names host and module.
    """
    trial = "; ".join([TRIALS[role], *more])
    stamp = f".tried-{hashlib.sha256(f'{python} {trial}'.encode()).hexdigest()[:16]}"
    command = (
        f"cd {shlex.quote(code)} && if [ ! -e {stamp} ]; then "
        f"{shlex.quote(python)} -c {shlex.quote(trial)} && touch {stamp}; fi"
    )
    done = ssh.run(command, warn=True, timeout=TRY_TIMEOUT_S)
    if done.exited != 0:
        why = (done.stderr.strip() or f"exit code {done.exited}").splitlines()[-1]
        raise RunError(
            f"{ssh.host}: {python} cannot run the {role}: {why}; install requirements.lock there, "
            "or leave python and conda out of the hosts file to have an environment made"
        )


def name_by_content(path: Path) -> str:
    """Return what a file is called below WORK/files: its sha256 and its suffix."""
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_mtime_ns, stat.st_size) + path.suffix


@lru_cache(maxsize=256)
def _sha256(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exists(ssh: Ssh, path: str) -> bool:
    return bool(ssh.run(f"test -e {shlex.quote(path)}", warn=True, timeout=30).exited == 0)


def _used(ssh: Ssh, target: str) -> bool:
    """Note that a folder is used now; return whether it is there."""
    there = shlex.quote(target)
    note = f"test -e {there} && {{ touch {there}/{MARK} || test -e {there}; }}"
    return bool(ssh.run(note, warn=True, timeout=30).exited == 0)


def _temporary(ssh: Ssh, facts: Facts, kind: str) -> str:
    made = f"mktemp -d {shlex.quote(f'{facts.work}/{kind}')}/.part-XXXXXX"
    return ssh.said(f'd=$({made}) && touch "$d/{MARK}" && echo "$d"')


def _settle(made: str, target: str) -> str:
    """Return the command that gives a thing its name, unless another manager was faster."""
    return (
        f"{{ mv -T {shlex.quote(made)} {shlex.quote(target)} || test -e {shlex.quote(target)}; }}"
    )
