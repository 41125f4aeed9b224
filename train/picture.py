"""Pictures of a training, as PNG."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from poseda_deploy.skeleton import BONES, H36M17


def loss_picture(errors_mm: Sequence[float], steps_between: int, title: str) -> bytes:
    """Training error over steps, every value and its running median, log scale."""
    from matplotlib.figure import Figure

    error = np.asarray(errors_mm)
    step = (1 + np.arange(len(error))) * steps_between
    window = max(len(error) // 50, 1)
    middle = [np.median(error[max(i - window, 0) : i + window + 1]) for i in range(len(error))]
    figure = Figure(figsize=(6, 3.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(step, error, ".", markersize=2, alpha=0.3, color="tab:blue")
    axes.plot(step, middle, color="tab:blue")
    axes.set(xlabel="step", ylabel="training error, mm", yscale="log", title=title)
    axes.grid(visible=True, which="both", alpha=0.3)
    return png(figure)


def pose_picture(pose_m: Float[np.ndarray, "n 17 3"], columns: int = 8) -> bytes:
    """Poses (y up) in rows, each from the front, left side blue, right side red, the trunk black."""
    from matplotlib.figure import Figure

    rows = -(-len(pose_m) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.5 * rows), dpi=100, layout="constrained")
    for axes, pose in zip(figure.subplots(rows, columns, squeeze=False).flat, pose_m, strict=False):
        for bone in BONES:
            name = H36M17.joints[bone.child]
            colour = "tab:blue" if name.startswith("left") else "tab:red" if name.startswith("right") else "black"
            ends = pose[[bone.parent, bone.child]]
            axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=1.5)
        axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        axes.axis("off")
    return png(figure)


def png(figure: object) -> bytes:
    """A matplotlib figure as the bytes of a file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")  # type: ignore[attr-defined]
    return stream.getvalue()
