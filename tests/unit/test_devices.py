import dataclasses
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError, DeviceError
from server.devices import Device, DeviceSpec, device_spec, make
from server.devices.detector import decode_jpeg
from server.worker import BatchResult, WorkerFrame
from server.zoo.onnx_export import export
from tests.jpeg_files import by_pillow
from tests.zoo_models import MIXED, YOLO, jpegs, video_frames, write_mixed_weights, yolo_weights

KINDS = ("onnxruntime", "torch")


@pytest.fixture(scope="module")
def frames(assets: Path) -> list[np.ndarray]:
    return video_frames(assets, 6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both forms of the small zoo's model."""
    folder = tmp_path_factory.mktemp("mixed")
    weights, onnx = write_mixed_weights(folder / "mixed.weights"), folder / "model.onnx"
    export(MIXED.cfg, weights, onnx)
    return {"weights": weights, "onnx": onnx}


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, models: dict[str, Path]) -> DeviceSpec:
    return device_spec({"kind": request.param}, MIXED, **models, max_batch=2)


@pytest.fixture
def device(spec: DeviceSpec) -> Device:
    return make(spec)


def detections(result: BatchResult) -> list[Detections]:
    assert all(isinstance(answer, Detections) for answer in result.answers)
    return list(result.answers)  # type: ignore[arg-type]


def assert_same(a: Detections, b: Detections, atol: float = 1e-4) -> None:
    assert a.classes.tolist() == b.classes.tolist()
    np.testing.assert_allclose(a.scores, b.scores, atol=atol)
    np.testing.assert_allclose(a.boxes, b.boxes, atol=atol)


def test_both_kinds_find_the_same_on_the_real_zoo(
    assets: Path, frames: list[np.ndarray], tmp_path: Path
) -> None:
    onnx = tmp_path / "model.onnx"
    weights = yolo_weights(assets)
    export(YOLO.cfg, weights, onnx)
    found = 0
    devices = [
        make(device_spec({"kind": kind}, YOLO, onnx=onnx, weights=weights, max_batch=1))
        for kind in KINDS
    ]
    for px in (224, 416):
        dnn = YOLO.input_px.index(px)
        for device in devices:
            device.load(dnn)
        ours, theirs = (detections(device.run(dnn, jpegs(frames[:3], px))) for device in devices)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
            found += len(a)
    assert found > 10


def test_a_batch_gives_what_its_frames_give_alone(device: Device, frames: list[np.ndarray]) -> None:
    device.load(2)
    batch = jpegs(frames[:3], 96)
    together = detections(device.run(2, batch))
    assert sum(len(one) for one in together) > 5
    for frame, answer in zip(batch, together, strict=True):
        assert_same(detections(device.run(2, [frame]))[0], answer)


def test_padding_changes_no_answer(device: Device, frames: list[np.ndarray]) -> None:
    device.load(1)
    batch = jpegs(frames[:2], 64)
    plain, padded = device.run(1, batch), device.run(1, batch, pad_to=4)
    assert len(padded.answers) == 2
    for a, b in zip(detections(plain), detections(padded), strict=True):
        assert_same(a, b)


def test_a_bad_frame_spoils_only_itself(device: Device, frames: list[np.ndarray]) -> None:
    device.load(1)
    first, second = jpegs(frames[:2], 64)
    no_scan = WorkerFrame(b"", bytes(second.image[:200]), 64)
    result = device.run(1, [WorkerFrame(b"", b"junk", 64), first, no_scan, second], pad_to=4)
    assert result.answers[0] == "not a JPEG"
    assert result.answers[2] == "the JPEG cannot be decoded"
    good = detections(device.run(1, [first, second]))
    assert_same(result.answers[1], good[0])  # type: ignore[arg-type]
    assert_same(result.answers[3], good[1])  # type: ignore[arg-type]


def test_a_batch_of_bad_frames_runs_nothing(device: Device) -> None:
    device.load(0)
    result = device.run(0, [WorkerFrame(b"", b"", 32)] * 2, pad_to=4)
    assert result.answers == ("not a JPEG",) * 2


def test_a_frame_of_another_size_is_resized(device: Device, frames: list[np.ndarray]) -> None:
    device.load(2)
    (small,) = jpegs(frames[:1], 48)
    answer = detections(device.run(2, [small]))[0]
    assert len(answer) > 0
    assert answer.boxes.max() <= 1


def test_stages_add_up(device: Device, frames: list[np.ndarray]) -> None:
    device.load(0)
    result = device.run(0, jpegs(frames[:1], 32))
    assert result.decode_ms > 0
    assert result.execute_ms > 0
    assert result.busy_ms == pytest.approx(result.decode_ms + result.execute_ms)


def test_only_what_is_loaded_runs(device: Device, frames: list[np.ndarray]) -> None:
    batch = jpegs(frames[:1], 32)
    with pytest.raises(DeviceError, match="DNN 0 is not loaded"):
        device.run(0, batch)
    device.load(0)
    device.load(0)
    assert len(device.run(0, batch).answers) == 1
    device.evict(0)
    device.evict(0)
    with pytest.raises(DeviceError, match="DNN 0 is not loaded"):
        device.run(0, batch)


