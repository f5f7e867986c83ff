"""ONNX Runtime on the CPU: for machines without a GPU the faster one, and without torch."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from jellyfish.errors import DataError, DeviceError
from server.devices.base import DeviceSpec
from server.devices.detector import Floats, Images


class OnnxForward:
    """One session for every input size: batch, height and width are open in the model.

    Raises:
        DataError: the model is missing or cannot be read.
    """

    def __init__(self, spec: DeviceSpec) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait would take the core from whoever shares it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not spec.model.is_file():
            raise DataError(f"{spec.model} is missing: export the zoo first")
        try:
            self._session = ort.InferenceSession(
                str(spec.model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own classes have no common base but this
            raise DataError(f"{spec.model} is no model that can be used: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Images) -> list[Floats]:
        """Return the raw heads; see `Forward`."""
        batch, height, width, channels = images.shape
        scaled = np.empty((batch, channels, height, width), np.float32)
        np.multiply(images.transpose(0, 3, 1, 2), np.float32(1 / 255), out=scaled)
        try:
            heads: list[Floats] = self._session.run(None, {self._input: scaled})
        except Exception as error:  # as above
            raise DeviceError(f"ONNX Runtime failed: {error}") from error
        return heads
