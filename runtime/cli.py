"""poseda-run: video, camera or keypoints in; metric 3D people, an overlay video and a latency sheet out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poseda_deploy.camera import Camera
from poseda_deploy.camera_flags import choose_camera, known_of, known_scene
from poseda_deploy.errors import InputError
from poseda_deploy.terminal import run_command, say, stop_asked

from .options import RunOptions, output_paths
from .timing import StageClock

if TYPE_CHECKING:
    from poseda_deploy.backend import Backend
    from poseda_deploy.bundle import Bundle
    from poseda_deploy.calibrate import Known
    from poseda_deploy.keypoints import Keypoints2D

    from .detect import Detector
    from .lift import SceneCalibration
    from .live import Meter
    from .people import LivePeople
    from .sinks import Sink
    from .sources import Source
    from .window import Window

PROG = "poseda-run"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-run."""
    return run_command(RunOptions, run, argv, PROG, __doc__ or "")


def run(options: RunOptions) -> Mapping[str, Any]:
    """Detect, calibrate, lift, write; returns the summary."""
    video = video_of(options)
    if video is None:
        return _run_clip(options, None, None)
    from .sources import open_source

    with open_source(video, options.images_per_s) as source:
        if source.live or options.as_it_comes:
            return _run_as_it_comes(options, video, source)
        return _run_clip(options, video, source)


def video_of(options: RunOptions) -> str | None:
    """What --video names, or the demo's file; none where keypoints come alone."""
    if not options.demo:
        return options.video
    from .assets import fetch_asset

    return str(fetch_asset("sports2d_demo.mp4", quiet=options.quiet))


@contextmanager
def opened_lifter(options: RunOptions) -> "Iterator[tuple[Backend, Bundle]]":
    """The bundle on the backend asked for, its golden vectors replayed."""
    from poseda_deploy.backend import fastest_backend, open_backend, replay_golden
    from poseda_deploy.bundle import default_bundle_path, load_bundle, shipped_bundle_path

    bundle = load_bundle(options.bundle or default_bundle_path())
    if options.bundle is None and bundle.path != shipped_bundle_path():
        seen = bundle.manifest.tilt_camera
        of = " to a camera of {}x{} pixels".format(*seen.size_wh) if seen else ""
        say(f"{PROG}: {bundle.path} of this folder is used, adapted{of}; --bundle DIR takes another")
    if options.backend == "auto":
        name, why = fastest_backend(bundle)
        say(f"{PROG}: --backend auto chose {name} ({why})")
    else:
        name = options.backend
    with open_backend(bundle, name) as backend:
        replay_golden(backend, bundle)
        yield backend, bundle


def camera_of(options: RunOptions, known: "Keypoints2D | None", size_wh: tuple[int, int], bundle: "Bundle") -> Camera:
    """As choose_camera."""
    return choose_camera(options, known.camera if known else None, size_wh, PROG, bundle.manifest.known_camera)


def known_of_bundle(bundle: "Bundle", camera: Camera) -> "Known":
    """As known_of."""
    return known_of(bundle.manifest.known, bundle.manifest.tilt_camera, camera, PROG)


def _stem(options: RunOptions, video: str | None) -> Path:
    if options.out is not None:
        return options.out
    if video is None:
        assert options.keypoints is not None
        return Path(options.keypoints.stem)
    from .sources import source_stem

    return Path(source_stem(video))


# --- a recording, whole -----------------------------------------------------------------------------------------------


def _run_clip(options: RunOptions, video: str | None, source: "Source | None") -> Mapping[str, Any]:
    from .clip import detections_of, draw_clip, lift_clip
    from .compare import apart_mm
    from .replay import require_same_recording
    from .write import require_libraries, write_poses

    require_libraries(options.formats)
    known = keypoints_of(options)
    if known is not None and source is not None:
        require_same_recording(known, source)
    outputs = output_paths(options, _stem(options, video), live=False)
    seen = known or source
    assert seen is not None  # one of --keypoints, --video and --demo was given
    with opened_lifter(options) as (backend, bundle):
        # settled before anything is detected, so that a wrong calibration file costs no minutes
        camera = camera_of(options, known, seen.size_wh, bundle)
        clock = StageClock()
        detections = detections_of(options, seen, clock)
        lifted = lift_clip(options, detections, camera, backend, known_of_bundle(bundle, camera), clock)
        with clock.stage("write"):
            written = write_poses(lifted.poses, lifted.scene.up, outputs, options.formats, camera)
            if lifted.own:
                lifted.own.save(outputs["mediapipe"])
        if video and "overlay" in outputs:
            draw_clip(options, video, outputs["overlay"], lifted, clock)
        common = _common(backend, bundle, camera, lifted.scene) | told(lifted.warnings)
    frames = len(lifted.clip.keypoints)
    return {
        "frames": frames,
        "lost_frames": detections.lost_frames,
        "people": len(set(lifted.poses.person.tolist())),
        "fps": round(frames / clock.elapsed_s, 2),
        **({"mediapipe_apart_mm": apart_mm(lifted.poses, lifted.own)} if lifted.own else {}),
        "stages": clock.percentiles_ms(),
        **common,
        "outputs": [*map(str, written), *(str(outputs[kind]) for kind in ("mediapipe", "overlay") if kind in outputs)],
    }


