"""Any top-down ONNX pose model of the RTMPose kind (SimCC heads), with an ONNX person detector to find the boxes.

Formulas are those of MMPose (Jiang et al., RTMPose, arXiv 2303.07399; Li et al., SimCC, arXiv 2107.03332): a box,
padded by 1.25 and widened to the aspect of the model, is scaled to its input; the peaks of two one-dimensional scores
of each joint are its place, the smaller peak is its score. Tests compare with an independent writing of them.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from poseda_deploy.errors import BackendError, BundleError, InputError
from poseda_deploy.files import require_file
from poseda_deploy.opencv import Image, cv2
from poseda_deploy.skeleton import COCO17, HALPE26, SKELETONS, Skeleton, skeleton_named

from .ort import open_session
from .video import Frame

Array = np.ndarray
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]
PersonInput = Literal["rtmdet", "yolox"]
"""How the person detector takes its pixels; both of them blue, green, red."""

POSE_MEAN_STD = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], np.float32)  # red, green, blue
PERSON_MEAN_STD: dict[PersonInput, Array] = {
    "rtmdet": np.ascontiguousarray(POSE_MEAN_STD[:, ::-1]),
    "yolox": np.array([[0, 0, 0], [1, 1, 1]], np.float32),
}
SKELETON_OF = {17: COCO17, 26: HALPE26}
"""By number of joints."""

BOX_PADDING = 1.25
LETTERBOX_GREY = 114
DYNAMIC_SIDE_PX = 640  # of a person detector that takes any size
MIN_PERSON, MIN_JOINT = 0.3, 0.3  # scores below are nobody and no joint, as in MMPose's demos
MIN_JOINTS_SHARE = 0.25  # of a person, or nobody is there
MIN_IOU = 0.3  # of a box and one of the frame before, to be the same person
TWIN_SHARE = 0.05  # of the box: two poses as near as that are one person seen through two boxes
AROUND_JOINTS = 1.2  # the box around a person is so much larger than the one around the joints: scalp, hands and soles
EVERY_FRAMES = 10  # a newcomer waits a third of a second at 30 fps

_POSE = "input (N,3,H,W) -> simcc_x (N,K,X), simcc_y (N,K,Y), with X and Y the same multiple of W and H"
_PERSON = "input (1,3,H,W) -> dets (1,M,5) as x1, y1, x2, y2, score after NMS, and labels (1,M) with 0 = person"


class TopDownDetector:
    """Person boxes from one model, joints from another.

    Each frame's boxes are those around the joints of the frame before. The person detector runs on every tenth frame,
    after someone was lost, and while nobody is there. Who was there keeps his place; free ones go to the largest boxes.
    """

    def __init__(
        self,
        pose_model: Path,
        person_model: Path,
        persons: int = 1,
        *,
        provider: Provider = "CPUExecutionProvider",
        skeleton: str | None = None,
        person_input: PersonInput = "rtmdet",
        every_frames: int = EVERY_FRAMES,
    ) -> None:
        if persons < 1:
            raise InputError(f"--persons must be at least 1, got {persons}")
        self.persons = persons
        self._pose = PoseModel(pose_model, provider)
        self._person = PersonModel(person_model, provider, person_input)
        self.skeleton = _skeleton(pose_model, self._pose.joints, skeleton)
        self.provider: str = provider
        self._every_frames, self._since_frames = every_frames, 0
        self._boxes: Float[Array, "n 4"] = np.zeros((0, 4))
        self._lost = False

    def detect(self, frame: Frame) -> tuple[Float[Array, "p j 2"], Float[Array, "p j"]]:
        """(xy_px, score), a row for each of `persons`; score 0 for an empty row, a weak joint and outside the image."""
        boxes = self._find(frame.bgr)
        xy_px, score = self._pose.joints_in(frame.bgr, boxes)
        score = np.where(_inside(xy_px, frame.bgr) & (score >= MIN_JOINT), score, 0)
        here = (score > 0).mean(1) >= MIN_JOINTS_SHARE if len(boxes) else np.zeros(0, bool)
        here &= ~twins(xy_px, score, boxes)
        self._lost = not here.all()
        self._boxes = box_around(xy_px[here], score[here])
        rows = np.zeros((self.persons, self._pose.joints, 3), np.float32)
        rows[: here.sum()] = np.concatenate([xy_px, score[..., None]], -1)[here]
        return rows[..., :2], rows[..., 2]

    def _find(self, bgr: Image) -> Float[Array, "n 4"]:
        self._since_frames += 1
        if len(self._boxes) and not self._lost and self._since_frames < self._every_frames:
            return self._boxes
        self._since_frames = 0
        return choose(self._person.boxes_in(bgr), self._boxes, self.persons)

    def __enter__(self) -> "TopDownDetector":
        return self

    def __exit__(self, *error: object) -> None:
        del self._pose, self._person


class PoseModel:
    """The pose model alone: boxes in, joints out."""

    def __init__(self, path: Path, provider: Provider) -> None:
        self._session = _open(path, provider, "pose model", _POSE, ("simcc_x", "simcc_y"))
        batch, height, width = _input_size(self._session)
        if not (isinstance(height, int) and isinstance(width, int)) or (isinstance(batch, int) and batch != 1):
            raise _wrong(path, "pose model", _POSE, self._session)
        self.size_wh = (width, height)
        self._one_by_one = batch == 1
        self._mean_std = _mean_std(self._session, path, POSE_MEAN_STD)
        x, y = self._run(np.zeros((1, 3, height, width), np.float32))  # the file need not say the shapes
        if x.ndim != 3 or y.ndim != 3 or x.shape[1] != y.shape[1] or x.shape[2] * height != y.shape[2] * width:
            raise _wrong(path, "pose model", _POSE, self._session)
        self.joints = int(x.shape[1])

    def joints_in(self, bgr: Image, boxes: Float[Array, "n 4"]) -> tuple[Float[Array, "n j 2"], Float[Array, "n j"]]:
        """(xy_px, score) of each box's person; all boxes in one run where the model takes any number."""
        if not len(boxes):
            return np.zeros((0, self.joints, 2)), np.zeros((0, self.joints))
        centre_px, scale_px = centre_and_scale(boxes, self.size_wh)
        crops = [cut(bgr, c, s, self.size_wh) for c, s in zip(centre_px, scale_px, strict=True)]
        feed = normalised(np.stack(crops)[..., ::-1], self._mean_std)
        parts = [feed[i : i + 1] for i in range(len(feed))] if self._one_by_one else [feed]
        outputs = [self._run(part) for part in parts]
        share, score = decode_simcc(*(np.concatenate(axis) for axis in zip(*outputs, strict=True)))
        return centre_px[:, None] + (share - 0.5) * scale_px[:, None], score

    def _run(self, feed: Float[Array, "n 3 h w"]) -> tuple[Array, Array]:
        x, y = self._session.run(["simcc_x", "simcc_y"], {self._session.get_inputs()[0].name: feed})
        return x, y


