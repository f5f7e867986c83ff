# One job a cell: server and clients start and end inside it. Finished runs lie in results/runs/
# and are skipped; the index is written last. Like profiles: only a changed config, a missing
# index or --forcerun measures again.
rule cell:
    input:
        cell_inputs,
    output:
        "results/{scenario}/cells/{cell}.json",
    log:
        "results/logs/{scenario}/cells/{cell}.log",
    conda:
        "../../envs/cell.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        cell=lambda wildcards: CELLS[wildcards.cell],
        runs=cell_settings,
    script:
        "../../scripts/calls/cell.py"
