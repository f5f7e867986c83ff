"""Draw fig_sim_quality."""

from pathlib import Path

from scripts.figures import fig_sim_quality
from scripts.logged import logged

with logged(snakemake):
    fig_sim_quality.draw(
        sizes=[Path(p) for p in snakemake.input.sizes],
        out=Path(snakemake.output.png),
    )
