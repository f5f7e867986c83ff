"""Devices: what executes a DNN inside a worker process."""

from __future__ import annotations

from jellyfish.errors import ConfigError
from server.devices.base import KINDS, Device, DeviceSpec, device_spec, emulated_spec
from server.devices.detector import Detector, Forward

__all__ = ["Device", "DeviceSpec", "device_spec", "emulated_spec", "make"]


def make(spec: DeviceSpec) -> Device:
    """Return the opened device, with no DNN loaded.

    Raises:
        ConfigError: the kind is unknown, or zoo and network do not fit together.
        DataError: the model is missing, cut short or another network's; for an emulated device,
            its latencies or detections are.
        DeviceError: there is no such device.
    """
    if spec.kind == "emulated":
        from server.devices.emulated import EmulatedDevice

        return EmulatedDevice(spec)
    return Detector(spec, _forward(spec))


def _forward(spec: DeviceSpec) -> Forward:
    # Imported here: serving on a CPU starts without torch.
    if spec.kind == "onnxruntime":
        from server.devices.onnx import OnnxForward

        return OnnxForward(spec)
    if spec.kind == "torch":
        from server.devices.pytorch import TorchForward

        return TorchForward(spec)
    raise ConfigError(f"devices: unknown kind {spec.kind!r}; there are: {', '.join(KINDS)}")
