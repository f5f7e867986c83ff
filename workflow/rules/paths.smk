# Where things lie, and what depends on what: functions of the checked config.
def code(*paths):
    """Files of the checkout: as inputs, a change of their content makes the output anew."""
    return [os.path.relpath(ROOT / path) for path in paths]


def figure_code(figure, *shared):
    return code(*(f"scripts/figures/{name}.py" for name in (figure, *shared, "style", "tables")))


def used_assets():
    """Names of the assets that this scenario downloads."""
    videos = {config["clips"][clip]["asset"] for clip in [*RUN_CLIPS, config["profile"]["clip"]]}
    labelled = config["scoring"]["labelled"]
    return sorted(videos | {ZOO.weights} | ({labelled} if labelled else set()))


def asset_path(name):
    return f"results/data/{ASSETS[name].file}"


def asset_of_file(wildcards):
    return next(name for name, asset in ASSETS.items() if asset.file == wildcards.asset)


def clip_path(name):
    return f"results/data/clips/{grid.clip_key(config, name)}.avi"


def video_of_clip(wildcards):
    return asset_path(config["clips"][CLIPS[wildcards.clip]]["asset"])


def model_path(device=None):
    """The zoo's model in the form that a device opens; that for CPUs if none is named."""
    if device and config["devices"][device]["kind"] == "torch":
        return asset_path(ZOO.weights)
    return f"results/zoo/{ZOO.name}/model.onnx"


def profile_file(device, name="profile.json"):
    return f"results/profiles/{grid.profile_key(config, device)}/{name}"


def detections_path(clip, px):
    return f"results/detections/{grid.detections_key(config, clip)}/{px}.npz"


def all_detections(clips):
    """What every DNN of the zoo finds in some clips: what emulated devices answer with."""
    return [detections_path(clip, px) for clip in clips for px in ZOO.input_px]


def accuracy_files():
    return [f"results/accuracy/{ACCURACY}/{px}.json" for px in ZOO.input_px]


def size_rule_files():
    """The error of what emulated devices answer to frames that were sent small, if any do."""
    return [f"results/accuracy/{ACCURACY}/size_rule.csv"] if EMULATED else []


def one_of(names):
    """A wildcard's pattern: one of these names, or nothing that there is."""
    return "|".join(map(re.escape, names)) or "(?!)"


def profile_settings(wildcards):
    """What a profile depends on, and all that makes it be measured anew."""
    settings = {key: config[key] for key in ("zoo", "profile", "scoring")}
    device = PROFILES[wildcards.profile]
    clip = config["clips"][config["profile"]["clip"]]
    return {**settings, "clip": clip, "device": config["devices"][device]}


def accuracy_settings(wildcards):
    """What the worth of a DNN depends on."""
    clip = config["clips"][config["profile"]["clip"]]
    return {"zoo": config["zoo"], "clip": clip, "scoring": config["scoring"]}


def emulated_settings(wildcards):
    """What the profile of an emulated device depends on, beside accuracies and latencies."""
    return config["devices"][PROFILES[wildcards.profile]]


def cell_settings(wildcards):
    """What a cell depends on, and all that makes it be looked at again: its runs' settings."""
    return {run.key: run.seed for run in grid.runs(config, CELLS[wildcards.cell])}


def cell_index(cell):
    return f"results/{SCENARIO}/cells/{cell.name}.json"


def simulated_run(wildcards):
    """The run with a key."""
    for cell in CELLS.values():
        if wildcards.run.startswith(f"{cell.name}-"):
            for run in grid.runs(config, cell):
                if run.key == wildcards.run:
                    return run
    raise WorkflowError(f"the scenario {SCENARIO} has no run {wildcards.run}")


def frames_of(cells):
    """The raw tables of all runs of some cells; they lie behind the cells' index files."""
    return [
        f"results/runs/{run.key}/frames.parquet"
        for cell in cells
        for run in grid.runs(config, cell)
    ]
