"""Left and right put back where a detector takes one for the other for some frames.

Legs and arms each have two readings: as seen, and with left and right exchanged; so a person has four. Each pair of
joints is a vector from right to left, and a change of reading turns these vectors about. Going on from one frame to the
next with vectors turned about costs up to 1 for the legs and 1 for the arms, the readings themselves cost RATE_PER_S,
and the cheapest sequence is taken (Viterbi, "Error bounds for convolutional codes", 1967): it calls the minority wrong,
and gives in to what stays. Seen from the side the vectors are short and nothing is certain: legs that cross, and people
who turn round, stay as they were seen.

MediaPipe full exchanged a man in 28 of 100 frames of one video, 1 to 17 in a row; all are put back, live too. Whoever
is exchanged most of the time cannot be: 58 of 100 frames with lite, 47 afterwards.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy.skeleton import H36M17

_READINGS = np.array([[False, False], [True, False], [False, True], [True, True]])  # legs, arms exchanged
_CHANGES = _READINGS[:, None] != _READINGS
RATE_PER_S = np.array([0.0, 6.0, 6.0, 4.0])
"""Of each reading. A whole person's run below a second is undone in a clip; live, one is believed after half a second.

As seen is free. Legs or arms alone are dearer: they cross by themselves, and at 10 fps that can look like an exchange.
"""
CERTAIN = 0.1
"""Sum over a group's squared vectors, in units of the person's box, from which a change of reading costs 1."""
CERTAIN_PER_S = 3.0
"""It is at least so many times the time between frames: at 10 fps dancers had 0.16 % wrongly exchanged, not 0.45."""
_FIRST_COSTS = 0.1 * RATE_PER_S  # without, a clip that begins with legs about to cross began with them exchanged
MEMORY_S = 0.5
"""Live, nobody is remembered for longer: as seen has become the cheapest again by then."""
_Known = tuple[float, Float[np.ndarray, "4"], Float[np.ndarray, "2 3 2"]]
"""When a person was last seen, what each reading costs since, and the vectors of then as seen."""
_LEGS = np.array([joint.split("_")[-1] in ("hip", "knee", "ankle") for joint in H36M17.joints])
_LEFT = [H36M17.index(f"left_{j}") for j in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
_RIGHT = [H36M17.mirror[joint] for joint in _LEFT]


class LiveSides:
    """Decides in every frame, knowing the past only; remembers the people of the last MEMORY_S."""

    def __init__(self) -> None:
        self._people: dict[int, _Known] = {}

    def step(
        self,
        time_s: float,
        identity: Int[np.ndarray, " p"],
        xy_px: Float[np.ndarray, "p 17 2"],
        score: Float[np.ndarray, "p 17"],
    ) -> Bool[np.ndarray, "p 2"]:
        """Whose legs, whose arms are exchanged; each identity once (-1 = nobody), `time_s` increases."""
        self._people = {who: known for who, known in self._people.items() if time_s - known[0] <= MEMORY_S}
        swapped = np.zeros((len(identity), 2), bool)
        for i, (who, now) in enumerate(zip(identity.tolist(), _widths(xy_px, score), strict=True)):
            if who >= 0:
                last_s, costs, before = self._people.get(who, (time_s, _FIRST_COSTS, now))
                gap_s = max(time_s - last_s, 0.0)
                costs, _ = _step(costs, _change(before, now, np.array(gap_s)), gap_s)
                self._people[who] = time_s, costs, now
                swapped[i] = _READINGS[costs.argmin()]
        return swapped


def swapped_sides(
    time_s: Float[np.ndarray, " t"],
    identity: Int[np.ndarray, "t p"],
    xy_px: Float[np.ndarray, "t p 17 2"],
    score: Float[np.ndarray, "t p 17"],
) -> Bool[np.ndarray, "t p 2"]:
    """Whose legs, whose arms are exchanged when; as `LiveSides`, but knowing the whole clip."""
    swapped = np.zeros((*identity.shape, 2), bool)
    for who in np.unique(identity[identity >= 0]):
        frame, slot = np.nonzero(identity == who)
        swapped[frame, slot] = _READINGS[_cheapest(time_s[frame], _widths(xy_px[frame, slot], score[frame, slot]))]
    return swapped


def with_sides(
    rows: Float[np.ndarray, "*batch 17 d"], swapped: Bool[np.ndarray, "*batch 2"]
) -> Float[np.ndarray, "*batch 17 d"]:
    """The rows with left and right exchanged back where legs or arms are swapped."""
    joints = np.where(_LEGS, swapped[..., :1], swapped[..., 1:])
    return np.where(joints[..., None], rows[..., H36M17.mirror, :], rows)


def with_sides_put_back(
    keypoints: Float[np.ndarray, "t p 17 3"], time_s: Float[np.ndarray, " t"], identity: Int[np.ndarray, "t p"]
) -> Float[np.ndarray, "t p 17 3"]:
    """The lifter's input with what `swapped_sides` finds in it undone."""
    return with_sides(keypoints, swapped_sides(time_s, identity, keypoints[..., :2], keypoints[..., 2]))


