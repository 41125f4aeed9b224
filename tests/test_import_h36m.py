"""Human3.6M's pickle becomes a plain source file, and a pickle that wants more is refused before it runs."""

import io
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import walk_m

from poseda_deploy.errors import InputError
from poseda_deploy.npz import load_npz
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train import import_h36m as importer
from poseda_deploy.train.cli import main
from poseda_deploy.train.import_h36m import RAW32, import_h36m
from poseda_deploy.train.source import load_source


def raw32(frames: int) -> np.ndarray:
    """(frames,32,3) of the walker as Human3.6M has people: metres, z up, float32."""
    pose, raw = walk_m(frames), np.full((frames, 32, 3), 9.0)
    for joint, index in RAW32.items():
        x, y, z = np.moveaxis(pose[:, H36M17.index(joint)], -1, 0)
        raw[:, index] = np.stack([x, -z, y], -1)
    return raw.astype(np.float32)


def people() -> dict[str, Any]:
    return {"S1": {"Walking 1": raw32(60), "Eating": raw32(41)}, "S11": {"Walking 1": raw32(30)}}


def write(path: Path, content: bytes, header: str = "|O", member: str = "positions_3d") -> Path:
    """An .npz whose one member has this pickle behind a true .npy header."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": header, "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{member}.npy", out.getvalue() + content)
    return path


def pickled(found: object, protocol: int = 4) -> bytes:
    """As numpy.save pickles it: an array of one object."""
    return pickle.dumps(np.array(found, dtype=object), protocol=protocol)


def test_a_name_that_numpy_would_change_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-h36m", str(tmp_path / "none.npz"), "--out", str(tmp_path / "h36m")]) == 2
    assert "expected a name ending in .npz" in capsys.readouterr().err


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "h36m.npz"


def test_a_genuine_file_comes_back_as_a_source(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d=np.array(people(), dtype=object))
    summary = import_h36m(path, out, fps=50)
    assert summary["frames"] == 131 and summary["subjects"] == ["S1", "S11"] and summary["sequences"] == 3
    data = load_npz(out, ("positions", "seq_id", "seq_subject", "seq_fps", "valid"))
    np.testing.assert_allclose(data["positions"][:60], walk_m(60), atol=1e-6)
    assert list(data["seq_name"]) == ["S1/Walking 1", "S1/Eating", "S11/Walking 1"]
    assert list(data["seq_start"]) == [0, 60, 101] and (data["seq_fps"] == 50).all()
    assert len(load_source([out], ["S1"]).pose_m) == 30, "compared for equality"


def test_every_second_frame_is_kept(tmp_path: Path, out: Path) -> None:
    assert import_h36m(write(tmp_path / "a.npz", pickled(people())), out)["frames"] == 30 + 21 + 15
    np.testing.assert_allclose(load_npz(out, ())["positions"][:30], walk_m(60)[::2], atol=1e-6)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_every_protocol_and_numpy_is_read(protocol: int, module: bytes, tmp_path: Path, out: Path) -> None:
    content = pickled(people(), protocol)
    if protocol < 4:  # later ones write lengths, which a change of name would break
        content = content.replace(b"numpy._core", module)
    assert import_h36m(write(tmp_path / "a.npz", content), out)["frames"] == 66


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(">f4"), lambda a: a.astype(np.float64)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_memory_layouts_are_read(change: Callable[[Any], Any], protocol: int, tmp_path: Path, out: Path) -> None:
    found = {"S1": {"a": change(raw32(30))}}
    import_h36m(write(tmp_path / "a.npz", pickled(found, protocol)), out, fps=50)
    np.testing.assert_allclose(load_npz(out, ())["positions"], walk_m(30), atol=1e-6)


class Attack:
    """Runs a call when it is unpickled."""

    def __init__(self, call: Any, *words: object) -> None:
        self.reduced = (call, words)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_attack_is_refused_and_does_not_run(protocol: int, tmp_path: Path, out: Path) -> None:
    trace = tmp_path / "ran"
    content = pickled({"S1": {"a": Attack(os.system, f"touch {trace}")}}, protocol)
    with pytest.raises(InputError, match=r"asks for '(posix|nt)\.system'") as caught:
        import_h36m(write(tmp_path / "a.npz", content), out)
    assert "do not use this file" in caught.value.hint
    assert not trace.exists() and not out.exists()
    pickle.loads(content)
    assert trace.exists(), "the attack is real"


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Attack(eval, "1"), "builtins.eval"),
        (Attack(getattr, "a", "b"), "getattr"),
        (Attack(np.fromfile, "/dev/zero"), "fromfile"),
        (Attack(np.load, "x"), "load"),
        (Attack(Path, "x"), "Path"),
    ],
)
def test_nothing_but_arrays_is_found(attack: Attack, name: str, tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match=f"asks for .*{name}"):
        import_h36m(write(tmp_path / "a.npz", pickled({"S1": {"a": attack}})), out)


def test_a_forged_array_never_reaches_numpy(tmp_path: Path, out: Path) -> None:
    """A dtype whose state lies about holding objects would make NumPy take bytes for addresses."""
    forged = [
        np.zeros(3, [("a", "O")]),
        np.zeros(3, "V8"),
        np.zeros(3, "M8[s]"),
        np.array([1, None], object),
        np.float32(1),
        Attack(np.ndarray, (1 << 50,)),
        Attack(np.dtype, "a" * 9),
        [1, 2],
    ]
    for array in forged:
        with pytest.raises(InputError, match=r"expected|damaged"):
            import_h36m(write(tmp_path / "a.npz", pickled({"S1": {"a": array}})), out)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "must hold"),
        ({"S1": {}}, "must hold"),
        ({"S1": raw32(3)}, "must hold"),
        ([1], "must be|must hold"),
        ({"S1": {"a": raw32(3)[:, :17]}}, r"S1, a: expected \(F,32,3\)"),
        ({"S1": {"a": raw32(3)[:0]}}, r"got \(0, 32, 3\)"),
        ({"S1": {"a": raw32(3).astype(int)}}, "of int64"),
        ({"S1": {"a": np.where(np.arange(30)[:, None, None] == 7, np.nan, raw32(30))}}, "S1, a: frame 7 is not finite"),
        ({"S1": {"a": raw32(30) * 1000}}, "shins are"),
        ({"S1\n\x1b[2J": {"a": 1}}, r"S1  \[2J, a: expected an array, got int"),
    ],
)
def test_what_is_not_human36m_says_so_in_a_line(found: object, message: str, tmp_path: Path, out: Path) -> None:
    content = pickle.dumps(np.array(None, dtype=object), 4) if found is None else pickled(found)
    with pytest.raises(InputError, match=message) as caught:
        import_h36m(write(tmp_path / "a.npz", content), out)
    assert "\n" not in str(caught.value) and caught.value.hint and not out.exists()


def test_an_array_under_many_names_is_bounded(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = raw32(100)
    path = write(tmp_path / "a.npz", pickled({"S1": {str(i): one for i in range(100)}}))
    monkeypatch.setattr(importer, "LIMIT_BYTES", 50 * one.nbytes)
    with pytest.raises(InputError, match="more poses than"):
        import_h36m(path, out)
    monkeypatch.setattr(importer, "LIMIT_BYTES", 1000)
    with pytest.raises(InputError, match="unpacks to"):
        import_h36m(path, out)


def test_damaged_files_are_one_line(tmp_path: Path, out: Path) -> None:
    content = pickled(people())
    assert sum(1 for _ in pickletools.genops(content)) > 20
    whole = write(tmp_path / "whole.npz", content).read_bytes()
    cases = {
        "zip cut": whole[: len(whole) // 2],
        "zip flipped": whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:],
        "no zip": b"hello",
        "nothing": b"",
        "pickle cut": write(tmp_path / "b.npz", content[: len(content) // 2]).read_bytes(),
        "no pickle": write(tmp_path / "c.npz", b"\xff" * 40).read_bytes(),
        "numbers": write(tmp_path / "d.npz", b"\0" * 8, header="<f8").read_bytes(),
        "other member": write(tmp_path / "e.npz", content, member="positions_2d").read_bytes(),
    }
    for name, data in cases.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            import_h36m(path, out)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), name
    with pytest.raises(InputError, match="not found"):
        import_h36m(tmp_path / "nowhere.npz", out)
    assert not out.exists()


def nested_tuples(depth: int) -> bytes:
    """((((...),),),) as the key of a dictionary: hashing it takes the C stack."""
    return b"\x80\x04}(" + b")" + b"\x85" * depth + b"K\x01u."


def doubled_tuples(depth: int) -> bytes:
    """t = (t, t), again and again, as the key: hashing it takes 2**depth steps."""
    return b"\x80\x04}()" + b"\x94h\x00\x86" + b"".join(b"\x94h%c\x86" % i for i in range(1, depth)) + b"K\x01u."


READ = """
import sys
from pathlib import Path
from poseda_deploy.errors import InputError
from poseda_deploy.train.import_h36m import import_h36m
try:
    import_h36m(Path(sys.argv[1]), Path(sys.argv[2]))
