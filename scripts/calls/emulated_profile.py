"""Put the profile of an emulated device together."""

from pathlib import Path

from experiment.emulated_profile import emulate_profile
from scripts.logged import logged

with logged(snakemake):
    emulate_profile(snakemake.config, snakemake.params.device, Path("results"))
