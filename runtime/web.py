"""--web PORT: a page that shows the run live: the picture with 2D skeletons beside the people in 3D, to turn and zoom.

Served by viser (nerfstudio, Apache-2.0) on this machine alone unless a host is named. A page shows the newest frame, at
most ten times a second; while nobody watches nothing is painted.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from html import escape
from threading import Event, Thread
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.opencv import cv2
from poseda_deploy.poses import PosedFrame
from poseda_deploy.terminal import say

from .draw import (
    EYE_HEIGHT_M,
    LEFT,
    RIGHT,
    DrawnPerson,
    Scene,
    draw_flat,
    drawn,
    shrink,
    world_axes,
)
from .network import LOCAL_PAGES, LOOPBACK
from .solids import PARTS, Instances, shapes, solids
from .video import Frame

Array = np.ndarray
PERIOD_S = 0.1
PICTURE_WH_PX, JPEG_QUALITY = (576, 520), 80  # at most; leaves room for the figures under it and for the 3D view
PANEL_PX = 24, 380  # wider than the picture, and at least
VIEW_RAD = 0.6  # across the height; Scene places its eye for 0.38, without room for the camera
GREY = (150, 154, 160)


@dataclass(frozen=True)
class PageFacts:
    """What a run says of itself beside its people; asked for while somebody watches."""

    up: Float[Array, "3"] = field(default_factory=lambda: np.zeros(3))
    """Pointing up in camera axes; zeros = unknown: as the picture."""
    age_ms: float | None = None
    """Of the newest frame, from capture to pose."""
    dropped: int = 0
    """Frames of a live source that were left out."""
    stages_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """As of StageClock.percentiles_ms."""


class WebPage:
    """A sink: takes every frame at once, shows the newest. `port` 0 is any free one; `url` says which."""

    def __init__(
        self, port: int, camera: Camera, facts: Callable[[], PageFacts] = PageFacts, host: str = "127.0.0.1"
    ) -> None:
        self._camera, self._facts, self._place = camera, facts, (host, port)
        self.url = ""
        """Where the page is, once it is entered."""
        self._newest: tuple[Frame, PosedFrame] | None = None
        self._news, self._stop = Event(), Event()
        self.shown = 0
        """Frames painted so far."""

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Remember the frame; what was not yet shown is forgotten."""
        self._newest = (frame, people)
        self._news.set()

    def _work(self) -> None:
        try:
            while self._news.wait() and not self._stop.is_set():
                self._news.clear()
                if self._newest is not None and self._server.get_clients():
                    self._stage.show(*self._newest, self._facts())
                    self.shown += 1
                self._stop.wait(PERIOD_S)
        except Exception as error:  # a visitor's browser must not be able to end the run
            say(f"the page at {self.url} stopped, the run goes on: {type(error).__name__}: {error}")

    def __enter__(self) -> "WebPage":
        self._server = _serve(*self._place)
        self.url = f"http://{self._place[0]}:{self._server.get_port()}"
        self._stage = _Stage(self._server, self._camera)
        self._server.on_client_connect(lambda _: self._news.set())
        self._thread = Thread(target=self._work, name="web-page", daemon=True)
        self._thread.start()
        say(f"live page: {self.url}")
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join()
        self._server.stop()
        _console().quiet = False


