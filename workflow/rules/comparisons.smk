# Figures that set policies or worlds side by side.
rule draw_fig_policies:
    input:
        missing_table(),
        scores="results/{scenario}/scores.parquet",
        code=figure_code("fig_policies", "pooled"),
    output:
        pdf="results/{scenario}/figures/fig_policies{compared}.pdf",
        png=report(
            "results/{scenario}/figures/fig_policies{compared}.png",
            caption="../report/fig_policies.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_policies{compared}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: COMPARED[wildcards.compared],
        policies=lambda wildcards: presets_of(wildcards.compared),
        missing=lambda wildcards: missing(FIGURES["fig_policies"][wildcards.compared]),
    script:
        "../../scripts/calls/fig_policies.py"


rule draw_fig_ablation:
    input:
        missing_table(),
        scores="results/{scenario}/scores.parquet",
        code=figure_code("fig_ablation", "pooled"),
    output:
        pdf="results/{scenario}/figures/fig_ablation{compared}.pdf",
        png=report(
            "results/{scenario}/figures/fig_ablation{compared}.png",
            caption="../report/fig_ablation.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_ablation{compared}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: COMPARED[wildcards.compared],
        steps=lambda wildcards: steps_of(wildcards.compared),
        missing=lambda wildcards: missing(FIGURES["fig_ablation"][wildcards.compared]),
    script:
        "../../scripts/calls/fig_ablation.py"


rule draw_fig_agreement:
    input:
        missing_table(),
        scores="results/{scenario}/scores.parquet",
        code=figure_code("fig_agreement"),
    output:
        multiext("results/{scenario}/figures/fig_agreement", ".pdf", ".csv"),
        png=report(
            "results/{scenario}/figures/fig_agreement.png",
            caption="../report/fig_agreement.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_agreement.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        pairs=agreeing(),
        missing=lambda wildcards: missing(agreeing_cells()),
    script:
        "../../scripts/calls/fig_agreement.py"
