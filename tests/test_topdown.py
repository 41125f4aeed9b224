"""The top-down detector against tiny ONNX models whose answers are known functions of the picture, and the replay.

The pose model finds the red, green and blue blob of a crop (joint j looks for colour j % 3) on a half-pixel grid; one
person model puts a box around all that is bright, another always gives the same boxes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseda_deploy.errors import BackendError, InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.runtime.detect import Detector
from poseda_deploy.runtime.replay import ReplayDetector
from poseda_deploy.runtime.topdown import (
    PersonModel,
    PoseModel,
    Provider,
    TopDownDetector,
    box_around,
    choose,
    cut,
    iou,
    twins,
)
from poseda_deploy.runtime.video import Frame
from poseda_deploy.skeleton import COCO17, HALPE26, OPENPOSE25

onnx = pytest.importorskip("onnx")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

CPU: Any = "CPUExecutionProvider"
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # of RTMPose; red, green, blue
SIZE_WH = (96, 128)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> Path:
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def value(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def grid(side: int, split: int = 2) -> np.ndarray:
    """(side, split*side): Gaussian weights of the pixels at every half pixel."""
    weights = np.exp(-((np.arange(side)[:, None] - np.arange(split * side) / split) ** 2) / 2)
    return (weights / np.sqrt(2 * np.pi)).astype(np.float32)


def pose_model(path: Path, joints: int = 17, batch: int | str = "n", notes: dict[str, str] | None = None) -> Path:
    """Undoes the normalisation, takes the highest along one axis, smooths along the other."""
    colour = np.eye(3)[np.arange(joints) % 3]
    mean, std = (MEAN, STD) if notes is None else (np.zeros(3), np.ones(3))
    constants = {
        "weight": (colour * std / 255).astype(np.float32)[..., None, None],
        "bias": (colour @ mean / 255).astype(np.float32),
        "grid_x": grid(SIZE_WH[0]),
        "grid_y": grid(SIZE_WH[1]),
    }
    nodes = [
        helper.make_node("Conv", ["input", "weight", "bias"], ["map"]),
        helper.make_node("ReduceMax", ["map"], ["along_x"], axes=[2], keepdims=0),
        helper.make_node("ReduceMax", ["map"], ["along_y"], axes=[3], keepdims=0),
        helper.make_node("MatMul", ["along_x", "grid_x"], ["simcc_x"]),
        helper.make_node("MatMul", ["along_y", "grid_y"], ["simcc_y"]),
    ]
    outputs = [value("simcc_x", [batch, joints, "x"]), value("simcc_y", [batch, joints, "y"])]
    save(path, nodes, [value("input", [batch, 3, *SIZE_WH[::-1]])], outputs, constants)
    if notes is not None:
        model = onnx.load(path)
        helper.set_model_props(model, notes)
        onnx.save(model, path)
    return path


def bright_person_model(path: Path, size_wh: tuple[int, int] = (64, 64)) -> Path:
    """One box around everything over 200, for pixels taken as they are."""
    constants = {"limit": np.float32(200), "one": np.array([1], np.int64), "score": np.array([[[0.9]]], np.float32)}
    nodes = []
    for axis, others in (("x", [1, 2]), ("y", [1, 3])):
        nodes += [
            helper.make_node("ReduceMax", ["input"], [f"most_{axis}"], axes=others, keepdims=0),
            helper.make_node("Greater", [f"most_{axis}", "limit"], [f"bright_{axis}"]),
            helper.make_node("Cast", [f"bright_{axis}"], [f"number_{axis}"], to=INT64),
            helper.make_node("ArgMax", [f"number_{axis}"], [f"first_{axis}"], axis=1),
            helper.make_node("ArgMax", [f"number_{axis}"], [f"last_{axis}"], axis=1, select_last_index=1),
            helper.make_node("Add", [f"last_{axis}", "one"], [f"end_{axis}"]),
        ]
    ends = ["first_x", "first_y", "end_x", "end_y"]
    nodes += [
        helper.make_node("Concat", ends, ["ends"], axis=1),
        helper.make_node("Cast", ["ends"], ["box"], to=FLOAT),
        helper.make_node("Unsqueeze", ["box", "one"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "score"], ["dets"], axis=2),
        helper.make_node("Cast", ["first_x"], ["label"], to=FLOAT),
        helper.make_node("Sub", ["label", "label"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["labels"], to=INT64),
    ]
    outputs = [value("dets", [1, "m", 5]), value("labels", [1, "m"], INT64)]
    return save(path, nodes, [value("input", [1, 3, *size_wh[::-1]])], outputs, constants)


def fixed_person_model(path: Path, boxes: Sequence[Sequence[float]], labels: Sequence[int] | None = None) -> Path:
    """Always the same x1, y1, x2, y2, score, in a 320x320 letterbox."""
    constants = {
        "given": np.array([boxes], np.float32).reshape(1, -1, 5),
        "kinds": np.array([labels or [0] * len(boxes)], np.int64),
    }
    nodes = [helper.make_node("Identity", ["given"], ["dets"]), helper.make_node("Identity", ["kinds"], ["labels"])]
    outputs = [value("dets", [1, "m", 5]), value("labels", [1, "m"], INT64)]
    return save(path, nodes, [value("input", [1, 3, 320, 320])], outputs, constants)


def picture(size_wh: tuple[int, int], people: Sequence[np.ndarray], sigma_px: float = 6) -> np.ndarray:
    """Black, with a red, a green and a blue blob at the (3,2) places of each person."""
    y, x = np.mgrid[: size_wh[1], : size_wh[0]]
    bgr = np.zeros((size_wh[1], size_wh[0], 3))
    for person in people:
        for colour, (x_px, y_px) in enumerate(person):
            blob = 255 * np.exp(-((x - x_px) ** 2 + (y - y_px) ** 2) / 2 / sigma_px**2)
            bgr[..., 2 - colour] = np.maximum(bgr[..., 2 - colour], blob)
    return bgr.round().astype(np.uint8)


def reference(bgr: np.ndarray, box: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The published formulas in double precision, one joint a colour, with a sampler of our own."""
    width, height = SIZE_WH
    x1, y1, x2, y2 = box
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    w, h = (x2 - x1) * 1.25, (y2 - y1) * 1.25
    scale = np.array([w, w * height / width] if w / h > width / height else [h * width / height, h])
    crop = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            x, y = centre + (np.array([u, v]) / SIZE_WH - 0.5) * scale
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < bgr.shape[0] and 0 <= column < bgr.shape[1]:
                        crop[v, u] += bgr[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    rgb = crop[..., ::-1] / 255
    along_x, along_y = rgb.max(0).T @ grid(width), rgb.max(1).T @ grid(height)
    peaks = np.stack([along_x.argmax(1), along_y.argmax(1)], -1) / 2
    return peaks / SIZE_WH * scale + centre - scale / 2, np.minimum(along_x.max(1), along_y.max(1))


MIDDLE = np.array([[150.3, 90.8], [170.6, 130.1], [141.2, 171.4]])
EDGES = np.array([[6.4, 20.7], [30.2, 60.9], [12.6, 110.3]])
BOX, EDGE_BOX = (120, 70, 190, 190), (-20, 2, 50, 130)


@pytest.mark.parametrize(("people", "box"), [(MIDDLE, BOX), (EDGES, EDGE_BOX), (MIDDLE, (100, 60, 260, 200))])
@pytest.mark.parametrize("size_wh", [(320, 240), (241, 417)], ids=["landscape", "portrait"])
def test_joints_are_where_the_published_formulas_put_them(
    tmp_path: Path, people: np.ndarray, box: tuple[float, ...], size_wh: tuple[int, int]
) -> None:
    """A box inside, one over the edge, one wider than the model's aspect."""
    model, bgr = PoseModel(pose_model(tmp_path / "p.onnx"), CPU), picture(size_wh, [people])
    xy_px, score = model.joints_in(bgr, np.array([box], float))
    expected_px, expected_score = reference(bgr, box)
    np.testing.assert_allclose(xy_px[0, :3], expected_px, atol=1e-6)
    np.testing.assert_allclose(score[0, :3], expected_score, atol=0.01)
    half_bin_px = max(box[2] - box[0], (box[3] - box[1]) * 0.75) * 1.25 / SIZE_WH[0] / 4
    assert np.abs(xy_px[0, :3] - people).max() < half_bin_px + 0.2, "and that is where the blobs are"
    assert (xy_px[0, 15] == xy_px[0, 0]).all() and xy_px.shape == (1, 17, 2)


def test_a_crop_is_sampled_to_one_grey_level() -> None:
    """OpenCV rounds coordinates to 1/32 pixel; outside it is black."""
    bgr = picture((320, 240), [MIDDLE, EDGES], sigma_px=25)
    crop = cut(bgr, np.array([15.3, 66.1]), np.array([90.0, 120.0]), SIZE_WH).astype(float)
    x, y = (15.3 + (np.arange(96) / 96 - 0.5) * 90)[None], (66.1 + (np.arange(128) / 128 - 0.5) * 120)[:, None]
    exact = np.max([255 * np.exp(-((x - p[2, 0]) ** 2 + (y - p[2, 1]) ** 2) / 2 / 25**2) for p in (MIDDLE, EDGES)], 0)
    inside = (x >= 0) & (y >= 0) & (x <= 319) & (y <= 239)
    assert np.abs(crop[..., 0] - exact)[inside].max() < 1.5
    assert crop[np.broadcast_to((x < -1) | (y < -1), inside.shape)].max() == 0


@pytest.mark.parametrize("batch", ["n", 1])
def test_several_people_are_the_same_one_by_one(tmp_path: Path, batch: int | str) -> None:
    bgr = picture((320, 240), [MIDDLE, EDGES, MIDDLE + np.array([90, 10])])
    boxes = np.array([BOX, EDGE_BOX, (210, 80, 280, 200)], float)
    model = PoseModel(pose_model(tmp_path / "p.onnx", batch=batch), CPU)
    together, score = model.joints_in(bgr, boxes)
    for i in range(3):
        alone, alone_score = model.joints_in(bgr, boxes[i : i + 1])
        np.testing.assert_array_equal(together[i], alone[0])
        np.testing.assert_allclose(score[i], alone_score[0], atol=1e-6)


def test_a_dynamic_batch_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    model = PoseModel(pose_model(tmp_path / "p.onnx"), CPU)
    run = model._run

    def counted(feed: np.ndarray) -> Any:
        runs.append(len(feed))
        return run(feed)

    monkeypatch.setattr(model, "_run", counted)
    model.joints_in(picture((320, 240), [MIDDLE]), np.array([BOX] * 4, float))
    assert runs == [4]


def test_mean_and_std_of_the_file_come_before_the_defaults(tmp_path: Path) -> None:
    bgr = picture((320, 240), [MIDDLE])
    default = PoseModel(pose_model(tmp_path / "d.onnx"), CPU)
    noted = PoseModel(pose_model(tmp_path / "n.onnx", notes={"mean": "[0, 0, 0]", "std": "1.0, 1.0, 1.0"}), CPU)
    ours, theirs = (m.joints_in(bgr, np.array([BOX], float)) for m in (default, noted))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)
    with pytest.raises(InputError, match=r"three numbers each for mean and std, got mean '1, 2', std '0, 1, 1'"):
        PoseModel(pose_model(tmp_path / "w.onnx", notes={"mean": "1, 2", "std": "0, 1, 1"}), CPU)