class PersonModel:
    """The person detector alone."""

    def __init__(self, path: Path, provider: Provider, person_input: PersonInput) -> None:
        self._session = _open(path, provider, "person model", _PERSON, ("dets", "labels"))
        _, height, width = _input_size(self._session)
        self._size_wh = tuple(side if isinstance(side, int) else DYNAMIC_SIDE_PX for side in (width, height))
        self._mean_std = _mean_std(self._session, path, PERSON_MEAN_STD[person_input])
        boxes, labels = self._run(np.full((*self._size_wh[::-1], 3), LETTERBOX_GREY, np.uint8))
        if boxes.ndim != 3 or boxes.shape[2] != 5 or labels.shape != boxes.shape[:2]:
            raise _wrong(path, "person model", _PERSON, self._session)

    def boxes_in(self, bgr: Image) -> Float[Array, "n 4"]:
        """x1, y1, x2, y2 in pixels of the picture, of everybody."""
        height, width = bgr.shape[:2]
        ratio = min(self._size_wh[0] / width, self._size_wh[1] / height)
        inner_wh = (round(width * ratio), round(height * ratio))
        letterbox = np.full((*self._size_wh[::-1], 3), LETTERBOX_GREY, np.uint8)
        letterbox[: inner_wh[1], : inner_wh[0]] = cv2.resize(bgr, inner_wh, interpolation=cv2.INTER_LINEAR)
        boxes, labels = (output[0] for output in self._run(letterbox))
        people = boxes[(labels == 0) & (boxes[:, 4] >= MIN_PERSON), :4]
        return people.astype(float) * np.tile(np.divide((width, height), inner_wh), 2)

    def _run(self, letterbox: Image) -> tuple[Array, Array]:
        feed = {self._session.get_inputs()[0].name: normalised(letterbox[None], self._mean_std)}
        boxes, labels = self._session.run(["dets", "labels"], feed)
        return boxes, labels


