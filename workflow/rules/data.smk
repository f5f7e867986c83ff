# Downloads, checked by hash, and the clips cut from them. `update`: a file that was put there by
# hand is looked at, not deleted.
rule asset:
    output:
        file=update("results/data/{asset}"),
        checked=touch("results/data/.checked/{asset}"),
    log:
        "results/logs/data/{asset}.log",
    conda:
        "../../envs/data.yaml"
    params:
        name=asset_of_file,
        sha256=lambda wildcards: ASSETS[asset_of_file(wildcards)].sha256,
    script:
        "../../scripts/calls/asset.py"


rule clip:
    input:
        video=video_of_clip,
    output:
        "results/data/clips/{clip}.avi",
    log:
        "results/logs/data/clips/{clip}.log",
    conda:
        "../../envs/data.yaml"
    params:
        name=lambda wildcards: CLIPS[wildcards.clip],
    script:
        "../../scripts/calls/clip.py"
