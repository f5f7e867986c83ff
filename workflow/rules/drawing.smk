# Which figures there are, and from which cells each is drawn.
from jellyfish.policy import ABLATION

STEPS = [(label, step.name) for label, step in ABLATION]
BETWEEN = {name for _, name in STEPS[1:-1]}


def raw_profile(device):
    """The measured latencies behind a profile; an emulated device has none."""
    return [] if grid.is_emulated(config, device) else profile_file(device, "profile_raw.csv")


def with_setting(settings):
    """The cells with one of SETTINGS or COMPARED."""
    return [
        cell
        for cell in CELLS.values()
        if all(getattr(cell, name) == value for name, value in settings.items())
    ]


def cells_of(setting):
    return with_setting(SETTINGS[setting])


def policies_of(compared):
    """Names of the policies that are compared, in the order of the config."""
    return list(dict.fromkeys(cell.policy for cell in with_setting(COMPARED[compared])))


def presets_of(compared):
    return [name for name in policies_of(compared) if name not in BETWEEN]


def steps_of(compared):
    here = policies_of(compared)
    return [(label, name) for label, name in STEPS if name in here]


def cells_with(compared, policies):
    return [cell for cell in with_setting(COMPARED[compared]) if cell.policy in policies]


def step_cells(compared):
    return cells_with(compared, [name for _, name in steps_of(compared)])


def fig_7_wanted(world):
    """The config's choice for a world: fig_7's own, or what it says under the world's name."""
    base = config["figures"]["fig_7"]
    return {**base, **base.get(world, {})}


def _shown(value):
    return value if isinstance(value, str) else f"{value:g}"


def fig_7_cell(setting):
    """The cell of a setting that Fig. 7 looks into, if it has one."""
    for cell in cells_of(setting):
        wanted = fig_7_wanted(cell.world)
        asked = [wanted[name] for name in ("trace", "clients", "slo_ms", "fps")]
        if [cell.trace, cell.group, cell.slo, cell.fps] == list(map(_shown, asked)):
            return cell
    return None


def agreeing():
    """The cells that are measured and simulated alike: on one emulated device, or on a real one
    and on a device that emulates it."""
    pairs = []
    for ours in (cell for cell in CELLS.values() if cell.world == "simulated"):
        for theirs in (cell for cell in CELLS.values() if cell.world == "measured"):
            names = ("workers", "policy", "trace", "group", "clients", "streams")
            same = all(getattr(ours, name) == getattr(theirs, name) for name in names)
            emulated = config["devices"][ours.device].get("profile")
            if same and theirs.device in (ours.device, emulated):
                kind = "emulated" if grid.is_emulated(config, theirs.device) else "real"
                pairs.append({"kind": kind, "measured": theirs.name, "simulated": ours.name})
    return pairs


def agreeing_cells():
    return [CELLS[pair[world]] for pair in agreeing() for world in ("measured", "simulated")]


COMPARED = settings_of(CELLS.values(), ("world", "device", "workers"))
FIG_7 = {setting: cell for setting in SETTINGS if (cell := fig_7_cell(setting)) is not None}
for world in sorted({cell.world for cell in CELLS.values()}):
    if not any(cell.world == world for cell in FIG_7.values()):
        raise WorkflowError(
            f"config: figures.fig_7 asks for {fig_7_wanted(world)}, which is no cell of the grid"
        )


wildcard_constraints:
    compared=f"({'|'.join(map(re.escape, COMPARED))})",


# What each figure is drawn from, by what its file name ends with. Steps of the ablation have a
# figure of their own, and the others only by name.
FIGURES = {
    "fig_6": {of: [] for of in OF_DEVICE},
    "fig_7": {setting: [FIG_7[setting]] for setting in FIG_7},
    "fig_8": {setting: cells_of(setting) for setting in SETTINGS},
    "fig_9": {setting: cells_of(setting) for setting in SETTINGS},
    "fig_policies": {
        of: cells_with(of, presets_of(of)) for of in COMPARED if len(presets_of(of)) > 1
    },
    "fig_ablation": {of: step_cells(of) for of in COMPARED if len(steps_of(of)) > 2},
    "fig_agreement": {"": agreeing_cells()} if agreeing() else {},
}
ALL_FIGURES = [name for name in FIGURES if name != "fig_agreement"]


def figure_files(suffix, names=None):
    """Paths of figures in the scenario's folder, as `suffix` pdf or png: those that can be drawn."""
    return [
        f"results/{SCENARIO}/figures/{name}{of}.{suffix}"
        for name in names or ALL_FIGURES
        for of, cells in FIGURES[name].items()
        if (name == "fig_6" or drawn(cells))
        and (of not in SETTINGS or SETTINGS[of]["policy"] not in BETWEEN)
    ]


def figure(name):
    """The files of one figure, or why there are none."""

    def files(wildcards):
        if found := [path for kind in ("pdf", "png") for path in figure_files(kind, [name])]:
            return [*found, *missing_table()]
        reasons = {
            "fig_policies": "its grid has one policy; see config/policies.yaml",
            "fig_ablation": "its grid lacks the steps of the ablation; see config/policies.yaml",
            "fig_agreement": "its grid has no cell in both worlds; see config/agreement.yaml",
        }
        reason = reasons[name] if not FIGURES[name] else "none of its cells is finished"
        raise WorkflowError(f"{name} of the scenario {SCENARIO}: {reason}")

    return files
