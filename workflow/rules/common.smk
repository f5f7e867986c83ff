# What all rules share: the checked config, its grid, and the paths that follow from them.
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir).parent
# The packages run from the checkout; scripts get this path from Snakemake.
sys.path.insert(0, str(ROOT))

import scripts.scenario
from experiment import grid, provenance
from experiment.leftovers import FORCED, enter, is_forced, runs_job
from jellyfish.errors import JellyfishError
from jellyfish.files.atomic import read_json

# After a SIGKILL: what the killed run left alive is ended, its lock removed.
enter(Path.cwd())

# More than any machine has; Snakemake caps it: nothing else runs beside a measurement.
ALL_CORES = 1000


def settings_of(cells, names=("world", "device", "workers", "policy", "trace")):
    """Return what `scripts.figures` calls settings, each with a suffix for its file names."""
    found = {tuple(getattr(cell, name) for name in names): None for cell in cells}
    suffix = {values: "-" + "-".join(map(str, values)) for values in found}
    if len(found) == 1:
        suffix = dict.fromkeys(found, "")
    return {suffix[values]: dict(zip(names, values)) for values in found}


try:
    scenario = scripts.scenario.load(config, ROOT)
except JellyfishError as error:
    raise WorkflowError(str(error)) from None

ASSETS, ZOO, CELLS = scenario.assets, scenario.zoo, scenario.cells
SCENARIO = config["scenario"]
DEVICES = sorted({cell.device for cell in CELLS.values()})
EMULATED = {device for device in DEVICES if grid.is_emulated(config, device)}
# An emulated device may have the latencies of one that the grid does not use itself.
BEHIND = {device: grid.emulated(config, device) for device in EMULATED}
PROFILES = {
    grid.profile_key(config, device): device
    for device in sorted({*DEVICES, *filter(None, BEHIND.values())})
}
ACCURACY = grid.accuracy_key(config)
CLIPS = {grid.clip_key(config, clip): clip for clip in config["clips"]}
DETECTIONS = {grid.detections_key(config, clip): clip for clip in config["clips"]}
RUN_CLIPS = sorted({clip for cell in CELLS.values() for clip in cell.clips})
# Figures show one device or setting each: its name is part of the file's, where there are several.
OF_DEVICE = {f"-{d}" if len(DEVICES) > 1 else "": d for d in DEVICES}
SETTINGS = settings_of(CELLS.values())


wildcard_constraints:
    scenario=re.escape(SCENARIO),
    asset="|".join(re.escape(asset.file) for asset in ASSETS.values()),
    clip="|".join(map(re.escape, CLIPS)),
    accuracy=re.escape(ACCURACY),
    detections="|".join(map(re.escape, DETECTIONS)),
    of=f"({'|'.join(map(re.escape, OF_DEVICE))})",
    setting=f"({'|'.join(map(re.escape, SETTINGS))})",
    px="[0-9]+",


if not runs_job(sys.argv):
    os.environ.pop(FORCED, None)  # only a run's own jobs are told by it


def note_forced():
    """Note what --forcerun names, a line each; `*` for everything. Only known once rules are read."""
    if FORCED not in os.environ:
        asked = workflow.dag_settings
        named = [*asked.forcerun, *(asked.targets if asked.forcetargets else ())]
        os.environ[FORCED] = "*" if asked.forceall else "\n".join(map(str, named))


# Runs are no outputs of a rule, so a cell has to be told that it shall not skip those it finds: its
# job's own Snakemake is forced whatever the reason.
onstart:
    note_forced()


# The report shows the workflow as it is when nothing is done yet.
ALL_EDGES = "--report" in sys.argv
