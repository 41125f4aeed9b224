"""An .npz may hold anything: what is no plain array of plausible size is refused in one line."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZipFile

import numpy as np
import pytest

from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import load_keypoints
from poseda_deploy.poses import load_poses

SHAPES = {"xy": (4, 17, 2), "score": (4, 17)}


def good() -> dict[str, Any]:
    """The smallest keypoints file, with a camera."""
    return {
        "xy": np.full(SHAPES["xy"], 100.0, np.float32),
        "score": np.ones(SHAPES["score"], np.float32),
        "image_size": np.array([1280, 720]),
        "skeleton": np.array("coco17"),
        "K": np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]),
        "dist": np.zeros(5),
    }


def npy(header: bytes, body: bytes = b"") -> bytes:
    """A member with any header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def archive(members: dict[str, bytes], compression: int = ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with ZipFile(out, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def members(**change: Any) -> dict[str, bytes]:
    """The members of a good file, some of them changed; None leaves one out."""
    out = {}
    for key, value in {**good(), **change}.items():
        buffer = io.BytesIO()
        if value is not None:
            np.save(buffer, value, allow_pickle=True)
            out[f"{key}.npy"] = buffer.getvalue()
    return out


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return archive(members() | {"xy.npy": npy(header, body)})


def of_shape(shape: str, descr: str = "'<f4'") -> bytes:
    return with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode())


def claiming(file_size: int) -> bytes:
    """A zip directory that speaks of far more than there is."""
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as made:
        for name, content in members().items():
            made.writestr(name, content)
        made.infolist()[0].file_size = file_size
    return out.getvalue()


def flagged(bit: int) -> bytes:
    """The first member, encrypted by its own account."""
    out = bytearray(archive(members()))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        out[out.index(signature) + at] |= bit
    return bytes(out)


def unknown_letter(code: int) -> bytes:
    return npy(b"{'descr': '<U1', 'fortran_order': False, 'shape': (), }", struct.pack("<I", code))


DEEP = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 3000 + b")" * 3000 + b"}"

DAMAGED: dict[str, Callable[[], bytes]] = {
    "a raw member in place of an array": lambda: archive(members(xy=None) | {"xy": b"1 2 3"}),
    "a raw member under an array's name": lambda: archive(members() | {"xy.npy": b"1 2 3"}),
    "an encrypted member": lambda: flagged(1),
    "a patch": lambda: flagged(32),
    "LZMA": lambda: archive(members(), ZIP_LZMA),
    "bzip2": lambda: archive(members(), ZIP_BZIP2),
    "an unknown compression": lambda: archive(members()).replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"),
    "a header that is no literal": lambda: with_header(b"{'descr': '<f4', 'shape': (2"),
    "a header of tokens": lambda: with_header(b"{'descr': '''"),
    "a header nested deep": lambda: with_header(DEEP),
    "a header of minus signs": lambda: with_header(b"-" * 9000),
    "a count of 5,000 digits": lambda: of_shape(f"({'9' * 5000},)"),
    "a shape of 30 digits": lambda: of_shape(f"({'9' * 30},)"),
    "a shape below zero": lambda: of_shape("(-1, 17, 2)"),
    "a shape of 99 axes": lambda: of_shape(f"({'1, ' * 99})"),
    "a shape beyond the member": lambda: of_shape("(4, 17, 200)"),
    "an empty shape of many": lambda: of_shape(f"(0, {2**62}, {2**62})"),
    "an unknown type": lambda: of_shape("(4, 17, 2)", "'<q9'"),
    "a type of text": lambda: of_shape("(4, 17, 2)", "'<U999999999'"),
    "text that is no Unicode": lambda: archive(members() | {"skeleton.npy": unknown_letter(0x7F000000)}),
    "half a letter": lambda: archive(members() | {"skeleton.npy": unknown_letter(0xD800)}),
    "a record": lambda: of_shape("(4,)", "[('x', '<f4'), ('y', '<f4')]"),
    "times": lambda: archive(members(time_s=np.zeros(4, "M8[s]"))),
    "complex numbers": lambda: archive(members(xy=np.zeros((4, 17, 2), complex))),
    "a member of seven bytes": lambda: archive(members() | {"xy.npy": b"\x93NUMPY\x01"}),
    "a name of two lines": lambda: archive({"x\ny.npy": members()["xy.npy"]}),
    "a member of six bytes": lambda: archive(members() | {"xy.npy": b"\x93NUMPY"}),
    "a version of the future": lambda: archive(members() | {"xy.npy": npy(b"").replace(b"\x01\x00", b"\x09\x00", 1)}),
    "a name that is no UTF-8": lambda: archive({"\u00e9.npy": b""}).replace("\u00e9".encode(), b"\xff\xff"),
    "a scalar for xy": lambda: archive(members(xy=np.float32(1))),
    "a scalar for score": lambda: archive(members(score=np.float32(1))),
    "a scalar for image_size": lambda: archive(members(image_size=np.int64(1280))),
    "a scalar for K": lambda: archive(members(K=np.float64(1))),
    "a scalar for time_s": lambda: archive(members(time_s=np.float64(1))),
    "xy without axes for frames": lambda: archive(members(xy=np.zeros(2))),
    "text in K": lambda: archive(members(K=np.full((3, 3), "a"))),
    "text in dist": lambda: archive(members(dist=np.full(5, "a"))),
    "text in fps": lambda: archive(members(fps=np.array("fast"))),
    "a number as text in fps": lambda: archive(members(fps=np.array("25"))),
    "two rates": lambda: archive(members(fps=np.array([25, 30]))),
    "text in time_s": lambda: archive(members(time_s=np.full(4, "a"))),
    "image_size NaN": lambda: archive(members(image_size=np.array([np.nan, 720]))),
    "image_size infinite": lambda: archive(members(image_size=np.array([np.inf, 720]))),
    "image_size of 1e30": lambda: archive(members(image_size=np.array([1e30, 720]))),
    "numbers in skeleton": lambda: archive(members(skeleton=np.arange(5000))),
    "several skeletons": lambda: archive(members(skeleton=np.array(["coco17", "h36m17"]))),
    "an axis in K too many": lambda: archive(members(K=np.zeros((2, 3, 3)))),
    "a distortion that is no list": lambda: archive(members(dist=np.full(7, 0.1))),
    "doubles beyond single precision": lambda: archive(members(xy=np.full((4, 17, 2), 1e300))),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_keypoints_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "k.npz"
    path.write_bytes(DAMAGED[name]())
    with pytest.raises(InputError) as caught:
        load_keypoints(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_single_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    path, whole = tmp_path / "k.npz", archive(members())
    refused = 0
    for bit in range(0, 8 * len(whole), 11):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            load_keypoints(path)
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", ["text", "pickle", "array"])
def test_what_is_no_archive_is_not_said_to_hold_objects(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "k.npz"
    if kind == "array":
        with path.open("wb") as stream:
            np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    else:
        path.write_bytes(b"frame,joint,x,y\n0,1,2,3\n" * 9 if kind == "text" else b"\x80\x04]\x94.")
    with pytest.raises(InputError, match=r"k\.npz: not a readable \.npz") as caught:
        load_keypoints(path)
    assert "Python objects" not in str(caught.value)


def test_what_a_file_unpacks_to_is_known_before_it_is_unpacked(tmp_path: Path) -> None:
    """Zeros pack to a thousandth, and a zip directory may claim what it likes."""
    path = tmp_path / "k.npz"
    path.write_bytes(claiming(3_000_000_000))
    with pytest.raises(InputError, match=r"unpacks to 3 GB, more than 2 GB") as caught:
        load_keypoints(path)
    assert "--max-memory" in caught.value.hint
    np.savez_compressed(path, **good() | {"xy": np.zeros((40_000, 17, 2)), "score": np.zeros((40_000, 17))})
    with pytest.raises(InputError, match="unpacks to"):
        load_keypoints(path, max_bytes=10_000_000)
    assert len(load_keypoints(path, max_bytes=20_000_000)) == 40_000


def test_a_claim_that_no_packing_reaches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.npz"
    path.write_bytes(claiming(1_500_000_000))
    with pytest.raises(InputError, match="not a readable"):
        load_keypoints(path)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(">f8"), lambda a: a.astype(np.float16)])
def test_any_layout_of_numbers_is_read(change: Callable[[Any], Any], tmp_path: Path) -> None:
    xy_px = np.arange(4 * 17 * 2, dtype=np.float32).reshape(4, 17, 2)
    np.savez_compressed(tmp_path / "k.npz", **good() | {"xy": change(xy_px)})
    np.testing.assert_array_equal(load_keypoints(tmp_path / "k.npz").xy_px[:, 0], xy_px)


def poses() -> dict[str, Any]:
    return {
        "frame": np.arange(3),
        "person": np.zeros(3, int),
        "time_s": np.arange(3) / 30,
        "pose": np.zeros((3, 17, 3), np.float32),
        "root": np.zeros((3, 3), np.float32),
        "score": np.ones((3, 17), np.float32),
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frame", np.arange(2), r"person must be \(2\), got \(3\)"),
        ("frame", np.array(0), "frame must be"),
        ("frame", np.full(3, "a"), "frame must hold whole numbers"),
        ("frame", np.full(3, np.nan), "frame must hold whole numbers"),
        ("frame", np.full(3, 2**63, np.uint64), "frame must hold whole numbers"),
        ("person", np.full(3, 0.5), "person must hold whole numbers"),
        ("time_s", np.full(3, "a"), "time_s must hold numbers"),
        ("time_s", np.array([0, np.inf, 1]), "time_s must be finite"),
        ("pose", np.zeros((3, 17, 2)), r"pose must be \(3,17,3\), got \(3,17,2\)"),
        ("pose", np.zeros(3), "pose must be"),
        ("root", np.zeros((2, 3)), r"root must be \(3,3\), got \(2,3\)"),
        ("score", np.full((3, 17), "a"), "score must hold numbers"),
    ],
)
def test_poses_of_other_shapes_and_kinds_are_refused(key: str, value: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.poses.npz"
    np.savez(path, **poses())
    assert len(load_poses(path)) == 3
    np.savez(path, **poses() | {key: value})
    with pytest.raises(InputError, match=message) as caught:
        load_poses(path)
    assert str(path) in str(caught.value)


def source() -> dict[str, Any]:
    standing = np.linspace(0, 1.7, 17)[:, None] * [0.0, 1.0, 0.0] + np.eye(17, 3) * 0.1
    standing[[5, 6]] = [[0, 0.5, 0], [0, 0.1, 0]]  # a shin of 0.4 m
    return {
        "positions": np.tile(standing, (6, 1, 1)),
        "seq_id": np.array([0, 0, 0, 1, 1, 1]),
        "seq_subject": np.array(["a", "b"]),
        "valid": np.ones(6, bool),
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("positions", np.full((6, 17, 3), "a"), "positions must hold numbers"),
        ("positions", np.array(1.0), r"positions must be \(N,17,3\)"),
        ("positions", np.full((6, 17, 3), 1e300), "no pose is left|not within"),
        ("seq_id", np.full(6, 2), "seq_id must lie in 0..1"),
        ("seq_id", np.full(6, -1), "seq_id must lie in 0..1"),
        ("seq_id", np.zeros(5, int), r"seq_id must be \(6\), got \(5\)"),
        ("seq_id", np.zeros(6), "seq_id must hold whole numbers"),
        ("seq_subject", np.array("a"), "seq_subject must be"),
        ("seq_subject", np.arange(2), "seq_subject must hold text"),
        ("seq_subject", np.zeros(0, "U1"), "seq_id must lie in"),
        ("valid", np.ones(6), "valid must hold yes or no"),
        ("valid", np.ones(5, bool), r"valid must be \(6\), got \(5\)"),
    ],
)
def test_source_poses_of_other_shapes_and_kinds_are_refused(
    key: str, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    from poseda_deploy.train.source import load_source

    path = tmp_path / "source.npz"
    np.savez(path, **source())
    assert len(load_source([path], []).pose_m) == 6
    np.savez(path, **source() | {key: value})
    with pytest.raises(InputError, match=message) as caught:
        load_source([path], [])
    assert str(path) in str(caught.value)


def target() -> dict[str, Any]:
    return {
        "positions_world": np.zeros((3, 17, 3)),
        "keypoints_2d_det": np.full((3, 2, 17, 2), 300.0),
        "keypoints_2d_conf": np.ones((3, 2, 17)),
        "K": np.tile([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]], (2, 1, 1)),
        "R": np.tile(np.eye(3), (2, 1, 1)),
        "T": np.zeros((2, 3)),
        "image_size": np.array([[1280, 720]] * 2),
        "seq_id": np.array([0, 0, 1]),
        "seq_name": np.array(["walk", "run"]),
        "cam_name": np.array(["left", "right"]),
        "fps": np.array(30),
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("positions_world", np.full((3, 17, 3), "a"), "positions_world must hold numbers"),
        ("positions_world", np.array(1.0), "positions_world must be"),
        ("keypoints_2d_det", np.full((3, 2, 17, 2), "a"), "keypoints_2d_det must hold numbers"),
        ("keypoints_2d_det", np.array(1.0), "keypoints_2d_det must be"),
        ("keypoints_2d_det", np.full((3, 2, 17, 2), 1e300), "keypoints_2d_det must lie within"),
        ("positions_world", np.full((3, 17, 3), 1e300), "positions_world must lie within"),
        ("T", np.full((2, 3), 1e300), "T must lie within"),
        ("R", np.full((2, 3, 3), 1e300), "R must lie within"),
        ("keypoints_2d_conf", np.ones((3, 2, 5)), r"keypoints_2d_conf must be \(3,2,17\)"),
        ("keypoints_2d_conf", np.full((3, 2, 17), "a"), "keypoints_2d_conf must hold numbers"),
        ("keypoints_2d_conf", np.full((3, 2, 17), 90.0), "score must lie in 0..1"),
        ("keypoints_2d_det", np.full((3, 2, 17, 3), 1e5), "score must lie in 0..1"),
        ("K", np.full((2, 3, 3), "a"), "K must hold numbers"),
        ("R", np.full((2, 3, 3), np.nan), "R and T must be finite"),
        ("T", np.full((2, 3), np.inf), "R and T must be finite"),
        ("dist", np.full((2, 5), "a"), "dist must hold numbers"),
        ("dist", np.array(1.0), "dist must be"),
        ("dist", np.zeros((1, 5)), "dist must be"),
        ("image_size", np.full((2, 2), np.nan), "image_size must be"),
        ("image_size", np.full((2, 2), "a"), "image_size must hold numbers"),
        ("seq_id", np.array([0, 0, 2]), "seq_id must lie in 0..1"),
        ("seq_id", np.array([0, 0, 10**9]), "seq_id must lie in 0..1"),
        ("seq_id", np.array(0), "seq_id must be"),
        ("seq_id", np.full(3, "a"), "seq_id must hold whole numbers"),
        ("seq_name", np.array("walk"), "seq_name must be"),
        ("cam_name", np.array(["left"]), r"cam_name must be \(2\)"),
        ("fps", np.array("fast"), "fps must hold numbers"),
        ("fps", np.array(0.0), "fps must be above 0"),
        ("fps", np.array([25, 30]), "fps must be above 0"),
    ],
)
def test_targets_of_other_shapes_and_kinds_are_refused(
    key: str, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    from poseda_deploy.train.truth import read_target

    path = tmp_path / "target.npz"
    np.savez(path, **target())
    assert len(read_target(path).views) == 2
    np.savez(path, **target() | {key: value})
    with pytest.raises(InputError, match=message) as caught:
        read_target(path)
    assert str(path) in str(caught.value)


ROW = b'{"frame": 0, "person": 0, "time_s": 0, "pose": %s, "root": [0, 0, 2], "score": %s}\n' % (
    str([[0.0, 0, 0]] * 17).encode(),
    str([1] * 17).encode(),
)


@pytest.mark.parametrize(
    "row",
    [
        b"\xff\xfe\n",
        ROW.replace(b'"frame": 0', b'"frame": Infinity'),
        ROW.replace(b'"frame": 0', b'"frame": 1e300'),
        ROW.replace(b'"frame": 0', b'"frame": %d' % 10**400),
        ROW.replace(b'"person": 0', b'"person": %d' % 10**25),
        ROW.replace(b'"time_s": 0', b'"time_s": NaN'),
        ROW.replace(b"[0, 0, 2]", b"[0, 0, 1e300]"),
        ROW.replace(b"[0, 0, 2]", b"[0, 0, %d]" % 10**400),
        b"[" * 100_000 + b"\n",
        b"5\n",
        b"\n",
    ],
)
def test_a_damaged_row_of_poses_names_its_line(row: bytes, tmp_path: Path) -> None:
    from poseda_deploy.poses import load_poses_jsonl

    path = tmp_path / "a.poses.jsonl"
    path.write_bytes(ROW + row + ROW)
    with pytest.raises(InputError, match="line 2") as caught:
        load_poses_jsonl(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_rate_may_have_an_axis(tmp_path: Path) -> None:
    from poseda_deploy.train.truth import read_target

    np.savez(tmp_path / "target.npz", **target() | {"fps": np.array([25])})
    assert [view.fps for view in read_target(tmp_path / "target.npz").views] == [25, 25]


def test_a_score_beyond_single_precision_is_a_missing_joint(tmp_path: Path) -> None:
    from poseda_deploy.train.truth import read_target

    np.savez(tmp_path / "target.npz", **target() | {"keypoints_2d_conf": np.full((3, 2, 17), 1e300)})
    assert not any(view.keypoints.score.any() for view in read_target(tmp_path / "target.npz").views)
