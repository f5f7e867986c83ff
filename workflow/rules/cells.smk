# One job a cell: server and clients start and end inside it. Finished runs lie in results/runs/
# and are skipped; the index is written last. Like profiles: only a changed config, a missing
# index or --forcerun measures again.
rule cell:
    input:
        noted(cell_inputs),
    output:
        "results/{scenario}/cells/{cell}.json",
    log:
        "results/logs/{scenario}/cells/{cell}.log",
    wildcard_constraints:
        cell=one_of(name for name, cell in CELLS.items() if cell.world == "measured"),
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


# Cheap: every run of it that another profile or other code made is made again.
rule simulated_cell:
    input:
        noted(simulated_cell_inputs),
    output:
        "results/{scenario}/cells/{cell}.json",
    log:
        "results/logs/{scenario}/cells/{cell}.log",
    wildcard_constraints:
        cell=one_of(name for name, cell in CELLS.items() if cell.world == "simulated"),
    conda:
        "../../envs/cell.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        cell=lambda wildcards: CELLS[wildcards.cell],
        runs=cell_settings,
        code=provenance.code_digest(ROOT, provenance.SIMULATED_CODE),
    script:
        "../../scripts/calls/cell.py"
