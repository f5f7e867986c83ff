"""What to bear in mind with a report's numbers, as a page of it: results/SCENARIO/caveats.html.

Runs are kept when code changes, since they cost hours. Which of them other code, or a profile
that has been measured anew since, stands behind is told here; so are measured runs that others on
their machine disturbed, devices that were not as fast as profiled, and how far off emulated devices
are where they answer small frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from experiment.disturbance import Told, rounds_told, told
from experiment.grid import Cell, Config, cells, emulated, is_emulated, runs
from experiment.paths import ROOT, latency_path, profile_folder, run_folder
from experiment.provenance import CODE, SIMULATED_CODE, code_digest, file_digest
from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from jellyfish.files.provenance import Provenance, read_provenance
from jellyfish.files.tables import read_table
from jellyfish.records import Outcome
from scripts.drift import drifts

DRIFT = 0.1  # a device that is farther off its profile is listed
STYLE = "body{font:14px sans-serif} td,th{padding:2px 8px;text-align:left}"


@dataclass(frozen=True)
class Stale:
    """The runs of a cell that something else than what is here now has made.

    Args:
        cell: its name.
        runs: how many they are.
        of: how many runs the cell has.
        differs: what is another now: `code`, `profile`.
        commits: what made them, with a `+` where files differed from the commit.
        ended: when the latest of them did, UTC, ISO 8601.
    """

    cell: str
    runs: int
    of: int
    differs: tuple[str, ...]
    commits: tuple[str, ...]
    ended: str


def stale_cells(
    config: Config, results: Path, root: Path = ROOT, missing: Collection[str] = ()
) -> list[Stale]:
    """Return the cells, without the `missing`, that have stale runs, in the order of the grid.

    Raises:
        DataError: a run's provenance or a profile is missing or damaged.
    """
    codes = {"measured": code_digest(root, CODE), "simulated": code_digest(root, SIMULATED_CODE)}
    there = [cell for cell in cells(config) if cell.name not in missing]
    profiles = {device: _profile(config, device, results) for device in {c.device for c in there}}
    found = (_stale(config, cell, results, codes, profiles[cell.device]) for cell in there)
    return [cell for cell in found if cell is not None]


def _profile(config: Config, device: str, results: Path) -> str:
    path = profile_folder(config, device, results) / "profile.json"
    if not path.is_file():
        raise DataError(f"{path} is missing")
    return file_digest(path)


def _stale(
    config: Config, cell: Cell, results: Path, codes: dict[str, str], profile: str
) -> Stale | None:
    made = [read_provenance(run_folder(run.key, results)) for run in runs(config, cell)]
    other = [(run, what) for run in made if (what := differs(run, codes[cell.world], profile))]
    if not other:
        return None
    return Stale(
        cell=cell.name,
        runs=len(other),
        of=len(made),
        differs=tuple(sorted({word for _, what in other for word in what})),
        commits=tuple(sorted({_commit(run) for run, _ in other})),
        ended=max(run.ended for run, _ in other),
    )


def differs(made: Provenance, code: str, profile: str) -> list[str]:
    """Return what of a run is not as it is now: `code`, `profile`."""
    same = {"code": made.code_digest == code, "profile": made.digests.get("profile") == profile}
    return [what for what, kept in same.items() if not kept]


def _commit(made: Provenance) -> str:
    return made.commit[:10] + ("+" if made.dirty else "")


def disturbances(
    config: Config, results: Path, missing: Collection[str] = ()
) -> dict[str, list[Told]]:
    """Return, by cell, what disturbed each of its measured runs, in the order of the grid.

    Raises:
        DataError: a run's record is damaged.
    """
    return {
        cell.name: [told(run_folder(run.key, results)) for run in runs(config, cell)]
        for cell in cells(config)
        if cell.world == "measured" and cell.name not in missing
    }


def disturbed_rounds(
    config: Config, results: Path, missing: Collection[str] = ()
) -> dict[str, list[Told]]:
    """Return, by device that was profiled, what disturbed each round of that.

    Raises:
        DataError: the samples of a profile are missing or damaged.
    """
    used = {cell.device for cell in cells(config) if cell.name not in missing}
    behind = {found for device in used if (found := emulated(config, device))}
    profiled = behind | {device for device in used if not is_emulated(config, device)}
    return {d: rounds_told(latency_path(config, d, results)) for d in sorted(profiled)}


def share_sent_small(config: Config, results: Path, missing: Collection[str] = ()) -> float:
    """Return how many of the frames that emulated devices answered were sent too small, as a share.

    Raises:
        DataError: the table of a run is missing or damaged.
    """
    small = answered = 0
    for cell in cells(config):
        if cell.name not in missing and is_emulated(config, cell.device):
            for run in runs(config, cell):
                path = run_folder(run.key, results) / "frames.parquet"
                frames = read_table(path, ("outcome", "px_sent", "dnn_px")).to_pandas()
                ok = frames[frames["outcome"] == str(Outcome.OK)]
                small += int((ok["px_sent"] < ok["dnn_px"]).sum())
                answered += len(ok)
    return small / answered if answered else 0.0


def html(
    stale: Sequence[Stale],
    total: int,
    size_rules: Iterable[Path] = (),
    small: float = 0.0,
    disturbed: Mapping[str, Sequence[Told]] | None = None,
    rounds: Mapping[str, Sequence[Told]] | None = None,
    drift: Mapping[str, float] | None = None,
) -> str:
    """Return the page.

    Args:
        stale: as `stale_cells` finds them.
        total: how many runs the figures are made of.
        size_rules: tables of the size rule's error, where devices are emulated.
        small: to how many of the answered frames that rule was applied, as a share.
        disturbed: as `disturbances` finds them.
        rounds: as `disturbed_rounds` finds them.
        drift: as `scripts.drift.drifts` finds it.
    """
    parts = [f"<!doctype html><meta charset=utf-8><title>Caveats</title><style>{STYLE}</style>"]
    parts += _stale_part(stale, total)
    parts += _disturbed_part(disturbed) if disturbed else []
    parts += _rounds_part(rounds) if rounds else []
    parts += _drift_part(drift) if drift else []
    for path in size_rules:
        parts += _size_rule_part(path, small)
    return "\n".join(parts) + "\n"


def _stale_part(stale: Sequence[Stale], total: int) -> list[str]:
    head = "<h3>Runs of other code</h3>"
    if not stale:
        return [head, f"<p>All {total} runs were made with the present code and profiles.</p>"]
    count = sum(cell.runs for cell in stale)
    said = (
        f"<p><b>{count} of {total} runs are stale</b>: they were made with other code, or on a "
        "profile that has been measured anew since. To measure them again: "
        "<code>snakemake --cores all all --forcerun cell</code>.</p>"
    )
    heads = ["cell", "stale", "differs", "made by", "until"]
    rows = [
        [c.cell, f"{c.runs} of {c.of}", ", ".join(c.differs), ", ".join(c.commits), c.ended[:16]]
        for c in stale
    ]
    return [head, said, _table(heads, rows)]


def _disturbed_part(disturbed: Mapping[str, Sequence[Told]]) -> list[str]:
    every = [one for found in disturbed.values() for one in found]
    watched = [one for one in every if one.of is not None]
    count, again = sum(one.disturbed for one in every), sum(len(one.discarded) for one in every)
    said = [f"{count} of {len(watched)} measured runs were disturbed" if watched else ""]
    said += [f"{len(every) - len(watched)} were not watched"] if len(watched) < len(every) else []
    said += [f"{again} tries that were disturbed were measured again"] if again else []
    text = (
        f"<p><b>{'; '.join(filter(None, said))}</b>. Others took more of the CPU time than "
        "<code>measuring.disturbed</code> allows: programs beside the run, or other machines, by "
        "the hypervisor. Such runs miss frames that an idle machine would not.</p>"
    )
    heads = ["cell", "disturbed", "other programs", "stolen", "both, worst second"]
    rows = []
    for cell, found in disturbed.items():
        most = max((one.of for one in found if one.of), key=lambda of: of.share, default=None)
        if most is not None and any(one.disturbed or one.discarded for one in found):
            shares = (f"{share:.1%}" for share in (most.others, most.stolen, most.worst))
            rows.append([cell, f"{sum(o.disturbed for o in found)} of {len(found)}", *shares])
    return ["<h3>Disturbed runs</h3>", text, *([_table(heads, rows)] if rows else [])]


def _rounds_part(rounds: Mapping[str, Sequence[Told]]) -> list[str]:
    said = "; ".join(
        f"{sum(one.disturbed for one in found)} of {len(found)} on {escape(device)}"
        for device, found in rounds.items()
    )
    return [f"<p>Rounds of profiling that were disturbed: {said}.</p>"]


def _drift_part(drift: Mapping[str, float]) -> list[str]:
    off = {cell: ratio for cell, ratio in drift.items() if abs(ratio - 1) > DRIFT}
    text = (
        f"<p>In measured cells, batches took {min(drift.values()):.2f} to "
        f"{max(drift.values()):.2f} times as long as profiled (medians); <b>in {len(off)} of "
        f"{len(drift)} cells more than {DRIFT:.0%} off</b>. Plans are made with the profile all "
        "the same.</p>"
    )
    rows = [[cell, f"{ratio:.2f}"] for cell, ratio in off.items()]
    table = [_table(["cell", "time of a batch / profiled"], rows)] if rows else []
    return ["<h3>Devices against their profiles</h3>", text, *table]


def _size_rule_part(path: Path, small: float) -> list[str]:
    try:
        rule = pd.read_csv(path)
        worst = float(max(rule["error"], key=abs))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no table of the size rule: {error}") from error
    said = (
        "<p>An emulated device answers a frame that was sent smaller than the DNN's input with "
        f"what the DNN of that size found; {100 * small:.1f} % of the answered frames here. "
        f"<b>On the pairs tried, F1 comes out up to {abs(worst):.3f} too "
        f"{'low' if worst < 0 else 'high'}</b>, by sizes that are some steps apart.</p>"
    )
    heads = ["sent, px", "DNN, px", "F1, scaled up", "F1, by the rule", "error"]
    rows = [
        [f"{row[0]:.0f}", f"{row[1]:.0f}", *(f"{value:.3f}" for value in row[2:])]
        for row in rule.itertuples(index=False)
    ]
    return ["<h3>Small frames on emulated devices</h3>", said, _table(heads, rows)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [("th", heads), *(("td", row) for row in rows)]
    body = (
        "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row) + "</tr>"
        for tag, row in lines
    )
    return "<table>\n" + "\n".join(body) + "\n</table>"


def main(
    config: Config,
    results: Path,
    size_rules: Iterable[Path] = (),
    missing: Collection[str] = (),
    root: Path = ROOT,
) -> Path:
    """Write results/SCENARIO/caveats.html and return its path.

    Raises:
        DataError: a provenance, a profile or a table is missing or damaged.
    """
    stale = stale_cells(config, results, root, missing)
    small = share_sent_small(config, results, missing)
    total = sum(len(runs(config, c)) for c in cells(config) if c.name not in missing)
    path: Path = results / str(config["scenario"]) / "caveats.html"
    with whole_file(path) as temporary:
        page = html(
            stale,
            total,
            size_rules,
            small,
            disturbances(config, results, missing),
            disturbed_rounds(config, results, missing),
            drifts(config, results, missing),
        )
        temporary.write_text(page)
    return path
