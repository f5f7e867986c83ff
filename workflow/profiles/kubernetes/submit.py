#!/usr/bin/env python3
"""Send one of Snakemake's job scripts to Kubernetes by kubectl; print the name of the job there.

Called by Snakemake in the checkout: `submit.py JOBSCRIPT`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("pod.yaml")


def manifest(jobscript: Path, template: str, checkout: Path) -> str:
    """Return the job as Kubernetes is told it.

    Args:
        jobscript: a shell script on the volume; its second line has the job's needs as JSON.
        template: text with $names.
        checkout: where the volume is mounted, here and there.
    """
    found = re.search(r"^# properties = (\{.*\})$", jobscript.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{jobscript} is no job script of Snakemake's")
    asked = json.loads(found[1])
    return Template(template).substitute(
        jobscript=jobscript.resolve(),
        checkout=checkout.resolve(),
        cpu=asked["threads"],
        memory=asked["resources"]["mem_mb"],
        seconds=60 * asked["resources"]["runtime"],
    )


if __name__ == "__main__":
    text = manifest(Path(sys.argv[1]), TEMPLATE.read_text(), Path.cwd())
    create = ["kubectl", "create", "-f", "-", "-o", "name"]
    sys.exit(subprocess.run(create, input=text, text=True).returncode)