class _Stage:
    """What is on the page, and how it is brought up to date."""

    def __init__(self, server: Any, camera: Camera) -> None:
        self._server, self._scene = server, Scene()
        self._looking: set[int] = set()  # clients that were shown where the people are
        self._picture_wh = _fitted(camera.size_wh)
        self._lay_panel(server.gui)
        self._frustum = _lay_scene(server.scene, camera)
        self._shapes, self._people = shapes(), 0
        self._grow(2)

    def _lay_panel(self, gui: Any) -> None:
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        gui.set_panel_label("PoseDA Deploy")
        gui.main_panel.dock_left()
        gui.main_panel.set_width(max(self._picture_wh[0] + PANEL_PX[0], PANEL_PX[1]))
        blank = np.zeros((*self._picture_wh[::-1], 3), np.uint8)
        self._picture = gui.add_image(blank, format="jpeg", jpeg_quality=JPEG_QUALITY)
        self._text = gui.add_html("")

    def _grow(self, people: int) -> None:
        """Room for so many people; what is free has no size."""
        self._people = people
        self._meshes = {
            name: self._server.scene.add_batched_meshes_simple(
                f"/people/{name}",
                *self._shapes[name],
                batched_wxyzs=np.tile((1.0, 0, 0, 0), (people * parts, 1)),
                batched_positions=np.zeros((people * parts, 3)),
                batched_scales=np.zeros((people * parts, 3)),
                batched_colors=np.zeros((people * parts, 3), np.uint8),
                lod="off",
            )
            for name, parts in PARTS.items()
        }

    def show(self, frame: Frame, people: PosedFrame, facts: PageFacts) -> None:
        """Bring everything on the page to this frame."""
        figures = drawn(people)
        placed = [person for person in figures if person.is_placed]
        axes = world_axes(np.asarray(facts.up, float))
        self._scene.follow([(person.pose_m + person.root_m) @ axes.T for person in placed])
        if len(placed) > self._people:
            self._grow(2 * len(placed))
        turn = axes[[0, 2, 1]]  # right, forward, up
        lift_m = np.array([0, 0, -self._scene.floor_m])
        with self._server.atomic():
            self._picture.image = self._painted(frame, figures)
            self._text.content = _told(frame, placed, facts)
            self._frustum.wxyz, self._frustum.position = _viser().transforms.SO3.from_matrix(turn).wxyz, lift_m
            self._place([solids(person, (person.pose_m + person.root_m) @ turn.T + lift_m) for person in placed])
            self._point_cameras(bool(placed))

    def _place(self, people: Sequence[Mapping[str, Instances]]) -> None:
        for name, mesh in self._meshes.items():
            for key in ("wxyzs", "positions", "scales", "colors"):
                filled = np.zeros_like(getattr(mesh, f"batched_{key}"))
                filled[:, 0] = key == "wxyzs"  # a turn of nothing
                for i, person in enumerate(people):
                    filled[i * PARTS[name] : (i + 1) * PARTS[name]] = getattr(person[name], key)
                setattr(mesh, f"batched_{key}", filled)

    def _point_cameras(self, someone: bool) -> None:
        """Show each new client where the people are, once; then the view is his own."""
        if not someone:
            return
        view = self._scene.view(1)
        floor_m = np.array([0, self._scene.floor_m, 0])
        target_m = np.array([self._scene.centre_m[0], EYE_HEIGHT_M, self._scene.centre_m[1]])
        for client_id, client in self._server.get_clients().items():
            if client_id not in self._looking:
                self._looking.add(client_id)
                with suppress(ValueError):  # it looks from a point at the same point
                    client.camera.fov = VIEW_RAD
                    client.camera.position = (view.eye_m - floor_m)[[0, 2, 1]]
                    client.camera.look_at = target_m[[0, 2, 1]]

    def _painted(self, frame: Frame, people: Sequence[DrawnPerson]) -> UInt8[Array, "_ _ 3"]:
        """Red, green, blue, small."""
        picture = np.empty((*self._picture_wh[::-1], 3), np.uint8)
        shrink(frame.bgr, picture)
        for person in people:
            draw_flat(picture, person, self._picture_wh[1] / frame.bgr.shape[0])
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _lay_scene(scene: Any, camera: Camera) -> Any:
    """The floor, the light, and the filming camera, which is given back."""
    scene.configure_environment_map("city", environment_intensity=0.35)
    scene.add_grid(
        "/floor",
        infinite_grid=True,
        cell_size=1.0,
        section_size=5.0,
        cell_color=(78, 82, 89),
        section_color=(116, 121, 130),
        fade_distance=60.0,
        shadow_opacity=0.6,
        plane_color=(44, 47, 52),
        plane_opacity=1.0,
    )
    across, down = camera.pyramid
    fov_rad, aspect = 2 * float(np.arctan(down)), across / down
    size = {"scale": 0.28, "thickness": 0.01}
    return scene.add_camera_frustum("/camera", fov=fov_rad, aspect=aspect, color=GREY, cast_shadow=False, **size)


