"""What the rules' `script:` entries name: three lines each, so that they hardly ever change.

Snakemake makes measured results anew when their script changes; the code that does the work lies
in `scripts` and `experiment`, importable and tested.
"""
