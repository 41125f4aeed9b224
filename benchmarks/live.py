"""The live path: how old frames are, what a consumer too slow costs, and a server that dies.

    python benchmarks/live.py age VIDEO [--pose-model full]      a file as a camera, real detector and lifter: frame age
    python benchmarks/live.py slow VIDEO [--minutes 10]          a detector ten times too slow: memory, age, drops
    python benchmarks/live.py rtsp VIDEO [--kills 5]             benchmarks/rtsp_server.py killed and started again

Prints JSON. `age` plays the video at its rate and, before and after, gives the detector alone the same frames, decoded
before: its p95 is what the machine's load made of it.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from poseda_deploy.backend import open_backend
from poseda_deploy.bundle import default_bundle_path, load_bundle
from poseda_deploy.camera import Camera
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.detect import MediaPipeDetector
from poseda_deploy.runtime.live import Meter, run_live
from poseda_deploy.runtime.people import LivePeople
from poseda_deploy.runtime.sources import Rehearsal, Source, open_source
from poseda_deploy.runtime.timing import Recent, StageClock
from poseda_deploy.runtime.video import Frame, VideoReader
from poseda_deploy.runtime.window import OverlayRecorder


class Repeated:
    """A video again and again, time and count going on."""

    live = False

    def __init__(self, path: Path, until_s: float) -> None:
        self._path, self._until_s = path, until_s
        with VideoReader(path) as reader:
            self.size_wh, self.fps, self.frame_count_hint = reader.size_wh, reader.fps, 0

    def __iter__(self) -> Iterator[Frame]:
        index, start_s = 0, 0.0
        while True:
            with VideoReader(self._path) as reader:
                for frame in reader:
                    time_s = start_s + frame.time_s
                    if time_s > self._until_s:
                        return
                    yield Frame(index, time_s, frame.bgr)
                    index += 1
            start_s = time_s + float(1 / self.fps)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> "Repeated":
        return self

    def __exit__(self, *error: object) -> None: ...


class Identities:
    """A sink that notes who was seen, by connection, and where: who comes after whom may be another person."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.frames: dict[int, int] = {}
        self._seen: dict[int, dict[int, list[tuple[float, float, float]]]] = {}

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Note the people of this frame."""
        connection = self._source.reconnects
        self.frames[connection] = self.frames.get(connection, 0) + 1
        for who, xy_px in zip(people.person.tolist(), people.xy_px, strict=True):
            track = self._seen.setdefault(connection, {}).setdefault(who, [])
            track.append((frame.time_s, *np.median(xy_px, 0).tolist()))

    def summary(self) -> dict[int, dict[int, str]]:
        """Connection -> identity -> when and where it was seen first and last."""
        ends = {at: {who: (track[0], track[-1]) for who, track in people.items()} for at, people in self._seen.items()}
        said = "{:.1f} s at {:.0f}, {:.0f} px"
        return {
            at: {who: f"{said.format(*first)} to {said.format(*last)}" for who, (first, last) in people.items()}
            for at, people in ends.items()
        }

    def __enter__(self) -> "Identities":
        return self

    def __exit__(self, *error: object) -> None: ...


class Slowed:
    """A detector that takes ten times as long as frames come."""

    def __init__(self, detector: MediaPipeDetector, cost_s: float) -> None:
        self.skeleton, self.persons = detector.skeleton, detector.persons
        self._detector, self._cost_s = detector, cost_s

    def detect(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """As the other, later."""
        end_s = time.monotonic() + self._cost_s
        found = self._detector.detect(frame)
        time.sleep(max(end_s - time.monotonic(), 0))
        return found


def resident_mb() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def through(source: Source, detector: Any, sinks: Any = (), meter: Meter | None = None) -> dict[str, Any]:
    """The summary of a run with the default bundle."""
    bundle, meter = load_bundle(default_bundle_path()), meter or Meter(StageClock())
    with open_backend(bundle, "ort-cpu") as backend:
        camera = Camera.from_fov(60.0, source.size_wh, "60 degrees")
        people = LivePeople(backend, camera, bundle.manifest.known, detector.skeleton, detector.persons)
        run_live(source, detector, people, sinks, meter, quiet=True)
    return meter.summary()


def detector_alone_ms(video: Path, model: str, frames: int = 150) -> dict[str, float]:
    """Detection of frames that are decoded already."""
    with VideoReader(video) as reader:
        decoded = list(islice(reader, frames))
    recent = Recent()
    with MediaPipeDetector(model, quiet=True) as detector:
        for frame in decoded:
            start_s = time.perf_counter()
            detector.detect(frame)
            recent.add(time.perf_counter() - start_s)
    return recent.percentiles_ms()


def age(args: argparse.Namespace) -> dict[str, Any]:
    """Frame age of the video as a camera."""
    before = detector_alone_ms(args.video, args.pose_model)
    with (
        Rehearsal(Repeated(args.video, args.seconds)) as source,
        MediaPipeDetector(args.pose_model, quiet=True) as detector,
    ):
        summary = through(source, detector)
    after = detector_alone_ms(args.video, args.pose_model)
    return {**summary, "detector_alone": [before, after], "load": os.getloadavg()[0]}


def slow(args: argparse.Namespace) -> dict[str, Any]:
    """Memory, age and drops, with an overlay recorded all along."""
    stop, sizes_mb = threading.Event(), [resident_mb()]

    def sample() -> None:
        while not stop.wait(1):
            sizes_mb.append(resident_mb())

    with (
        tempfile.TemporaryDirectory() as folder,
        Rehearsal(Repeated(args.video, args.minutes * 60)) as source,
        MediaPipeDetector(args.pose_model, quiet=True) as detector,
    ):
        threading.Thread(target=sample, daemon=True).start()
        up = np.array([0, -1, 0], np.float32)
        recorder = OverlayRecorder(Path(folder) / "a.mp4", source.size_wh, Fraction(source.fps), lambda: up)
        summary = through(source, Slowed(detector, 10 / float(source.fps)), [recorder])
        stop.set()
    # Medians, for a few pictures more or less are alive at any moment: 6 MB each at 1080p.
    medians = [round(float(np.median(sizes_mb[start : start + 30])), 1) for start in range(30, len(sizes_mb) - 29, 30)]
    return {**summary, "mb_by_half_minute": medians, "mb_range": [min(sizes_mb[30:]), max(sizes_mb[30:])]}


class TormentedServer:
    """An RTSP server that is killed and started again, once after it hung for a while."""

    def __init__(self, video: Path, port: int) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        self._command = ["/usr/bin/python3", str(script), str(port), str(video), "joe:s3cret"]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """As the power going."""
        self._process.kill()
        self._process.wait()

    def torment(self, kills: int, source: Source) -> None:
        """5 s of pictures before each kill and after the last; then the source is closed."""
        for kill in range(kills):
            time.sleep(5)
            if kill == 1:
                self._process.send_signal(signal.SIGSTOP)
                time.sleep(7)
            self.kill()
            time.sleep(3)
            self._start()
        time.sleep(8)
        source.close()


def rtsp(args: argparse.Namespace) -> dict[str, Any]:
    """A server that is killed again and again under a run with the real detector."""
    events: list[str] = []
    server = TormentedServer(args.video, args.port)
    spec = f"rtsp://joe:s3cret@127.0.0.1:{args.port}/cam"
    try:
        with (
            MediaPipeDetector(args.pose_model, quiet=True) as detector,
            open_source(spec, tell=events.append) as source,
        ):
            threading.Thread(target=server.torment, args=(args.kills, source), daemon=True).start()
            identities = Identities(source)
            summary = through(source, detector, [identities])
    finally:
        server.kill()
    leaked = [event for event in events if "s3cret" in event]
    found = {"people": identities.summary(), "frames_of": identities.frames}
    return {**summary, "events": events, "leaked": leaked, **found}


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("age", "slow", "rtsp"))
    parser.add_argument("video", type=Path)
    parser.add_argument("--pose-model", default="full")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--port", type=int, default=8564)
    args = parser.parse_args()
    result = {"age": age, "slow": slow, "rtsp": rtsp}[args.what](args)
    json.dump({"what": args.what, "video": args.video.name, **result}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
