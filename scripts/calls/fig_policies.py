"""Draw fig_policies."""

from pathlib import Path

from scripts.figures import fig_policies
from scripts.logged import logged

with logged(snakemake):
    fig_policies.draw(
        scores=Path(snakemake.input.scores),
        out=Path(snakemake.output.pdf),
        policies=snakemake.params.policies,
        missing=snakemake.params.missing,
        **snakemake.params.setting,
    )
