"""Draw Fig. 8."""

from pathlib import Path

from scripts.figures import fig_8
from scripts.logged import logged

with logged(snakemake):
    fig_8.draw(
        scores=Path(snakemake.input.scores),
        profile=Path(snakemake.input.profile),
        out=Path(snakemake.output.pdf),
        missing=snakemake.params.missing,
        **snakemake.params.setting,
    )
