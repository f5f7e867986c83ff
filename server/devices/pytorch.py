"""PyTorch, on a CUDA device or on the CPU."""

from __future__ import annotations

import threading

import torch

from jellyfish.errors import DeviceError
from server.devices.base import DeviceSpec
from server.devices.detector import Floats, Images
from server.zoo.darknet import build


class TorchForward:
    """One module for every input size, channels last, in half precision where asked.

    cuDNN's benchmark mode stays off: its plans are kept per thread, so those found while loading
    would be sought once more in the midst of serving.

    Raises:
        DeviceError: there is no such device.
        ConfigError, DataError: the network or its weights cannot be used.
    """

    def __init__(self, spec: DeviceSpec) -> None:
        self._device = _open(spec.device)
        self._dtype = torch.float16 if spec.half else torch.float32
        self._own = threading.local()
        torch.set_num_threads(spec.threads)
        module = build(spec.zoo.cfg, spec.model)
        self._module = module.to(self._device, self._dtype)
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: Images) -> list[Floats]:
        """Return the raw heads; see `Forward`."""
        try:
            if self._device.type != "cuda":
                return self._run(images)
            with torch.cuda.stream(self._stream()):
                return self._run(images)
        except RuntimeError as error:  # out of memory is one, too
            raise DeviceError(f"{self._device}: {error}") from error

    @torch.inference_mode()
    def _run(self, images: Images) -> list[Floats]:
        # As bytes, a quarter of the floats, and in the very order that channels last means.
        batch = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        heads = self._module(batch.to(self._dtype) / 255)
        return [head.float().cpu().numpy() for head in heads]  # .cpu() waits for the stream

    def _stream(self) -> torch.cuda.Stream:
        """Return this thread's stream: a warm-up does not queue in front of a batch."""
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._own.stream
        return stream


def _open(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"there is no device {name!r} here: {error}") from error
    return device
