"""Draw fig_ablation."""

from pathlib import Path

from scripts.figures import fig_ablation
from scripts.logged import logged

with logged(snakemake):
    fig_ablation.draw(
        scores=Path(snakemake.input.scores),
        out=Path(snakemake.output.pdf),
        steps=snakemake.params.steps,
        missing=snakemake.params.missing,
        **snakemake.params.setting,
    )
