"""The whole run, without overlay and with it, against a bare MediaPipe loop on the same video, in turns in one process.

    python benchmarks/pipeline.py VIDEO [--repeats 5] [--pose-model full]

Prints JSON: median fps of both, and the ratio. The bare loop decodes with OpenCV, converts to RGB and detects,
one after the other, as an example program would; `detector_only` leaves its decoding out.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import mediapipe
import numpy as np

from poseda_deploy.opencv import cv2
from poseda_deploy.runtime.cli import run
from poseda_deploy.runtime.detect import MediaPipeDetector
from poseda_deploy.runtime.options import RunOptions


def bare_fps(video: Path, model: str) -> tuple[float, float]:
    """(fps of decode + detect, fps of detect alone) of a plain loop."""
    frames, detect_s = 0, 0.0
    with MediaPipeDetector(model, quiet=True) as detector:
        start = perf_counter()
        capture = cv2.VideoCapture(str(video))
        while True:
            decoded, bgr = capture.read()
            if not decoded:
                break
            begin = perf_counter()
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
            detector._landmarker.detect_for_video(image, frames * 33)
            detect_s += perf_counter() - begin
            frames += 1
        total_s = perf_counter() - start
    return frames / total_s, frames / detect_s


def run_fps(video: Path, model: str, *, overlay: bool) -> float:
    """fps of the whole run, files written; start-up of session and detector not counted, as above."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a"
        options = RunOptions(video=str(video), out=out, overlay=overlay, pose_model=model, fov_deg=60, quiet=True)
        return float(run(options)["fps"])


def main() -> None:
    """Take turns, then print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pose-model", default="full")
    args = parser.parse_args()
    rounds = [
        (
            *bare_fps(args.video, args.pose_model),
            run_fps(args.video, args.pose_model, overlay=False),
            run_fps(args.video, args.pose_model, overlay=True),
        )
        for _ in range(args.repeats)
    ]
    bare, detector_only, whole, drawn = (round(statistics.median(column), 2) for column in zip(*rounds, strict=True))
    print(
        json.dumps(
            {
                "video": args.video.name,
                "bare_loop_fps": bare,
                "detector_only_fps": detector_only,
                "run_fps": whole,
                "with_overlay_fps": drawn,
                "ratio_to_bare_loop": round(whole / bare, 3),
                "ratio_with_overlay": round(drawn / bare, 3),
                "ratio_to_detector_only": round(whole / detector_only, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
