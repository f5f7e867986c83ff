# What each DNN costs and earns. Hours for a large zoo: only a changed config, a missing file or
# --forcerun measures again (see unless_done). A killed profiling goes on where it was.
rule latency:
    input:
        unless_done(latency_inputs, "latency", "results/profiles/{profile}/latency.json"),
    output:
        "results/profiles/{profile}/latency.json",
    log:
        "results/logs/profiles/{profile}/latency.log",
    wildcard_constraints:
        profile=one_of(key for key, device in PROFILES.items() if device not in EMULATED),
    conda:
        "../../envs/cell.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        settings=profile_settings,
        device=lambda wildcards: PROFILES[wildcards.profile],
    script:
        "../../scripts/calls/latency.py"


# What a DNN is worth is the same on every device.
rule accuracy:
    input:
        unless_done(accuracy_inputs, "accuracy", "results/accuracy/{accuracy}/{px}.json"),
    output:
        "results/accuracy/{accuracy}/{px}.json",
    log:
        "results/logs/accuracy/{accuracy}-{px}.log",
    conda:
        "../../envs/cell.yaml"
    params:
        settings=accuracy_settings,
    script:
        "../../scripts/calls/accuracy.py"


rule profile:
    input:
        latency="results/profiles/{profile}/latency.json",
        accuracy=accuracy_files(),
    output:
        profile="results/profiles/{profile}/profile.json",
        raw="results/profiles/{profile}/profile_raw.csv",
    log:
        "results/logs/profiles/{profile}/profile.log",
    wildcard_constraints:
        profile=one_of(key for key, device in PROFILES.items() if device not in EMULATED),
    conda:
        "../../envs/cell.yaml"
    params:
        device=lambda wildcards: PROFILES[wildcards.profile],
        sizes=list(ZOO.input_px),
    script:
        "../../scripts/calls/profile.py"


rule emulated_profile:
    input:
        accuracy=accuracy_files(),
        latency=latencies_behind,
        code=code("experiment/emulated_profile.py"),
    output:
        profile="results/profiles/{profile}/profile.json",
        raw="results/profiles/{profile}/profile_raw.csv",
        emulation="results/profiles/{profile}/emulation.json",
    log:
        "results/logs/profiles/{profile}/profile.log",
    wildcard_constraints:
        profile=one_of(key for key, device in PROFILES.items() if device in EMULATED),
    conda:
        "../../envs/cell.yaml"
    params:
        settings=emulated_settings,
        device=lambda wildcards: PROFILES[wildcards.profile],
        sizes=list(ZOO.input_px),
    script:
        "../../scripts/calls/emulated_profile.py"


# How far off the answers are that emulated devices give to frames which were sent small.
rule size_rule:
    input:
        clip=clip_path(config["profile"]["clip"]),
        model=model_path(),
        detections=[
            detections_path(config["profile"]["clip"], px)
            for px in [*ZOO.input_px, ZOO.reference_px]
        ],
    output:
        report(
            "results/accuracy/{accuracy}/size_rule.csv",
            caption="../report/size_rule.rst",
            category="Scores",
        ),
    log:
        "results/logs/accuracy/{accuracy}-size_rule.log",
    conda:
        "../../envs/cell.yaml"
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        settings=accuracy_settings,
    script:
        "../../scripts/calls/size_rule.py"
