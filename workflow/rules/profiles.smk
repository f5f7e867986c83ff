# What each DNN costs and earns. Hours on a large grid: only a changed config, a missing file or
# --forcerun measures again, hence ancient inputs. One job a DNN: a killed profiling goes on.
rule latency:
    input:
        clip=ancient(clip_path(config["profile"]["clip"])),
        model=lambda wildcards: ancient(model_path(PROFILES[wildcards.profile])),
    output:
        "results/profiles/{profile}/latency/{px}.json",
    log:
        "results/logs/profiles/{profile}/latency-{px}.log",
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


rule accuracy:
    input:
        model=ancient(model_path()),
        labelled=ancient(labelled_path()),
        reference=ancient(detections_path(config["profile"]["clip"], ZOO.reference_px)),
        found=lambda wildcards: ancient(detections_path(config["profile"]["clip"], wildcards.px)),
    output:
        "results/profiles/{profile}/accuracy/{px}.json",
    log:
        "results/logs/profiles/{profile}/accuracy-{px}.log",
    conda:
        "../../envs/cell.yaml"
    params:
        settings=profile_settings,
        device=lambda wildcards: PROFILES[wildcards.profile],
    script:
        "../../scripts/calls/accuracy.py"


rule profile:
    input:
        latency=expand("results/profiles/{{profile}}/latency/{px}.json", px=ZOO.input_px),
        accuracy=expand("results/profiles/{{profile}}/accuracy/{px}.json", px=ZOO.input_px),
    output:
        profile="results/profiles/{profile}/profile.json",
        raw="results/profiles/{profile}/profile_raw.csv",
    log:
        "results/logs/profiles/{profile}/profile.log",
    conda:
        "../../envs/cell.yaml"
    params:
        device=lambda wildcards: PROFILES[wildcards.profile],
    script:
        "../../scripts/calls/profile.py"
