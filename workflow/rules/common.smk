# What all rules share: the checked config, its grid, and the paths that follow from them.
import re
import sys
from os.path import relpath
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(workflow.basedir).parent
# The packages run from the checkout; scripts get this path from Snakemake.
sys.path.insert(0, str(ROOT))

from experiment import grid
from jellyfish.errors import JellyfishError
from jellyfish.files.zoo import read_zoo
from jellyfish.policy import policy
from scripts.data import read_assets

# More than any machine has; Snakemake caps it: nothing else runs beside a measurement.
ALL_CORES = 1000

validate(config, "../schemas/config.schema.yaml", set_default=False)


def checked():
    """Return assets, zoo and cells; an error in one of the files they are from is one line."""
    try:
        assets, zoo = read_assets(ROOT / config["assets"]), read_zoo(
            ROOT / config["zoo"]
        )
        needed = {clip["asset"] for clip in config["clips"].values()} | {zoo.weights}
        for name in sorted(needed | {config["scoring"]["labelled"] or zoo.weights}):
            grid.pick({"assets": assets}, "assets", name)
        for name in config["scoring"]["classes"]:
            grid.pick(
                {"labels of the zoo": dict.fromkeys(zoo.labels)},
                "labels of the zoo",
                name,
            )
        grid.pick(config, "clips", config["profile"]["clip"])
        cells = grid.cells(config)
        for cell in cells:
            policy(cell.policy)
        return assets, zoo, {cell.name: cell for cell in cells}
    except JellyfishError as error:
        raise WorkflowError(str(error)) from None


def settings_of(cells):
    """Return what `scripts.figures` calls settings, each with a suffix for its file names."""
    names = ("world", "device", "workers", "policy", "trace")
    found = {tuple(getattr(cell, name) for name in names): None for cell in cells}
    suffix = {values: "-" + "-".join(map(str, values)) for values in found}
    if len(found) == 1:
        suffix = dict.fromkeys(found, "")
    return {suffix[values]: dict(zip(names, values)) for values in found}


ASSETS, ZOO, CELLS = checked()
SCENARIO = config["scenario"]
DEVICES = sorted({cell.device for cell in CELLS.values()})
PROFILES = {grid.profile_key(config, device): device for device in DEVICES}
DETECTIONS = {grid.detections_key(config, clip): clip for clip in config["clips"]}
RUN_CLIPS = sorted({clip for cell in CELLS.values() for clip in cell.clips})
# Figures show one device or setting each: its name is part of the file's, where there are several.
OF_DEVICE = {f"-{d}" if len(DEVICES) > 1 else "": d for d in DEVICES}
SETTINGS = settings_of(CELLS.values())


wildcard_constraints:
    scenario=re.escape(SCENARIO),
    asset="|".join(re.escape(asset.file) for asset in ASSETS.values()),
    clip="|".join(map(re.escape, config["clips"])),
    profile="|".join(map(re.escape, PROFILES)),
    detections="|".join(map(re.escape, DETECTIONS)),
    cell="|".join(map(re.escape, CELLS)),
    of=f"({'|'.join(map(re.escape, OF_DEVICE))})",
    setting=f"({'|'.join(map(re.escape, SETTINGS))})",
    px="[0-9]+",


def code(*paths):
    """Files of the checkout: as inputs, a change of their content makes the output anew."""
    return [relpath(ROOT / path) for path in paths]


def figure_code(figure):
    return code(*(f"scripts/figures/{name}.py" for name in (figure, "style", "tables")))


def used_assets():
    """Names of the assets that this scenario downloads."""
    videos = {
        config["clips"][clip]["asset"]
        for clip in [*RUN_CLIPS, config["profile"]["clip"]]
    }
    labelled = config["scoring"]["labelled"]
    return sorted(videos | {ZOO.weights} | ({labelled} if labelled else set()))


def asset_path(name):
    return f"results/data/{ASSETS[name].file}"


def asset_of_file(wildcards):
    return next(name for name, asset in ASSETS.items() if asset.file == wildcards.asset)


def clip_path(name):
    return f"results/data/clips/{name}.avi"


def video_of_clip(wildcards):
    return asset_path(config["clips"][wildcards.clip]["asset"])


def model_paths():
    """Both forms of the zoo's model: what ONNX Runtime opens, and what torch does."""
    return [f"results/zoo/{ZOO.name}/model.onnx", asset_path(ZOO.weights)]


def profile_file(device, name="profile.json"):
    return f"results/profiles/{grid.profile_key(config, device)}/{name}"


def detections_path(clip, px):
    return f"results/detections/{grid.detections_key(config, clip)}/{px}.json"


def profile_settings(wildcards):
    """What a profile depends on, and all that makes it be measured anew."""
    settings = {key: config[key] for key in ("zoo", "profile", "scoring")}
    device = PROFILES[wildcards.profile]
    clip = config["clips"][config["profile"]["clip"]]
    return {**settings, "clip": clip, "device": config["devices"][device]}


def cell_settings(wildcards):
    """What a cell depends on, and all that makes it be looked at again: its runs' settings."""
    return {run.key: run.seed for run in grid.runs(config, CELLS[wildcards.cell])}


def cell_index(cell):
    return f"results/{SCENARIO}/cells/{cell.name}.json"


def frames_of(cells):
    """The raw tables of all runs of some cells; they lie behind the cells' index files."""
    return [
        f"results/runs/{run.key}/frames.parquet"
        for cell in cells
        for run in grid.runs(config, cell)
    ]


def cells_of(setting):
    return [
        cell
        for cell in CELLS.values()
        if all(
            getattr(cell, name) == value for name, value in SETTINGS[setting].items()
        )
    ]


def figure_files(suffix, names=("fig_6", "fig_7", "fig_8", "fig_9")):
    """Paths of figures in the scenario's folder, as `suffix` pdf or png."""
    kinds = {"fig_6": OF_DEVICE, "fig_7": [""], "fig_8": SETTINGS, "fig_9": SETTINGS}
    return [
        f"results/{SCENARIO}/figures/{n}{of}.{suffix}" for n in names for of in kinds[n]
    ]


def fig_7_cell():
    """The cell that Fig. 7 looks into."""
    wanted = config["figures"]["fig_7"]
    for cell in CELLS.values():
        found = (
            (cell.trace, cell.group, float(cell.slo), float(cell.fps))
            if cell.slo != "var"
            else ()
        )
        if found == (
            wanted["trace"],
            str(wanted["clients"]),
            wanted["slo_ms"],
            wanted["fps"],
        ):
            return cell
    raise WorkflowError(
        f"config: figures.fig_7 asks for {wanted}, which is no cell of the grid"
    )


def latencies_of(device):
    """What latencies are called in figures, such as `cpu: onnxruntime`."""
    return f"{device}: {config['devices'][device]['kind']}"