def told(warnings: Sequence[str]) -> dict[str, list[str]]:
    """Warnings, said also under --quiet; what the summary keeps of them."""
    for warning in warnings:
        say(f"{PROG}: {warning}")
    return {"warnings": list(warnings)} if warnings else {}


def keypoints_of(options: RunOptions) -> "Keypoints2D | None":
    """Those that --keypoints names; refused where they cannot be people in pixels."""
    if options.keypoints is None:
        return None
    from poseda_deploy.keypoints import load_keypoints
    from poseda_deploy.plausible import check_possible

    known = load_keypoints(options.keypoints, options.max_bytes)
    try:
        check_possible(known)
    except InputError as error:
        raise InputError(f"{options.keypoints}: {error}", hint=error.hint) from error
    return known


def _common(backend: "Backend", bundle: "Bundle", camera: Camera, scene: "SceneCalibration") -> dict[str, Any]:
    """What the summary of any run says of its means."""
    return {
        "provider": backend.provider,
        "bundle": str(bundle.path),
        "camera": camera.summary(),
        "calibration": scene.summary(),
        "units": "stages in ms, bones in m",
    }


# --- a camera, or a recording that somebody watches -------------------------------------------------------------------


def _run_as_it_comes(options: RunOptions, video: str, source: "Source") -> Mapping[str, Any]:
    from .detector_flags import open_detector
    from .live import Meter, run_live
    from .replay import ReplayDetector, require_same_recording
    from .sources import LiveSource
    from .write import convert_log, require_libraries

    require_libraries(options.formats)
    outputs = output_paths(options, _stem(options, video), live=True)
    known = keypoints_of(options)
    if known is not None:
        require_same_recording(known, source)
    opened = ReplayDetector(known) if known else open_detector(options, quiet=options.quiet)
    with opened_lifter(options) as (backend, bundle), opened as detector:
        camera = camera_of(options, known, source.size_wh, bundle)
        people = live_people(options, backend, bundle, camera, detector)
        meter = Meter(StageClock())
        sinks, window = _sinks(options, outputs, source, camera, people, meter)
        with stop_asked(PROG, None) as asked:
            run_live(
                source,
                detector,
                people,
                sinks,
                meter,
                stop=lambda: asked() or (window is not None and window.is_closed),
                quiet=options.quiet,
            )
            written = convert_log(outputs, people.up, options.formats, camera)
        common = _common(backend, bundle, camera, people.scene) | told(people.warnings)
    return {
        **meter.summary(),
        "people": meter.met,
        **(source.summary() if isinstance(source, LiveSource) else {}),
        **common,
        "outputs": [*map(str, written), *([str(outputs["overlay"])] if "overlay" in outputs else [])],
    }


def live_people(
    options: RunOptions, backend: "Backend", bundle: "Bundle", camera: Camera, detector: "Detector"
) -> "LivePeople":
    """What tracks, calibrates, lifts and smooths as frames come."""
    from .people import LivePeople

    known, persons = known_scene(options, known_of_bundle(bundle, camera)), detector.persons
    return LivePeople(backend, camera, known, detector.skeleton, persons, bones=options.bones, smooth=options.smooth)


def _sinks(
    options: RunOptions,
    outputs: Mapping[str, Path],
    source: "Source",
    camera: Camera,
    people: "LivePeople",
    meter: "Meter",
) -> "tuple[list[Sink], Window | None]":
    """Where the run's people go; and the window, which may end it."""
    from .write import PoseLog

    sinks: list[Sink] = [PoseLog(outputs["jsonl"])]
    window = None
    if "overlay" in outputs:
        from .window import OverlayRecorder

        sinks.append(OverlayRecorder(outputs["overlay"], source.size_wh, source.fps, lambda: people.up))
    if options.stream is not None:
        from .stream import open_stream

        sinks.append(open_stream(options.stream))
    if options.web is not None:
        from .web import PageFacts, WebPage

        def facts() -> PageFacts:
            return PageFacts(people.up, meter.age_s * 1000, meter.dropped, meter.clock.percentiles_ms())

        sinks.append(WebPage(options.web, camera, facts, options.web_host))
    if options.show:
        from .window import Window

        window = Window(PROG, source.size_wh, lambda: people.up)
        sinks.append(window)
    return sinks, window