except InputError as error:
    print("refused")
"""

SMALL: dict[str, bytes] = {
    "tuples nested deep as a key": nested_tuples(200_000),
    "tuples doubled as a key": doubled_tuples(60),
    "a memo index of 3 thousand million": b"\x80\x04}r\xff\xff\xff\xb0.",
    "tuples doubled as a dtype": b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93(" + doubled_tuples(60)[4:-4] + b"tR.",
    "lists nested deep": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "a text of 2 GB by its own account": b"\x80\x04\x8d" + (2 << 30).to_bytes(8, "little") + b".",
    "a number of 9,000 digits": b"\x80\x02L" + b"9" * 9000 + b"L\n.",
    "marks without end": b"\x80\x04" + b"(" * 300_000 + b".",
    "a stack that runs empty": b"\x80\x04u.",
    "a memo that is not there": b"\x80\x04h\x07.",
    "a persistent id": b"\x80\x04Pname\n.",
    "an extension": b"\x80\x04\x82\x01.",
    "no end": b"\x80\x04}",
    "a call of what is no stand-in": b"\x80\x04K\x01)R.",
    "a state that is no tuple": b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x85R}b.",
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_pickle_takes_neither_time_nor_memory(name: str, tmp_path: Path) -> None:
    """In a process of its own: three of these end or fill the one that loads them."""
    path = write(tmp_path / "a.npz", SMALL[name])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(tmp_path / "out.npz")], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_positions_no_person_has_are_refused(tmp_path: Path, out: Path) -> None:
    far = raw32(30)
    far[7] = 1e38
    with pytest.raises(InputError, match="S1, a: frame 7 is not within"):
        import_h36m(write(tmp_path / "a.npz", pickled({"S1": {"a": far}})), out)
