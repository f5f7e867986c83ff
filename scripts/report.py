"""The report: one HTML file that Snakemake makes of the results marked for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jellyfish.errors import RunError
from jellyfish.files.atomic import whole_file, write_json


def write_report(config: Mapping[str, Any], snakefile: Path, out: Path, log: Path) -> None:
    """Write the report of the scenario `config` to `out`, and its config beside it as JSON.

    The job that calls this holds Snakemake's lock of the directory; the second Snakemake only
    reads.

    Raises:
        RunError: Snakemake could not make the report; the text holds the end of what it said.
    """
    written = out.parent / "config.json"
    write_json(written, config)
    with whole_file(out) as temporary:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--nolock"]
        command += ["--configfile", str(written), "--report", str(temporary)]
        with log.open("w") as file:
            ended = subprocess.run(command, stdout=file, stderr=file, check=False)
        if ended.returncode:
            said = "\n".join(log.read_text().strip().splitlines()[-10:])
            raise RunError(f"the report {out} could not be made ({log}):\n{said}")
