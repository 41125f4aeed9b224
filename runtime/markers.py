"""Motion capture files of one person: TRC (OpenSim's markers) and C3D."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from poseda_deploy.skeleton import H36M17

from .takes import BLOCK_FRAMES, Take

C3D_FRAMES = 65_535
"""A C3D file counts them in 16 bits."""


def write_trc(take: Take, path: Path, name: str) -> None:
    """Metres, y up; frames count from 1 as the format has it, NaN where the person is missing; `name` goes inside.

    Blanks, which the format allows too, OpenSim 4.6 refuses at the end of a line.
    """
    frames, rate = take.frames, f"{float(take.fps):.6f}"
    head = [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate}\t{rate}\t{frames}\t17\tm\t{rate}\t1\t{frames}",
        "Frame#\tTime\t" + "\t\t\t".join(H36M17.joints) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{marker}" for marker in range(1, 18) for axis in "XYZ"),
        "",
    ]
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in head)
        for part in take.parts(BLOCK_FRAMES):
            rows = zip(part.time_s, part.joints_m.reshape(-1, 51).tolist(), strict=True)
            for number, (time_s, xyz_m) in enumerate(rows, part.first_frame + 1):
                fields = "\t".join(f"{value:.5f}" for value in xyz_m).replace("nan", "NaN")
                stream.write(f"{number}\t{time_s:.6f}\t{fields}\n")


def c3d_parts(take: Take) -> Iterator[Take]:
    """The take, cut into as many as the format's count of frames asks for."""
    return take.parts(C3D_FRAMES)


def write_c3d(take: Take, path: Path) -> None:
    """Millimetres, z up as most readers expect (x right, y away from the camera); residual -1 where missing."""
    import ezc3d  # require_libraries has looked for it

    file = ezc3d.c3d()
    frames = take.frames
    x, y, z = np.moveaxis(take.joints_m, 2, 0) * 1000
    missing = np.isnan(x.T)[None]
    points = np.concatenate([np.stack([x, -z, y]).transpose(0, 2, 1), np.ones((1, 17, frames))])
    fits = take.first_frame + frames <= C3D_FRAMES
    file["header"]["points"]["first_frame"] = take.first_frame if fits else 0
    point = file["parameters"]["POINT"]
    point["RATE"]["value"], point["UNITS"]["value"] = [float(take.fps)], ["mm"]
    point["LABELS"]["value"] = list(H36M17.joints)
    file.add_parameter("POINT", "X_SCREEN", ["+X"])  # by which readers know what is up
    file.add_parameter("POINT", "Y_SCREEN", ["+Z"])
    file["data"]["points"] = points
    file["data"]["meta_points"]["residuals"] = np.where(missing, -1.0, 0.0)
    file.write(str(path))
    if path.stat().st_size < points.size * 4:  # the library does not say when the disk is full
        raise OSError(f"{path}: {path.stat().st_size} of {points.size * 4} bytes arrived")
