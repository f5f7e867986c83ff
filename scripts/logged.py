"""How a rule calls its stage: guarded, errors as one clear line, all of it in the rule's log."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from experiment.guard import stage


@contextmanager
def logged(snakemake: Any) -> Iterator[None]:
    """Run the stage of a job (Snakemake's `snakemake` object) and keep a log of how it ended.

    Exits with code 1 and one line on stderr for an error that Jellyfish foresees.
    """
    wildcards = ", ".join(str(value) for value in snakemake.wildcards)
    name = f"{snakemake.rule} {wildcards}".strip()
    path = Path(str(snakemake.log))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as log:
        _write(log, f"{name}: start")
        try:
            with stage(name):
                yield
        except SystemExit as end:
            _write(log, str(end))
            raise
        except BaseException:
            traceback.print_exc(file=log)
            print(f"error in {name}: unforeseen; the trace is in {path} too", file=sys.stderr)
            raise
        _write(log, f"{name}: done")


def _write(log: TextIO, text: str) -> None:
    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    log.flush()
