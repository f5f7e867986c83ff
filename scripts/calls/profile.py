"""Put a profile together."""

from pathlib import Path

from experiment.profiling import assemble_profile
from scripts.logged import logged

with logged(snakemake):
    assemble_profile(snakemake.config, snakemake.params.device, Path("results"))
