# Figures, from the tables alone. Each is made anew when its tables or its script change.
rule draw_fig_6:
    input:
        profile=lambda wildcards: profile_file(OF_DEVICE[wildcards.of]),
        raw=lambda wildcards: profile_file(OF_DEVICE[wildcards.of], "profile_raw.csv"),
        code=figure_code("fig_6"),
    output:
        pdf="results/{scenario}/figures/fig_6{of}.pdf",
        png=report(
            "results/{scenario}/figures/fig_6{of}.png",
            caption="../report/fig_6.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_6{of}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        latencies=lambda wildcards: latencies_of(OF_DEVICE[wildcards.of]),
    script:
        "../../scripts/calls/fig_6.py"


rule draw_fig_7:
    input:
        cell=cell_index(fig_7_cell()),
        profile=profile_file(fig_7_cell().device),
        code=figure_code("fig_7"),
    output:
        pdf="results/{scenario}/figures/fig_7.pdf",
        png=report(
            "results/{scenario}/figures/fig_7.png",
            caption="../report/fig_7.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_7.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        frames=frames_of([fig_7_cell()])[0],
    script:
        "../../scripts/calls/fig_7.py"


rule draw_fig_8:
    input:
        scores="results/{scenario}/scores.parquet",
        profile=lambda wildcards: profile_file(SETTINGS[wildcards.setting]["device"]),
        code=figure_code("fig_8"),
    output:
        pdf="results/{scenario}/figures/fig_8{setting}.pdf",
        png=report(
            "results/{scenario}/figures/fig_8{setting}.png",
            caption="../report/fig_8.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_8{setting}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: SETTINGS[wildcards.setting],
    script:
        "../../scripts/calls/fig_8.py"


rule draw_fig_9:
    input:
        cells=lambda wildcards: [cell_index(cell) for cell in cells_of(wildcards.setting)],
        code=figure_code("fig_9"),
    output:
        pdf="results/{scenario}/figures/fig_9{setting}.pdf",
        png=report(
            "results/{scenario}/figures/fig_9{setting}.png",
            caption="../report/fig_9.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_9{setting}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: SETTINGS[wildcards.setting],
        frames=lambda wildcards: frames_of(cells_of(wildcards.setting)),
    script:
        "../../scripts/calls/fig_9.py"