def box_px2(xy_px: Float[np.ndarray, "n 17 2"], seen: Bool[np.ndarray, "n 17"]) -> Float[np.ndarray, " n"]:
    """Area of the keypoints' box, no side below a third of the other: seen from the side, a person is not a line."""
    low = np.where(seen[..., None], xy_px, np.inf).min(1)
    high = np.where(seen[..., None], xy_px, -np.inf).max(1)
    side_px = np.sort(high - low, axis=-1)
    return np.maximum(np.maximum(side_px[:, 0], side_px[:, 1] / 3) * side_px[:, 1], 1.0)


def _widths(xy_px: Float[np.ndarray, "n 17 2"], score: Float[np.ndarray, "n 17"]) -> Float[np.ndarray, "n 2 3 2"]:
    """From right to left, of legs and arms, in units of the root of the person's box; 0 where either is missing."""
    seen = score > 0
    both = (seen[:, _LEFT] & seen[:, _RIGHT])[..., None]
    width = (xy_px[:, _LEFT] - xy_px[:, _RIGHT]) * both / np.sqrt(box_px2(xy_px, seen))[:, None, None]
    return width.reshape(-1, 2, 3, 2)


def _change(
    before: Float[np.ndarray, "*n 2 3 2"], now: Float[np.ndarray, "*n 2 3 2"], gap_s: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n 2"]:
    """Of legs and arms: 1 = the reading has changed between the two, -1 = it has not, 0 = who knows.

    |a - b|^2 - |a + b|^2 is -4 a b.
    """
    certain = np.maximum(CERTAIN, CERTAIN_PER_S * gap_s)[..., None]
    return np.clip(-(before * now).sum((-2, -1)) / certain, -1, 1)


def _step(
    costs: Float[np.ndarray, "4"], change: Float[np.ndarray, "2"], gap_s: float
) -> tuple[Float[np.ndarray, "4"], Int[np.ndarray, "4"]]:
    """What it costs to end with each reading one frame on, the least 0, and the reading each comes from."""
    ways = costs[:, None] + np.where(_CHANGES, np.maximum(-change, 0), np.maximum(change, 0)).sum(-1)
    ended = ways.min(0) + RATE_PER_S * gap_s
    return ended - ended.min(), ways.argmin(0)


def _cheapest(time_s: Float[np.ndarray, " n"], width: Float[np.ndarray, "n 2 3 2"]) -> Int[np.ndarray, " n"]:
    """Readings of one person: forward the costs, backward the choices they leave."""
    gap_s = np.diff(time_s)
    costs, whence = _FIRST_COSTS, []
    for change, gap in zip(_change(width[:-1], width[1:], gap_s), gap_s.tolist(), strict=True):
        costs, came_from = _step(costs, change, gap)
        whence.append(came_from)
    readings = [int(costs.argmin())]
    for came_from in reversed(whence):
        readings.append(int(came_from[readings[-1]]))
    return np.array(readings[::-1])
