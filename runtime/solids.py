"""People as solids for 3D scenes: a ball for each joint and a tube for each bone, in the colours of the overlay."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8, UInt32

from poseda_deploy.skeleton import H36M17

from .draw import BONE_WIDTH_M, HEAD_RADIUS_M, DrawnPerson, seen_or_spanned, tint

Array = np.ndarray
WIDER, UNSEEN = 1.3, 0.4  # than on the overlay, which shows people larger; of what the detector did not see
PARTS = {"balls": 17, "tubes": len(H36M17.edges)}
"""Of a person."""
_HEAD = H36M17.index("head")
_PARENT, _CHILD = np.array(H36M17.edges).T


@dataclass(frozen=True)
class Instances:
    """Copies of one mesh: how each is turned, moved, stretched and coloured (red, green, blue)."""

    wxyzs: Float[Array, "n 4"]
    positions: Float[Array, "n 3"]
    scales: Float[Array, "n 3"]
    colors: UInt8[Array, "n 3"]


def solids(person: DrawnPerson, xyz_m: Float[Array, "17 3"]) -> dict[str, Instances]:
    """A ball for each joint and a tube for each bone, world axes; what the detector did not see is thin."""
    rgb = np.array([tint(joint, person.hue)[::-1] for joint in range(17)], np.uint8)
    seen = np.where(seen_or_spanned(person.score), WIDER, WIDER * UNSEEN)
    radius_m = np.where(np.arange(17) == _HEAD, HEAD_RADIUS_M, 0.75 * BONE_WIDTH_M) * seen
    along_m = xyz_m[_CHILD] - xyz_m[_PARENT]
    width_m = 0.5 * BONE_WIDTH_M * np.minimum(seen[_CHILD], seen[_PARENT])
    return {
        "balls": Instances(np.tile((1.0, 0, 0, 0), (17, 1)), xyz_m, np.repeat(radius_m[:, None], 3, 1), rgb),
        "tubes": Instances(
            from_z(along_m),
            (xyz_m[_PARENT] + xyz_m[_CHILD]) / 2,
            np.stack([width_m, width_m, np.linalg.norm(along_m, axis=-1)], -1),
            rgb[_CHILD],
        ),
    }


def from_z(along: Float[Array, "n 3"]) -> Float[Array, "n 4"]:
    """Quaternions w, x, y, z of the shortest turn from the z axis to each direction."""
    unit = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
    half = np.stack([1 + unit[:, 2], -unit[:, 1], unit[:, 0], np.zeros(len(unit))], -1)
    half[half[:, 0] < 1e-6] = (0, 1, 0, 0)  # straight down: about x
    return half / np.linalg.norm(half, axis=-1, keepdims=True)


def shapes() -> dict[str, tuple[Float[Array, "v 3"], UInt32[Array, "f 3"]]]:
    """(vertices, faces) of the ball and of the tube (along z), radius and length 1."""
    from trimesh.creation import cylinder, icosphere

    meshes = {"balls": icosphere(subdivisions=2), "tubes": cylinder(radius=1, height=1, sections=16)}
    return {name: (np.array(m.vertices, np.float32), np.array(m.faces, np.uint32)) for name, m in meshes.items()}
