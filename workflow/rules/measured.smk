# What measured jobs wait for: nothing, once they are done.
def unless_done(inputs, rule, output):
    """Inputs of a measured job: none once its output is there, so that nothing before it counts.

    `ancient` would not do: where a job before an ancient input has to run, Snakemake passes over
    everything after it in that invocation, also what is missing.
    """

    def given(wildcards):
        path = Path(output.format(**wildcards))
        done = path.is_file() and not forced(rule, path)
        return [] if done and not ALL_EDGES else inputs(wildcards)

    return given


def forced(rule, path):
    """Whether --forcerun names the job of `rule` that makes `path`."""
    note_forced()
    return is_forced(rule, path)


def latency_inputs(wildcards):
    return [clip_path(config["profile"]["clip"]), model_path(PROFILES[wildcards.profile])]


def latencies_behind(wildcards):
    """The measured latencies that an emulated device has, if it has any."""
    device = BEHIND[PROFILES[wildcards.profile]]
    return [profile_file(device, "latency.json")] if device else []


def profiled_latencies():
    """The latencies of every device that was measured, for itself or for one that emulates it."""
    measured = (device for device in PROFILES.values() if device not in EMULATED)
    return [profile_file(device, "latency.json") for device in measured]


def accuracy_inputs(wildcards):
    clip = config["profile"]["clip"]
    found = [detections_path(clip, px) for px in (wildcards.px, ZOO.reference_px)]
    labelled = config["scoring"]["labelled"]
    return [*found, *([model_path(), asset_path(labelled)] if labelled else [])]


def detections_inputs(wildcards):
    return [clip_path(DETECTIONS[wildcards.detections]), model_path()]


def cell_inputs(wildcards):
    """None once the cell's index lists just the runs that the config asks for."""
    cell = CELLS[wildcards.cell]
    index = Path(cell_index(cell))
    wanted = {run.key for run in grid.runs(config, cell)}
    done = index.is_file() and not forced("cell", index)
    if done and not ALL_EDGES and indexed_runs(index) == wanted:
        return []
    clips = [clip_path(clip) for clip in cell.clips]
    made = [profile_file(cell.device), model_path(cell.device), *clips]
    if cell.device in EMULATED:
        made += [profile_file(cell.device, "emulation.json"), *all_detections(cell.clips)]
    return made


def simulated_cell_inputs(wildcards):
    cell = CELLS[wildcards.cell]
    made = [profile_file(cell.device, name) for name in ("profile.json", "emulation.json")]
    return [*made, *all_detections(cell.clips)]


def indexed_runs(index):
    """Keys of the runs that an index lists; None for a file that is none."""
    try:
        return {run["key"] for run in read_json(index)["runs"]}
    except (JellyfishError, KeyError, TypeError):
        return None
