"""What a DNN finds in every frame of a clip, through the very pipeline of serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from client.source import encode
from experiment.frames import images
from experiment.grid import Config, pick, zoo_name
from experiment.paths import (
    ROOT,
    asset_path,
    clip_path,
    detections_path,
    needed,
    onnx_path,
    zoo_of,
)
from experiment.progress import progress
from jellyfish.detections import Detections
from jellyfish.errors import DataError, DeviceError
from jellyfish.files.clip_detections import ClipDetections, write_clip_detections
from server.devices import Device, device_spec, make
from server.worker import WorkerFrame


def reference_device(config: Config, px: int, results: Path, root: Path = ROOT) -> Device:
    """Return a device in this process with the zoo's network at `px` loaded as DNN 0.

    ONNX Runtime on one core: every device gives the same detections, and Snakemake runs as many
    of these jobs beside one another as there are cores.
    """
    zoo = zoo_of(config, root)
    spec = device_spec(
        {"kind": "onnxruntime", "threads": 1},
        zoo,
        onnx=needed(onnx_path(config, results)),
        weights=asset_path(config, zoo.weights, results, root),
        max_batch=1,
        input_px=(px,),
    )
    device = make(spec)
    device.load(0)
    return device


def find(device: Device, image: bytes, px: int, what: str) -> Detections:
    """Return what DNN 0 of `device` finds in a JPEG, `px` wide and high; `what` names it in errors.

    Raises:
        DeviceError: the device says that the frame is bad.
    """
    (answer,) = device.run(0, [WorkerFrame(tag=what.encode(), image=image, px=px)]).answers
    if isinstance(answer, str):
        raise DeviceError(f"{what}: {answer}")
    return answer


def detect(config: Config, clip: str, px: int, results: Path, root: Path = ROOT) -> Path:
    """Run the zoo's network at `px` over all of `clip`; return the path of the detections.

    Writes results/detections/KEY/PX.npz, with the encoded size of every frame.

    Raises:
        DataError: clip or model are missing or damaged, or the clip has other frames than asked.
    """
    frames = int(pick(config, "clips", clip)["frames"])
    device = reference_device(config, px, results, root)
    found: list[Detections] = []
    sizes: list[int] = []
    shape = (0, 0)
    with progress(f"{zoo_name(config)} {px} px on {clip}", frames) as step:
        for number, image in enumerate(images(clip_path(config, clip, results))):
            data = encode(image, px)
            found.append(find(device, data, px, f"{clip}:{number}"))
            sizes.append(len(data))
            shape = (image.shape[1], image.shape[0])
            step()
    if len(found) != frames:
        path = clip_path(config, clip, results)
        raise DataError(f"{path} has {len(found)} frames, the config asks for {frames}; remove it")
    path = detections_path(config, clip, px, results)
    write_clip_detections(path, ClipDetections(tuple(found), np.array(sizes, np.int64), *shape))
    return path