@pytest.mark.parametrize("dnn", [-1, 3])
def test_there_are_as_many_dnns_as_sizes(device: Device, dnn: int) -> None:
    with pytest.raises(DeviceError, match=f"no DNN {dnn}: the zoo has 3"):
        device.load(dnn)


def test_sizes_beside_the_zoo_can_be_served(spec: DeviceSpec, frames: list[np.ndarray]) -> None:
    device = make(dataclasses.replace(spec, input_px=(MIXED.reference_px,)))
    device.load(0)
    assert len(device.run(0, jpegs(frames[:1], 128)).answers) == 1


def test_a_spec_travels(spec: DeviceSpec) -> None:
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"kind": "tpu"}, "unknown kind 'tpu'"),
        ({}, "unknown kind None"),
        ({"kind": "torch", "colour": 1}, "unknown key 'colour'"),
        ({"kind": "onnxruntime", "device": "cuda:0"}, "use torch for cuda:0"),
        ({"kind": "torch", "half": True}, "half needs a CUDA device"),
        ({"kind": "torch", "threads": 0}, "threads must be"),
    ],
)
def test_settings_that_cannot_be_used(described: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        device_spec(described, MIXED, onnx=Path("o"), weights=Path("w"), max_batch=1)


def test_labels_must_fit_the_network(spec: DeviceSpec) -> None:
    zoo = dataclasses.replace(MIXED, labels=("circle", "square"))
    with pytest.raises(ConfigError, match=r"2 labels, but mixed.cfg has 3 classes"):
        make(dataclasses.replace(spec, zoo=zoo))


def test_sizes_must_fit_the_network(spec: DeviceSpec) -> None:
    with pytest.raises(ConfigError, match="100 is no multiple of 8"):
        make(dataclasses.replace(spec, input_px=(96, 100)))


def test_a_missing_model_is_named(spec: DeviceSpec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        make(dataclasses.replace(spec, model=tmp_path / "absent"))


def test_a_model_cut_short_is_named(spec: DeviceSpec, tmp_path: Path) -> None:
    model = tmp_path / "half"
    whole = spec.model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="half"):
        make(dataclasses.replace(spec, model=model))


def test_a_model_of_another_network_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    cfg = tmp_path / "swapped.cfg"
    text = MIXED.cfg.read_text()
    cfg.write_text(
        text.replace("mask=1,2", "mask=0").replace("filters=16\nactivation=linear", "x=0")
    )
    zoo = dataclasses.replace(MIXED, cfg=cfg)
    device = make(device_spec({"kind": "onnxruntime"}, zoo, **models, max_batch=1))
    with pytest.raises(DataError, match=r"heads of \[16, 8\] channels, .* says \[8, 8\]: export"):
        device.load(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_named(models: dict[str, Path]) -> None:
    spec = device_spec({"kind": "torch", "device": "cuda:0"}, MIXED, **models, max_batch=1)
    with pytest.raises(DeviceError, match="cuda:0"):
        make(spec)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("half", "atol"), [(False, 1e-3), (True, 2e-2)])
def test_cuda_finds_what_the_cpu_finds(
    assets: Path, frames: list[np.ndarray], half: bool, atol: float
) -> None:
    paths = {"onnx": Path("unused"), "weights": yolo_weights(assets)}
    dnn = YOLO.input_px.index(416)
    answers = []
    for described in ({"kind": "torch"}, {"kind": "torch", "device": "cuda:0", "half": half}):
        device = make(device_spec(described, YOLO, **paths, max_batch=2))
        device.load(dnn)
        answers.append(detections(device.run(dnn, jpegs(frames[:2], 416))))
    for a, b in zip(*answers, strict=True):
        assert_same(a.where(a.scores > 0.4), b.where(b.scores > 0.4), atol)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_a_client_sends_is_an_image_or_a_reason(data: st.DataObject) -> None:
    good = jpegs([np.full((32, 32, 3), 99, np.uint8)], 32)[0].image
    start = good.index(b"\xff\xda")  # damage the pixels, not the claimed size
    at = data.draw(st.integers(start, len(good) - 1))
    damaged = good[:at] + data.draw(st.binary(max_size=64)) + good[at + 1 :]
    try:
        image = decode_jpeg(damaged, 32)
    except ValueError:  # the reason; anything else would end the batch
        return
    assert image.shape == (32, 32, 3)


def test_other_formats_are_not_read() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    for kind in (".png", ".bmp", ".tiff", ".webp"):
        with pytest.raises(ValueError, match="not a JPEG"):
            decode_jpeg(cv2.imencode(kind, picture)[1].tobytes(), 32)


def test_an_orientation_beside_the_picture_is_ignored() -> None:
    red_on_the_left = np.zeros((32, 32, 3), np.uint8)
    red_on_the_left[:, :16, 0] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be shown turned by 90 degrees
    turned, plain = (by_pillow(red_on_the_left, **how) for how in ({"exif": exif}, {}))
    assert turned != plain
    assert (decode_jpeg(turned, 32) == decode_jpeg(plain, 32)).all()


def test_a_jpeg_is_read_as_rgb() -> None:
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[:, :, 0] = 255  # OpenCV's order is BGR
    image = decode_jpeg(jpegs([blue], 32)[0].image, 32)
    assert image.shape == (32, 32, 3)
    assert image[16, 16, 2] > 240
    assert image[16, 16, 0] < 15
