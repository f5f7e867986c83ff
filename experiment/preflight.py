"""What is looked at on a host before anything is put there or measured.

Plain shell and one line of Python: nothing of ours is there yet.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

from experiment.host_file import HostSpec
from experiment.ssh import Ssh
from jellyfish.errors import RunError

MIN_FREE_MB = 500
VERSION = (3, 11)
_FACTS = (
    "import json, os, platform, sys, time; "
    "print(json.dumps([list(sys.version_info[:3]), time.time(), "
    "sorted(os.sched_getaffinity(0)), platform.node(), platform.platform()]))"
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What preflight finds out about a host.

    Args:
        work: the work directory, absolute.
        python: an interpreter: the configured environment's, or the one to make one from.
        version: its version.
        cores: those that a process there may use.
        node, system: what the machine calls itself and its system.
        free_mb: space below `work`.
        clock_offset_s: its clock minus ours. Recorded; no result depends on it.
    """

    work: str
    python: str
    version: str
    cores: tuple[int, ...]
    node: str
    system: str
    free_mb: float
    clock_offset_s: float


def look(ssh: Ssh, spec: HostSpec) -> Facts:
    """Return what there is on a host.

    Raises:
        RunError: something that a run needs is missing there; the text names host and cause.
    """
    work, free_mb, interfaces = _place(ssh, spec)
    if free_mb < MIN_FREE_MB:
        raise RunError(
            f"{ssh.host}: the disk of {work} is full: {free_mb:.0f} MB free, "
            f"{MIN_FREE_MB} MB needed; make room, or choose another `work` in the hosts file"
        )
    if spec.interface is not None and spec.interface not in interfaces:
        raise RunError(
            f"{ssh.host}: no network interface {spec.interface!r}; "
            f"there are: {', '.join(interfaces)}"
        )
    before = time.time()
    python, (version, now, cores, node, system) = _ask_python(ssh, spec)
    after = time.time()
    if tuple(version[:2]) != VERSION:
        raise RunError(
            f"{ssh.host}: {python} is Python {_dotted(version)}, but {_dotted(VERSION)} is "
            "needed; install it, or name another one as `python` in the hosts file"
        )
    return Facts(
        work=work,
        python=python,
        version=_dotted(version),
        cores=tuple(cores),
        node=node,
        system=system,
        free_mb=free_mb,
        clock_offset_s=round(now - (before + after) / 2, 3),
    )


def _dotted(version: tuple[int, ...] | list[int]) -> str:
    return ".".join(map(str, version))


def _word(path: str) -> str:
    """Return a path, absolute or below ~, as one word of a shell command."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def _place(ssh: Ssh, spec: HostSpec) -> tuple[str, float, list[str]]:
    """Make the work directory; return its path, the space there, and the host's interfaces."""
    path = _word(spec.work)
    try:
        shown = ssh.said(
            f"mkdir -p {path} && cd {path} && mkdir -p code venv files && touch .writable && pwd "
            "&& df -Pk . | tail -n 1 && ls /sys/class/net"
        )
    except RunError as error:
        raise RunError(f"{error} (`work` in the hosts file)") from error
    work, space, *interfaces = shown.splitlines()
    return work, float(space.split()[3]) * 1024 / 1e6, interfaces


def _ask_python(ssh: Ssh, spec: HostSpec) -> tuple[str, list[Any]]:
    """Return the path of the interpreter that the hosts file means, and what it says of itself.

    Its path as it was found: it may be a script that sets something before it starts Python.
    """
    find, otherwise = _python(spec)
    command = f'p=$({find}) && [ -n "$p" ] || exit 99; echo "$p"; "$p" -c {shlex.quote(_FACTS)}'
    done = ssh.run(command, warn=True, timeout=60)
    if done.exited == 99:
        raise RunError(f"{ssh.host}: {otherwise}")
    try:
        path, *_, said = done.stdout.strip().splitlines()
        facts: list[Any] = json.loads(said)
    except ValueError:
        why = (done.stderr.strip() or f"exit code {done.exited}").splitlines()[-1]
        raise RunError(f"{ssh.host}: the Python there cannot be used: {why}") from None
    return path, facts


def _python(spec: HostSpec) -> tuple[str, str]:
    """Return the command that prints the path of the interpreter, and what to say without one."""
    if spec.conda is not None:
        return _conda_python(spec.conda), (
            f"there is no conda environment {spec.conda!r}; make it there from envs/, "
            "or give its prefix as `conda` in the hosts file"
        )
    if spec.python is not None:
        return f"ls {_word(spec.python)}", f"there is no {spec.python} (`python` in the hosts file)"
    return "command -v python3.11 || command -v python3", (
        "there is no python3.11; install it, or name one as `python` in the hosts file"
    )


def _conda_python(environment: str) -> str:
    if environment[0] in "/~":
        return f"ls {_word(environment)}/bin/python"
    name = shlex.quote(environment)
    return (
        'for c in "$(conda info --base 2>/dev/null)" ~/miniforge3 ~/mambaforge ~/miniconda3 '
        f'~/anaconda3 /opt/conda; do p="$c"/envs/{name}/bin/python; '
        '[ -x "$p" ] && echo "$p" && break; done'
    )
