# What one DNN says of every frame of a clip: the reference that runs are scored against.
rule detections:
    input:
        unless_done(detections_inputs, "detections", "results/detections/{detections}/{px}.json"),
    output:
        "results/detections/{detections}/{px}.json",
    log:
        "results/logs/detections/{detections}/{px}.log",
    conda:
        "../../envs/cell.yaml"
    params:
        clip=lambda wildcards: DETECTIONS[wildcards.detections],
    script:
        "../../scripts/calls/detections.py"
