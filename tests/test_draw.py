"""The overlay: colours on the right joints, a panel that stands upright, and nothing that upsets it."""

from dataclasses import replace

import numpy as np
import pytest

from poseda_deploy.runtime.draw import LEFT, RIGHT, DrawnPerson, OverlayPainter, Scene, View, world_axes
from poseda_deploy.skeleton import H36M17

WH = (640, 480)
K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
LEVEL = np.array([0.0, -1.0, 0.0])
STANDING_M = {  # right, up, towards the camera's back; facing the camera, so its left is at the picture's right
    **{
        "pelvis": (0, 0.95, 0),
        "spine": (0, 1.2, 0),
        "thorax": (0, 1.45, 0),
        "neck": (0, 1.55, 0),
        "head": (0, 1.68, 0),
    },
    **{"left_hip": (0.13, 0.95, 0), "left_knee": (0.15, 0.5, 0), "left_ankle": (0.16, 0.08, 0)},
    **{"right_hip": (-0.13, 0.95, 0), "right_knee": (-0.15, 0.5, 0), "right_ankle": (-0.16, 0.08, 0)},
    **{"left_shoulder": (0.2, 1.45, 0), "left_elbow": (0.45, 1.4, 0), "left_wrist": (0.7, 1.4, 0)},
    **{"right_shoulder": (-0.2, 1.45, 0), "right_elbow": (-0.45, 1.4, 0), "right_wrist": (-0.7, 1.4, 0)},
}


def roll(turn_deg: float) -> np.ndarray:
    """World (right, up, forward of a level camera) to camera axes, for one rolled about its optical axis."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ np.diag([1.0, -1.0, 1.0])


def standing(
    at_m: tuple[float, float, float] = (0, -1.0, 4.0), to_camera: np.ndarray | None = None, number: int = 0
) -> DrawnPerson:
    """A person with feet at `at_m` (right, up, forward), seen by all the detector's joints."""
    world_m = np.array([STANDING_M[joint] for joint in H36M17.joints]) + at_m
    xyz_m = world_m @ (roll(0) if to_camera is None else to_camera).T
    xy_px = (xyz_m @ K.T)[:, :2] / xyz_m[:, 2:]
    score = np.where([joint in ("spine", "neck") for joint in H36M17.joints], 0.0, 0.9)
    return DrawnPerson(number, xy_px, score, xyz_m - xyz_m[0], xyz_m[0])


