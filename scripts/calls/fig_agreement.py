"""Draw fig_agreement."""

from pathlib import Path

from scripts.figures import fig_agreement
from scripts.logged import logged

with logged(snakemake):
    fig_agreement.draw(
        scores=Path(snakemake.input.scores),
        pairs=snakemake.params.pairs,
        out=Path(snakemake.output.png),
        missing=snakemake.params.missing,
    )
