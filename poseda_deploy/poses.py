"""Poses3D: metric people in camera axes, one row per person and frame, and the files that carry them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.files import load_npz, write_aside


@dataclass(frozen=True)
class Poses3D:
    """M rows, ordered by frame and then person."""

    frame: Int[np.ndarray, " m"]
    person: Int[np.ndarray, " m"]
    time_s: Float[np.ndarray, " m"]
    pose_m: Float[np.ndarray, "m 17 3"]
    """Relative to the pelvis, camera axes (x right, y down, z forward), H36M17 order."""
    root_m: Float[np.ndarray, "m 3"]
    """Pelvis in camera axes."""
    score: Float[np.ndarray, "m 17"]
    """Of the 2D joint under each 3D joint; 0 = the lifter put it in.

    All 17 are 0 in a row that fills a short gap of the person's track: nobody was seen, the pose lies between those
    before and after it.
    """

    def __len__(self) -> int:
        return len(self.frame)

    def save(self, path: Path) -> None:
        """Write NAME.poses.npz."""
        with write_aside(path) as aside:
            np.savez_compressed(
                aside,
                frame=self.frame,
                person=self.person,
                time_s=self.time_s,
                pose=self.pose_m,
                root=self.root_m,
                score=self.score,
                skeleton=np.array("h36m17"),
                units=np.array("m"),
                axes=np.array("camera: x right, y down, z forward; pose relative to root"),
            )

    def save_jsonl(self, path: Path) -> None:
        """Write NAME.poses.jsonl, one row a line, metres to 0.1 mm."""
        with write_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps(self.row(i))}\n" for i in range(len(self)))

    def row(self, i: int) -> dict[str, object]:
        """What a JSON line says of it."""
        return {
            "frame": int(self.frame[i]),
            "person": int(self.person[i]),
            "time_s": round(float(self.time_s[i]), 6),
            "pose": np.round(self.pose_m[i].astype(float), 4).tolist(),
            "root": np.round(self.root_m[i].astype(float), 4).tolist(),
            "score": np.round(self.score[i].astype(float), 3).tolist(),
        }


@dataclass(frozen=True)
class PosedFrame:
    """The people of one frame, as sinks and the Python API get them; rows in order of person."""

    index: int
    time_s: float
    person: Int[np.ndarray, " n"]
    """Identities, stable through a run."""
    pose_m: Float[np.ndarray, "n 17 3"]
    """As in Poses3D."""
    root_m: Float[np.ndarray, "n 3"]
    score: Float[np.ndarray, "n 17"]
    """As in Poses3D; all 0 in a row that fills a gap, where nobody was seen."""
    xy_px: Float[np.ndarray, "n 17 2"]
    """Where the joints were seen, in pixels of the picture, H36M17 order; means nothing where score is 0."""

    def __len__(self) -> int:
        return len(self.person)


def load_poses(path: str | Path) -> Poses3D:
    """Read NAME.poses.npz."""
    data = load_npz(Path(path), ("frame", "person", "time_s", "pose", "root", "score"))
    return Poses3D(*(data[key] for key in ("frame", "person", "time_s", "pose", "root", "score")))