@pytest.mark.parametrize("size_wh", [(320, 240), (241, 417), (64, 64), (1000, 60)])
def test_a_person_box_comes_back_in_pixels_of_the_picture(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    """To half a pixel of the letterbox, whatever the shape."""
    bgr = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    box = np.array([0.3 * size_wh[0], 0.2 * size_wh[1], 0.8 * size_wh[0], 0.9 * size_wh[1]]).round().astype(int)
    bgr[box[1] : box[3], box[0] : box[2]] = 255
    found = PersonModel(bright_person_model(tmp_path / "b.onnx"), CPU, "yolox").boxes_in(bgr)
    assert found.shape == (1, 4)
    assert np.abs(found[0] - box).max() <= 0.75 * max(size_wh) / 64


def test_person_pixels_are_normalised_as_the_detector_wants(tmp_path: Path) -> None:
    """With RTMDet's mean and std nothing is over 200, so the box is the whole letterbox: first 0, last 64."""
    bgr = np.full((64, 64, 3), 255, np.uint8)
    assert PersonModel(bright_person_model(tmp_path / "b.onnx"), CPU, "yolox").boxes_in(bgr).tolist() == [
        [0, 0, 64, 64]
    ]
    dark = np.zeros((64, 64, 3), np.uint8)
    dark[10:20, 30:40] = 255
    model = bright_person_model(tmp_path / "c.onnx")
    assert PersonModel(model, CPU, "yolox").boxes_in(dark).tolist() == [[30, 10, 40, 20]]
    assert PersonModel(model, CPU, "rtmdet").boxes_in(dark).tolist() == [[0, 0, 64, 64]]


def test_only_people_count_and_only_sure_ones(tmp_path: Path) -> None:
    boxes = [[0, 0, 10, 20, 0.9], [5, 5, 50, 90, 0.2], [8, 8, 80, 90, 0.8]]
    model = PersonModel(fixed_person_model(tmp_path / "f.onnx", boxes, [0, 0, 2]), CPU, "rtmdet")
    assert model.boxes_in(np.zeros((320, 320, 3), np.uint8)).tolist() == [[0, 0, 10, 20]]


def detector(tmp_path: Path, boxes: Sequence[Sequence[float]], persons: int, **flags: Any) -> TopDownDetector:
    person = fixed_person_model(tmp_path / "person.onnx", boxes)
    return TopDownDetector(pose_model(tmp_path / "pose.onnx"), person, persons, **flags)


def test_people_in_a_frame_and_empty_rows(tmp_path: Path) -> None:
    bgr = picture((320, 320), [MIDDLE, EDGES])
    with detector(tmp_path, [[*BOX, 0.9], [*EDGE_BOX, 0.8]], 3) as found:
        assert isinstance(found, Detector)
        xy_px, score = found.detect(Frame(0, 0.0, bgr))
    assert xy_px.shape == (3, 17, 2) and found.skeleton == COCO17 and found.persons == 3
    order = np.argsort(-xy_px[:2, 0, 0])
    assert np.abs(xy_px[order[0], :3] - MIDDLE).max() < 1 and np.abs(xy_px[order[1], :3] - EDGES).max() < 1
    assert score[:2].min() > 0.3 and score[2].max() == 0


def test_the_person_detector_rests_while_people_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run in ten frames; who goes is looked for at once, and in every frame while nobody is there."""
    runs: list[int] = []
    found = detector(tmp_path, [[*BOX, 0.9]], 1)
    boxes_in, index = found._person.boxes_in, 0

    def counted(bgr: np.ndarray) -> np.ndarray:
        runs.append(index)
        return boxes_in(bgr)

    monkeypatch.setattr(found._person, "boxes_in", counted)
    for index in range(25):
        moved = MIDDLE + np.array([index, 0])
        xy_px, score = found.detect(Frame(index, index / 30, picture((320, 320), [moved])))
        assert np.abs(xy_px[0, :3] - moved).max() < 1, "a box that stayed would lose it"
    assert runs == [0, 10, 20]
    empty = np.zeros((320, 320, 3), np.uint8)
    for index in range(25, 29):
        _, score = found.detect(Frame(index, index / 30, empty))
        assert score.max() == 0
    assert runs == [0, 10, 20, 26, 27, 28]


def test_one_person_in_two_boxes_is_one(tmp_path: Path) -> None:
    near = (BOX[0] + 4, BOX[1] + 2, BOX[2] + 4, BOX[3] + 2)
    with detector(tmp_path, [[*BOX, 0.9], [*near, 0.9]], 2) as found:
        _, score = found.detect(Frame(0, 0.0, picture((320, 320), [MIDDLE])))
    assert (score.max(1) > 0).tolist() == [True, False]
    xy_px = np.stack([np.ones((17, 2)), np.ones((17, 2)) + 30])
    assert not twins(xy_px, np.array([[0.5] * 17, [0.6] * 17]), np.array([BOX, BOX], float)).any()


def test_who_was_there_keeps_his_place_before_the_largest() -> None:
    found = np.array([[0, 0, 50, 100], [200, 0, 300, 300], [100, 0, 140, 80]], float)
    assert choose(found, np.zeros((0, 4)), 2).tolist() == found[[1, 0]].tolist()
    assert choose(found, found[2:] + 3, 2).tolist() == found[[2, 1]].tolist()
    assert iou(found, found).diagonal().tolist() == [1, 1, 1] and iou(found[:1], found[1:]).max() == 0


def test_the_box_around_joints_leaves_out_what_is_not_seen() -> None:
    xy_px, score = np.array([[[10.0, 20], [30, 120], [900, 900]]]), np.array([[0.9, 0.5, 0.0]])
    assert box_around(xy_px, score).tolist() == [pytest.approx([8, 10, 32, 130])]


@pytest.mark.parametrize(
    ("joints", "name", "expected"),
    [(17, None, COCO17), (26, None, HALPE26), (25, "openpose25", OPENPOSE25)],
)
def test_the_skeleton_follows_from_the_joints(tmp_path: Path, joints: int, name: str | None, expected: object) -> None:
    person, pose = fixed_person_model(tmp_path / "f.onnx", []), pose_model(tmp_path / "p.onnx", joints)
    assert TopDownDetector(pose, person, skeleton=name).skeleton == expected


@pytest.mark.parametrize(
    ("joints", "name", "message"),
    [(21, None, r"21 joints, expected 17 \(coco17\) or 26 \(halpe26\)"), (17, "halpe26", "expected halpe26 with 26")],
)
def test_another_number_of_joints_is_refused(tmp_path: Path, joints: int, name: str | None, message: str) -> None:
    person, pose = fixed_person_model(tmp_path / "f.onnx", []), pose_model(tmp_path / "p.onnx", joints)
    with pytest.raises(InputError, match=message) as caught:
        TopDownDetector(pose, person, skeleton=name)
    assert "--skeleton" in caught.value.hint


def raw_yolox(path: Path) -> Path:
    """Heads without NMS."""
    nodes = [helper.make_node("Identity", ["heads"], ["output"])]
    inputs, outputs = [value("images", [1, 3, 64, 64])], [value("output", [1, 84, 85])]
    return save(path, nodes, inputs, outputs, {"heads": np.zeros((1, 84, 85), np.float32)})


def test_a_wrong_file_is_told_what_was_expected(tmp_path: Path) -> None:
    pose, person = pose_model(tmp_path / "p.onnx"), fixed_person_model(tmp_path / "f.onnx", [])
    with pytest.raises(InputError, match=r"not a pose model.*simcc_x.*got input \(1,3,320,320\) -> dets \(1,0,5\)"):
        TopDownDetector(person, person)
    with pytest.raises(InputError, match=r"not a person model.*dets \(1,M,5\).*got input \(n,3,128,96\) -> simcc_x"):
        TopDownDetector(pose, pose)
    with pytest.raises(InputError, match=r"got images \(1,3,64,64\) -> output \(1,84,85\)") as caught:
        TopDownDetector(pose, raw_yolox(tmp_path / "y.onnx"))
    assert "raw YOLOX heads are not read" in caught.value.hint
    with pytest.raises(InputError, match="not a pose model"):
        TopDownDetector(pose_model(tmp_path / "b4.onnx", batch=4), person)
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not an ONNX file"):
        TopDownDetector(tmp_path / "x.onnx", person)
    with pytest.raises(InputError, match="pose model not found"):
        TopDownDetector(tmp_path / "nowhere.onnx", person)
    with pytest.raises(InputError, match="--persons must be at least 1"):
        TopDownDetector(pose, person, 0)


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_what_was_asked_for_runs_or_nothing(provider: Provider, tmp_path: Path) -> None:
    from poseda_deploy.runtime.ort import open_session

    pose, person = pose_model(tmp_path / "p.onnx"), fixed_person_model(tmp_path / "f.onnx", [])
    try:
        active = open_session(pose, provider).get_providers()[0] == provider
    except BackendError:
        active = False
    if active:
        assert TopDownDetector(pose, person, provider=provider).provider == provider
    else:
        with pytest.raises(BackendError, match=f"asked for {provider}"):
            TopDownDetector(pose, person, provider=provider)


def test_replay_gives_each_frame_its_row(walker: Keypoints2D) -> None:
    black = np.zeros((720, 1280, 3), np.uint8)
    with ReplayDetector(walker) as replay:
        assert replay.skeleton == walker.skeleton and replay.persons == 1
        for index in (5, 3, 89):
            xy_px, score = replay.detect(Frame(index, index / 30, black))
            assert (xy_px == walker.xy_px[index]).all() and (score == 1).all()
        with pytest.raises(InputError, match="have 90 frames, and the video has a frame 90"):
            replay.detect(Frame(90, 3.0, black))
        with pytest.raises(InputError, match="of a 1280x720 picture, frame 0 is 720x1280"):
            replay.detect(Frame(0, 0.0, np.zeros((1280, 720, 3), np.uint8)))