def paint(*people: DrawnPerson, up: np.ndarray = LEVEL, frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Picture and panel of the last of several equal frames."""
    painter = OverlayPainter(WH, up)
    for index in range(frames):
        canvas = painter.paint(np.full((WH[1], WH[0], 3), 90, np.uint8), people, index / 30)
    return canvas[:, : WH[0]], canvas[:, WH[0] :]


def is_hue(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the colour is, shaded or not, by its chroma."""
    bgr, like = image.astype(float), np.array(colour, float)
    chroma, wanted = bgr - bgr.mean(-1, keepdims=True), like - like.mean()
    along = np.asarray(chroma @ wanted) / np.linalg.norm(wanted)
    return (along > 0.4 * np.linalg.norm(wanted)) & (along > 0.9 * np.linalg.norm(chroma, axis=-1))


def where(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean x, y of a colour."""
    y, x = np.nonzero(is_hue(image, colour))
    return np.array([x.mean(), y.mean()])


def test_left_and_right_lie_on_their_joints() -> None:
    person = standing()
    picture, _ = paint(person)
    for joint, colour in (("left", LEFT), ("right", RIGHT)):
        for part in ("knee", "ankle", "shoulder", "elbow", "wrist"):
            x, y = person.xy_px[H36M17.index(f"{joint}_{part}")].round().astype(int)
            assert tuple(picture[y, x]) == colour
    x, y = person.xy_px[[H36M17.index("pelvis"), H36M17.index("thorax")]].mean(0).round().astype(int)
    assert picture[y, x].min() > 200  # the trunk passes the missing spine


def test_a_large_picture_is_shrunk_and_so_are_its_keypoints() -> None:
    painter = OverlayPainter((1081, 1920), LEVEL)
    assert painter.canvas_size_wh == (406 + 720, 720)
    person = standing()
    person = replace(person, xy_px=person.xy_px * 2 + [0, 700])
    canvas = painter.paint(np.full((1920, 1081, 3), 90, np.uint8), [person])
    assert canvas.shape == (720, 1126, 3)
    x, y = (person.xy_px[H36M17.index("left_knee")] * 720 / 1920).round().astype(int)
    assert tuple(canvas[y, x]) == LEFT


@pytest.mark.parametrize("size_wh", [(640, 480), (641, 479), (64, 48), (1280, 720), (720, 1280), (3840, 2160)])
def test_the_canvas_is_even_and_as_announced(size_wh: tuple[int, int]) -> None:
    painter = OverlayPainter(size_wh, LEVEL)
    canvas = painter.paint(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), [standing()], 0.5)
    width, height = painter.canvas_size_wh
    assert canvas.shape == (height, width, 3)
    assert (width % 2, height % 2, height) == (0, 0, min(size_wh[1], 720) // 2 * 2)


def test_unseen_joints_are_left_out_of_the_picture_and_hollow_in_the_panel() -> None:
    person = standing()
    score = person.score.copy()
    score[[H36M17.index("left_elbow"), H36M17.index("left_wrist")]] = 0
    xy_px = person.xy_px.copy()
    xy_px[score == 0] = np.nan
    (picture, panel), (whole_picture, whole_panel) = paint(replace(person, score=score, xy_px=xy_px)), paint(person)
    x, y = person.xy_px[H36M17.index("left_wrist")].round().astype(int)
    assert tuple(whole_picture[y, x]) == LEFT
    assert tuple(picture[y, x]) == (90, 90, 90)
    assert 0 < is_hue(panel, LEFT).sum() < is_hue(whole_panel, LEFT).sum()


def test_the_panel_shows_the_person_upright_and_not_mirrored() -> None:
    _, panel = paint(standing())
    panel = panel[40:450]  # without captions
    assert where(panel, LEFT)[0] > where(panel, RIGHT)[0] + 30
    assert abs(where(panel, LEFT)[1] - where(panel, RIGHT)[1]) < 40
    bright = np.argwhere(panel.min(-1) > 150)  # head and trunk
    assert bright[:, 0].std() > 3 * bright[:, 1].std()


@pytest.mark.parametrize("turn_deg", [-90, -20, 35, 180])
def test_a_rolled_camera_gives_the_same_panel(turn_deg: float) -> None:
    level = paint(standing())[1].astype(int)
    turned = roll(turn_deg)
    rolled = paint(standing(to_camera=turned), up=turned @ [0, 1, 0])[1].astype(int)
    assert np.abs(rolled - level).mean() < 0.3
    ignored = paint(standing(to_camera=turned))[1].astype(int)
    assert np.abs(ignored - level).mean() > 2


def test_the_filming_camera_is_drawn_as_it_is_held() -> None:
    def panel(to_camera: np.ndarray) -> np.ndarray:
        people = standing((-1.2, -1.3, 2.5), to_camera), standing((1.4, -1.3, 3.2), to_camera)
        return paint(*people, up=to_camera @ [0, 1, 0])[1].astype(int)

    differs = np.abs(panel(roll(40)) - panel(roll(0))).max(-1) > 60
    y, x = np.nonzero(differs)
    assert len(x) > 20 and x.max() < 70 and y.min() > 200 and y.max() < 320


@pytest.mark.parametrize("up", [(0, 0, 0), (np.nan, 0, 0), (0, -2, 0)])
def test_unknown_up_is_the_pictures(up: tuple[float, float, float]) -> None:
    assert np.array_equal(world_axes(np.array(up, float)), np.diag([1.0, -1.0, 1.0]))


@pytest.mark.parametrize("up", [(0, 0, -1), (0, 0, 1), (0.1, -0.7, 0.7), (-1, 0.01, 0.02)])
def test_world_axes_are_orthonormal_for_any_camera(up: tuple[float, float, float]) -> None:
    axes = world_axes(np.array(up, float))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes[1], np.array(up) / np.linalg.norm(up), atol=1e-12)


def test_looking_straight_down_or_up_keeps_the_pictures_right() -> None:
    for up_z in (-1, 1):
        np.testing.assert_allclose(world_axes(np.array([0.0, 0.0, up_z]))[0], [1, 0, 0], atol=1e-12)


def joints_m(person: DrawnPerson) -> np.ndarray:
    """In world axes."""
    return (person.pose_m + person.root_m) @ world_axes(LEVEL).T


def test_the_floor_is_at_the_soles_and_ignores_a_jump_and_an_outlier() -> None:
    scene = Scene()
    scene.follow([joints_m(standing())])
    assert scene.floor_m == pytest.approx(-1)  # the sole, 8 cm under the ankle
    for index in range(60):
        outlier_m = -3.0 if index == 20 else 0.0
        scene.follow([joints_m(standing((0, -1 + max(0, np.sin(index / 4)) * 0.4 + outlier_m, 4)))])
    assert scene.floor_m == pytest.approx(-1, abs=0.03)
    for _ in range(150):
        scene.follow([joints_m(standing((0, -0.5, 4)))])
    assert scene.floor_m == pytest.approx(-0.5, abs=0.01)  # somewhere else


def test_the_floor_is_drawn_below_the_feet() -> None:
    scene = Scene()
    xyz_m = joints_m(standing())
    scene.follow([xyz_m])
    view = scene.view(480)
    feet_px, _ = view.project(xyz_m[[H36M17.index("left_ankle"), H36M17.index("right_ankle")]])
    soles_px, _ = view.project(np.array([[0.16, scene.floor_m, 4], [-0.16, scene.floor_m, 4]]))
    assert ((soles_px - feet_px)[:, 1] > 3).all()
    assert ((soles_px > 0) & (soles_px < 480)).all()


def test_the_view_follows_slowly_and_widens_for_two() -> None:
    scene = Scene()
    scene.follow([joints_m(standing((0, -1, 4)))])
    np.testing.assert_allclose(scene.centre_m, [0, 4])
    scene.follow([joints_m(standing((1, -1, 4)))])
    assert 0 < scene.centre_m[0] < 0.1
    alone_m = scene.span_m
    for _ in range(200):
        scene.follow([joints_m(standing((-2, -1, 4))), joints_m(standing((2, -1, 7)))])
    np.testing.assert_allclose(scene.centre_m, [0, 5.5], atol=0.01)
    assert scene.span_m > alone_m + 1


def test_the_view_is_a_camera_from_the_right_and_above() -> None:
    view: View = Scene().view(720)
    np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
    centre_px, depth_m = view.project(np.array([[0.0, 0.88, 3.0], [0.0, 1.88, 3.0], [0.0, 0.88, 4.0]]))
    np.testing.assert_allclose(centre_px[0], [360, 360], atol=1e-9)
    assert centre_px[1, 1] < 200 and centre_px[1, 0] == pytest.approx(360)  # up is up
    assert centre_px[2, 0] > 380 and centre_px[2, 1] < 350 and depth_m[2] > depth_m[0]  # far is right, above, deep


def test_the_nearer_person_covers_the_farther() -> None:
    behind, before = standing((0, -1, 6), number=1), standing((0, -1, 5.98), number=2)
    for people in ([behind, before], [before, behind]):
        _, panel = paint(*people)
        assert is_hue(panel[60:], before.hue).sum() > 2 * is_hue(panel[60:], behind.hue).sum()


def test_captions_name_distance_and_time() -> None:
    person = standing()
    painter = OverlayPainter(WH, LEVEL)
    bgr = np.zeros((WH[1], WH[0], 3), np.uint8)
    header = [painter.paint(bgr, people, time_s)[:35, WH[0] :] for people, time_s in (([], None), ([person], 2.5))]
    half = header[0].shape[1] // 2
    assert (header[0] < 60).all()
    assert (header[1][:, :half] > 150).any() and (header[1][:, half:] > 120).any()


def test_what_can_go_wrong_does_not() -> None:
    person = standing()
    nobody_seen = replace(person, score=np.zeros(17), xy_px=np.full((17, 2), np.nan))
    unplaced = replace(person, pose_m=np.full((17, 3), np.nan))
    near = replace(person, root_m=np.array([0.0, 0.0, 0.01]))
    behind = replace(person, root_m=np.array([0.5, 0.0, -3.0]))
    runaway = replace(person, root_m=np.array([1e9, 0.0, 1e12]), xy_px=person.xy_px * 1e9)
    single = replace(person, score=np.eye(17)[3])
    painter = OverlayPainter(WH, np.zeros(3))
    for people in ([], [nobody_seen], [unplaced], [near], [behind], [runaway], [single], [], [person] * 9):
        frame = np.zeros((WH[1], WH[0], 3), np.uint8)
        frame.flags.writeable = False
        painter.paint(frame, people, 1e5)
    for far_m in (30, 60, 90, -90):
        painter.paint(frame, [person, replace(person, root_m=np.array([0.0, 0.0, far_m]))])


def test_frames_do_not_share_memory() -> None:
    painter = OverlayPainter(WH, LEVEL)
    bgr = np.zeros((WH[1], WH[0], 3), np.uint8)
    one = painter.paint(bgr, [standing()])
    kept = one.copy()
    assert not np.shares_memory(one, painter.paint(bgr, []))
    assert np.array_equal(one, kept) and not bgr.any()
