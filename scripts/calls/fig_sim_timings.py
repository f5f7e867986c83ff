"""Draw fig_sim_timings."""

from pathlib import Path

from scripts.figures import fig_sim_timings
from scripts.logged import logged

with logged(snakemake):
    fig_sim_timings.draw(
        sizes=[Path(p) for p in snakemake.input.sizes],
        out=Path(snakemake.output.png),
        interval_s=float(snakemake.params.interval_s),
    )
