#!/usr/bin/env python3
"""As much of kubectl as the profile needs, for tests: a job's container is a process here.

Put on the PATH as `kubectl`. No image, no limits and no isolation: what it shows is that the
command which a pod would get finds all it needs on the shared volume. State: a folder a job in
$KUBECTL_FOLDER, with `manifest.yaml`, `log`, and `code` once the container has ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

NOTED = '"$@"; echo $? > code.part; mv code.part "$0"'


def create(folder: Path) -> None:
    text = sys.stdin.read()
    job = yaml.safe_load(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    home = Path(tempfile.mkdtemp(prefix=job["metadata"]["generateName"], dir=folder))
    (home / "manifest.yaml").write_text(text)
    with (home / "log").open("wb") as log:
        subprocess.Popen(
            ["sh", "-c", NOTED, home / "code", "env", "-C", "/", *container["command"]],
            cwd=home,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    print(f"job.batch/{home.name}")


def get(folder: Path, name: str) -> None:
    code = folder / name.partition("/")[2] / "code"
    ended = code.read_text().strip() if code.exists() else None
    print(f"{'1' if ended == '0' else ''}/{'1' if ended not in (None, '0') else ''}")


def main() -> None:
    folder = Path(os.environ["KUBECTL_FOLDER"])
    if sys.argv[1] == "create":
        create(folder)
    elif sys.argv[1] == "get":
        get(folder, sys.argv[2])
    else:
        sys.exit(f"no {sys.argv[1]} here")


if __name__ == "__main__":
    main()
