"""Draw Fig. 7."""

from pathlib import Path

from scripts.figures import fig_7
from scripts.logged import logged

with logged(snakemake):
    fig_7.draw(
        frames=Path(snakemake.params.frames),
        profile=Path(snakemake.input.profile),
        out=Path(snakemake.output.pdf),
    )