def _fitted(size_wh: tuple[int, int]) -> tuple[int, int]:
    """That shape, shrunk until it fits."""
    share = min(1.0, *np.divide(PICTURE_WH_PX, size_wh))
    return max(1, round(size_wh[0] * share)), max(1, round(size_wh[1] * share))


def _told(frame: Frame, people: Sequence[DrawnPerson], facts: PageFacts) -> str:
    """The text under the picture: whose colour is whose, how old the frame is, how long each stage takes."""
    who = "".join(
        f'<span style="color:rgb{person.hue[::-1]}">&#9679;</span> {np.linalg.norm(person.root_m):.2f} m &ensp;'
        for person in people
    )
    sides = f'<span style="color:rgb{LEFT[::-1]}">left</span> <span style="color:rgb{RIGHT[::-1]}">right</span>'
    age = "" if facts.age_ms is None else f"{facts.age_ms:.0f} ms from capture to pose &ensp;"
    dropped = f"{facts.dropped} frames dropped" if facts.dropped else ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{value:.1f}</td>" for value in times.values()) + "</tr>"
        for name, times in facts.stages_ms.items()
    )
    heads = next(iter(facts.stages_ms.values()), {})
    head = "<tr><td>ms</td>" + "".join(f"<td>{escape(name)}</td>" for name in heads) + "</tr>"
    return (
        f"<style>{_STYLE}</style><div class=poseda><p><b>{who or 'nobody'}</b><i>{sides}</i></p>"
        f"<p>{frame.time_s:.2f} s &ensp; frame {frame.index} &ensp; {age}{dropped}</p>"
        + (f"<table>{head}{rows}</table>" if rows else "")
        + "<p class=hint>Drag to turn, scroll to zoom, right-drag to move. One square is one metre.</p></div>"
    )


_STYLE = """
.poseda{padding:4px 14px;font:13px system-ui,sans-serif;color:#c6cad0;font-variant-numeric:tabular-nums}
.poseda p{margin:6px 0}.poseda b{font-size:20px;font-weight:500;color:#f0f2f4}.poseda i{float:right;font-style:normal}
.poseda table{border-spacing:0;margin-top:8px}.poseda td{padding:1px 18px 1px 0;text-align:right}
.poseda .hint{margin-top:14px;color:#868c96}
.poseda td:first-child{text-align:left}.poseda tr:first-child td{color:#868c96}
"""


def _serve(host: str, port: int) -> Any:
    """A viser server there and nowhere else (viser would take another port, or wait forever), and silent."""
    _require_free(host, port)
    viser = _viser()
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    _console().quiet = True  # what viser prints would be on stdout, where --json is
    with _own_pages_only(host):
        server = viser.ViserServer(host=host, port=port, verbose=False)
    server.request_share_url = lambda: None  # any visitor could ask for a public tunnel to the camera
    if port and server.get_port() != port:
        server.stop()
        raise _taken(host, port, "somebody took it just now")
    return server


def _require_free(host: str, port: int) -> None:
    if not 0 <= port < 1 << 16:  # getaddrinfo would take it modulo 65536
        raise _taken(host, port, "a port is 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _taken(host, port, error.strerror or str(error)) from error


def _taken(host: str, port: int, why: str) -> InputError:
    return InputError(f"--web {port}: cannot serve a page at {host}:{port} ({why})", hint="--web 0 takes a free port")


@contextmanager
def _own_pages_only(host: str) -> Iterator[None]:
    """viser does not ask where a connection comes from; `websockets`, which serves it, can."""
    import websockets.asyncio.server as server

    serve = server.serve
    if host in LOOPBACK:
        server.serve = partial(serve, origins=[LOCAL_PAGES, None])  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        server.serve = serve  # type: ignore[misc]


def _viser() -> Any:
    try:
        import viser
        import viser.transforms
    except ImportError as error:
        raise MissingDependency("viser is not installed", hint="pip install 'poseda-deploy[live]'") from error
    return viser


def _console() -> Any:
    """The console that viser prints on; ours are others."""
    import rich

    return rich.get_console()
