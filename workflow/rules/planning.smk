# The solvers alone, on the problems of the published simulations. One job a size; what is done lies
# in results/planning/ and is done again when its solver's code changed. Not part of `all`.
from experiment import planning_code, planning_study

PLANNING = {stage: planning_study.study(config, stage) for stage in planning_study.WORLD}
SIZES = {stage: {size.name: size for size in asked.sizes} for stage, asked in PLANNING.items()}
PLANNED = {
    stage: [f"results/{SCENARIO}/planning/{stage}/{size}.parquet" for size in sizes]
    for stage, sizes in SIZES.items()
}
PLANNING_CODE = provenance.code_digest(ROOT, planning_code.ALL)


rule planning_quality:
    output:
        "results/{scenario}/planning/quality/{size}.parquet",
    log:
        "results/logs/{scenario}/planning/quality-{size}.log",
    wildcard_constraints:
        size=one_of(SIZES["quality"]),
    conda:
        "../../envs/cell.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=180,
    params:
        size=lambda wildcards: SIZES["quality"][wildcards.size],
        settings=[config["seed"], config["planning"]["quality"]],
        code=PLANNING_CODE,
    script:
        "../../scripts/calls/planning_quality.py"


rule planning_timings:
    output:
        "results/{scenario}/planning/timings/{size}.parquet",
    log:
        "results/logs/{scenario}/planning/timings-{size}.log",
    wildcard_constraints:
        size=one_of(SIZES["timings"]),
    conda:
        "../../envs/cell.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        size=lambda wildcards: SIZES["timings"][wildcards.size],
        settings=[config["seed"], config["planning"]["timings"]],
        code=PLANNING_CODE,
    script:
        "../../scripts/calls/planning_timings.py"


rule draw_fig_sim_quality:
    input:
        sizes=PLANNED["quality"],
        code=figure_code("fig_sim_quality"),
    output:
        multiext("results/{scenario}/figures/fig_sim_quality", ".pdf", ".csv"),
        png=report(
            "results/{scenario}/figures/fig_sim_quality.png",
            caption="../report/fig_sim_quality.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_sim_quality.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        instances=config["planning"]["quality"]["instances"],
        proof_s=config["planning"]["quality"]["proof_s"],
    script:
        "../../scripts/calls/fig_sim_quality.py"


rule draw_fig_sim_timings:
    input:
        sizes=PLANNED["timings"],
        code=figure_code("fig_sim_timings"),
    output:
        multiext("results/{scenario}/figures/fig_sim_timings", ".pdf", ".csv"),
        png=report(
            "results/{scenario}/figures/fig_sim_timings.png",
            caption="../report/fig_sim_timings.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_sim_timings.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        instances=config["planning"]["timings"]["instances"],
        interval_s=config["server"]["plan_interval_s"],
    script:
        "../../scripts/calls/fig_sim_timings.py"
