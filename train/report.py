"""The adaptation report: one HTML file with its pictures inside, for people who would rather look."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.calibrate import tiled
from poseda_deploy.model import Lifter
from poseda_deploy.skeleton import BONES, H36M17

from .adapt import Adapted
from .lifting import lift_of
from .loop import DRAW
from .picture import loss_picture, png
from .target2d import Target2D

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}
img{max-width:100%}.verdict{font-size:1.4rem;font-weight:600}"""
SHOWN = 4


def report_html(targets: Sequence[Target2D], adapted: Adapted, summary: Mapping[str, Any]) -> bytes:
    """Verdict, calibration, and what the lifter makes of held-out frames."""
    parts = [
        "<h1>Adaptation report</h1>",
        f'<p class="verdict">{html.escape(headline(summary))}</p>',
        f"<p>{html.escape(MEANING[summary['verdict']])}</p>",
        table(
            ("try", "verdict", "matched error before, after (mm)", "2D residual before, after (%)"),
            [
                (name, one["verdict"], *(" to ".join(map(str, one[key])) for key in ("matched_mm", "residual_percent")))
                for name, one in summary["tries"].items()
            ],
        ),
        "<h2>What the 2D says of each camera</h2>",
        table(
            ("camera", "people seen", "looks down", "rolled", "up known to", "detector noise", "scale from"),
            [camera_row(name, facts) for name, facts in summary["cameras"].items()],
        ),
        "".join(f"<p>Note on {html.escape(t.name)}: {html.escape(w)}.</p>" for t in targets for w in t.warnings),
        "<h2>Held-out frames</h2><p>The 2D that was given, and the person lifted from it, from the camera and from the "
        "left.</p>",
        *(picture(lifted_picture(adapted.lifter, target), target.name) for target in targets),
        *(picture(loss_picture(one.errors_mm, DRAW, f"{one.lpa} augmentation"), "training") for one in adapted.tries),
    ]
    page = f"<!doctype html><meta charset=utf-8><title>Adaptation report</title><style>{STYLE}</style>{''.join(parts)}"
    return page.encode()


MEANING = {
    "better": "On held-out frames of your camera the adapted lifter does better on both signs; it is in the bundle.",
    "worse": "The adapted lifters did worse on held-out frames, so the one that went in stays, calibrated.",
    "cannot tell": "The signs are too close or disagree, so the lifter that went in stays, calibrated.",
    "calibrated only": "Nothing was trained; tilt and bone lengths are calibrated to your camera.",
}


def headline(summary: Mapping[str, Any]) -> str:
    """The verdict in a few words."""
    change = summary["expected_change_mm"]
    return f"{summary['verdict'].capitalize()}: kept {summary['kept']}" + (f", {change:+.1f} mm" if change else "")


def camera_row(name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """One camera's calibration as text."""
    degrees = (f"{facts[key]:g} degrees" for key in ("pitch_deg", "roll_deg", "up_uncertainty_deg"))
    return (name, f"{facts['people_seen']:,}", *degrees, f"{facts['detector_noise_percent']:g} %", facts["scale_from"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Everything escaped."""
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def picture(content: bytes, alt: str) -> str:
    """An image inside the page."""
    return f'<p><img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode()}"></p>'


def lifted_picture(lifter: Lifter, target: Target2D) -> bytes:
    """Some held-out frames: the given 2D, the lifted person from the front and from the left."""
    from matplotlib.figure import Figure

    held = np.flatnonzero(target.held_out)
    rows = held[np.linspace(0, len(held) - 1, SHOWN).astype(int)]
    given = target.keypoints[rows]
    pose_m, _ = lift_of(lifter, target.camera)(given, tiled(target.up, given), target.bones_m[target.person[rows]])
    figure = Figure(figsize=(2.2 * SHOWN, 6), dpi=90, layout="constrained")
    for column, (row, pose) in enumerate(zip(rows, pose_m, strict=True)):
        views = (target.keypoints[row, :, :2], pose[:, :2], pose[:, [2, 1]])
        for line, (title, xy) in enumerate(zip((f"frame {target.frame[row]}", "front", "left"), views, strict=True)):
            axes = figure.add_subplot(3, SHOWN, line * SHOWN + column + 1)
            draw_bones(axes, xy, target.keypoints[row, :, 2] > 0 if line == 0 else np.ones(17, bool))
            axes.set(title=title, aspect="equal")
            axes.invert_yaxis()
            axes.axis("off")
    return png(figure)


def draw_bones(axes: Any, xy: Float[np.ndarray, "17 2"], seen: np.ndarray) -> None:
    """Left blue, right red, trunk black."""
    for bone in BONES:
        if seen[bone.parent] and seen[bone.child]:
            name = H36M17.joints[bone.child]
            colour = "tab:blue" if name.startswith("left") else "tab:red" if name.startswith("right") else "black"
            axes.plot(*xy[[bone.parent, bone.child]].T, color=colour, linewidth=1.5)