def centre_and_scale(
    boxes: Float[Array, "n 4"], size_wh: tuple[int, int]
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """Middle and width, height of the part of the picture that becomes the model's input."""
    centre_px, side_px = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * BOX_PADDING
    aspect = size_wh[0] / size_wh[1]
    width_px = np.maximum(np.maximum(side_px[:, 0], side_px[:, 1] * aspect), 1.0)
    return centre_px, np.stack([width_px, width_px / aspect], -1)


def cut(bgr: Image, centre_px: Float[Array, "2"], scale_px: Float[Array, "2"], size_wh: tuple[int, int]) -> Image:
    """That part, bilinear, black outside the picture; its middle lands on (W/2, H/2)."""
    zoom = np.divide(size_wh, scale_px)
    shift = np.divide(size_wh, 2) - centre_px * zoom
    matrix = np.array([[zoom[0], 0, shift[0]], [0, zoom[1], shift[1]]])
    return np.asarray(cv2.warpAffine(bgr, matrix, size_wh, flags=cv2.INTER_LINEAR), np.uint8)


def normalised(images: UInt8[Array, "n h w 3"], mean_std: Float[Array, "2 3"]) -> Float[Array, "n 3 h w"]:
    """(pixel - mean) / std, channels first."""
    return np.ascontiguousarray(((images - mean_std[0]) / mean_std[1]).transpose(0, 3, 1, 2), np.float32)


def decode_simcc(
    x: Float[Array, "n j x"], y: Float[Array, "n j y"]
) -> tuple[Float[Array, "n j 2"], Float[Array, "n j"]]:
    """Place of the peaks as a share of the input's width and height, and the smaller peak, in 0..1."""
    share = np.stack([x.argmax(-1) / x.shape[-1], y.argmax(-1) / y.shape[-1]], -1)
    return share, np.minimum(x.max(-1), y.max(-1)).clip(0, 1).astype(float)


def box_around(xy_px: Float[Array, "n j 2"], score: Float[Array, "n j"]) -> Float[Array, "n 4"]:
    """x1, y1, x2, y2 of each person, from the joints that were seen."""
    unseen = (score <= 0)[..., None]
    low, high = np.where(unseen, np.inf, xy_px).min(1), np.where(unseen, -np.inf, xy_px).max(1)
    middle, half = (low + high) / 2, (high - low) / 2 * AROUND_JOINTS
    return np.concatenate([middle - half, middle + half], 1)


def choose(found: Float[Array, "n 4"], before: Float[Array, "m 4"], persons: int) -> Float[Array, "p 4"]:
    """The boxes to look into: first those of the frame before, found again, then the largest others."""
    known = iou(found, before).max(1, initial=0) > MIN_IOU
    area = np.prod(found[:, 2:] - found[:, :2], axis=1)
    return found[np.lexsort((-area, ~known))][:persons]


def iou(one: Float[Array, "n 4"], other: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Intersection over union of every pair of boxes."""
    low, high = (pick(one[:, None, k], other[None, :, k]) for pick, k in ((np.maximum, LOW), (np.minimum, HIGH)))
    common = (high - low).clip(0).prod(-1)
    area = [(box[:, HIGH] - box[:, LOW]).prod(-1) for box in (one, other)]
    return common / np.maximum(area[0][:, None] + area[1] - common, 1e-9)


LOW, HIGH = slice(0, 2), slice(2, 4)


def twins(xy_px: Float[Array, "n j 2"], score: Float[Array, "n j"], boxes: Float[Array, "n 4"]) -> Bool[Array, " n"]:
    """Which people are, joint by joint, somebody with a better score."""
    twin = np.zeros(len(boxes), bool)
    size_px = np.linalg.norm(boxes[:, HIGH] - boxes[:, LOW], axis=-1)
    for i, j in np.argwhere(score.sum(-1)[:, None] < score.sum(-1)[None]):
        both = (score[i] > 0) & (score[j] > 0)
        apart_px = np.linalg.norm(xy_px[i] - xy_px[j], axis=-1)[both]
        twin[i] |= bool(both.any()) and apart_px.mean() < TWIN_SHARE * size_px[i]
    return twin


def _inside(xy_px: Float[Array, "n j 2"], bgr: Image) -> Bool[Array, "n j"]:
    last_px = np.array([bgr.shape[1] - 1, bgr.shape[0] - 1])
    return np.all((xy_px >= 0) & (xy_px <= last_px), axis=-1)


def _skeleton(path: Path, joints: int, name: str | None) -> Skeleton:
    found = SKELETON_OF.get(joints) if name is None else skeleton_named(name)
    if found is None or len(found.joints) != joints:
        known = ", ".join(f"{s.name} ({len(s.joints)})" for s in SKELETONS.values())
        expected = f"{name} with {len(found.joints)}" if found else "17 (coco17) or 26 (halpe26)"
        raise InputError(
            f"{path}: the pose model has {joints} joints, expected {expected}", hint=f"--skeleton: {known}"
        )
    return found


def _open(path: Path, provider: Provider, what: str, expected: str, outputs: tuple[str, str]) -> Any:
    """A session on that provider and no other, for a model with those outputs."""
    try:
        session = open_session(require_file(path, what), provider)
    except BundleError as error:
        raise InputError(str(error), hint=f"a {what} is an ONNX file with {expected}") from error
    runs = session.get_providers()[0]
    if runs != provider:
        raise BackendError(f"{what}: asked for {provider}, but {runs} would run", hint="poseda-doctor says why")
    inputs = session.get_inputs()
    right = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[1] == 3
    if not right or not {*outputs} <= {value.name for value in session.get_outputs()}:
        raise _wrong(path, what, expected, session)
    return session


def _input_size(session: Any) -> tuple[Any, Any, Any]:
    """Batch, height, width; a name or None where the model takes any."""
    batch, _, height, width = session.get_inputs()[0].shape
    return batch, height, width


def _wrong(path: Path, what: str, expected: str, session: Any) -> InputError:
    def listed(values: Any) -> str:
        return ", ".join(f"{v.name} ({','.join(str(side) for side in v.shape)})" for v in values)

    got = f"{listed(session.get_inputs())} -> {listed(session.get_outputs())}"
    hint = "export it with MMDeploy, detectors with their NMS (raw YOLOX heads are not read)"
    return InputError(f"{path}: not a {what} that is known here: expected {expected}; got {got}", hint=hint)


def _mean_std(session: Any, path: Path, default: Float[Array, "2 3"]) -> Float[Array, "2 3"]:
    """From the file's metadata (`mean` and `std`, three numbers each in the order of its channels), or the default."""
    notes = session.get_modelmeta().custom_metadata_map
    if "mean" not in notes and "std" not in notes:
        return default
    rows = [[float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", notes.get(key, ""))] for key in ("mean", "std")]
    if [len(row) for row in rows] != [3, 3] or min(rows[1]) <= 0:
        got = f"mean {notes.get('mean')!r}, std {notes.get('std')!r}"
        raise InputError(f"{path}: its metadata must hold three numbers each for mean and std, got {got}")
    return np.array(rows, np.float32)
