"""Draw Fig. 6."""

from pathlib import Path

from scripts.figures import fig_6
from scripts.logged import logged

with logged(snakemake):
    fig_6.draw(
        profile=Path(snakemake.input.profile),
        raw=None if snakemake.params.emulated else Path(snakemake.input.raw),
        out=Path(snakemake.output.pdf),
        latencies=snakemake.params.latencies,
    )
