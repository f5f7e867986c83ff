"""Draw Fig. 9."""

from pathlib import Path

from scripts.figures import fig_9
from scripts.logged import logged

with logged(snakemake):
    fig_9.draw(
        frames=[Path(p) for p in snakemake.params.frames],
        out=Path(snakemake.output.pdf),
        missing=snakemake.params.missing,
        **snakemake.params.setting,
    )
