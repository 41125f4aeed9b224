"""A real RTSP server on loopback: GStreamer's, with the Python of Debian (not ours), for benchmarks/live.py rtsp.

    apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{good,bad,ugly} gstreamer1.0-libav
    /usr/bin/python3 benchmarks/rtsp_server.py PORT [VIDEO.mp4 | WIDTHxHEIGHT] [USER:PASSWORD]

Serves rtsp://127.0.0.1:PORT/cam in H.264: the video from its start for every new client, or a test card at 30 fps.
"""

import sys

import gi  # type: ignore[import-not-found]

for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402


def _pictures(what: str) -> str:
    if what.endswith(".mp4"):
        pictures = f"filesrc location={what} ! decodebin ! videoconvert ! videoscale ! video/x-raw,width=960,height=540"
    else:
        width, height = what.split("x")
        pictures = f"videotestsrc is-live=true pattern=smpte ! video/x-raw,width={width},height={height},framerate=30/1"
    return f"{pictures} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96"


def _lock(server: object, factory: object, user: str, password: str) -> None:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)  # type: ignore[attr-defined]
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("access", "construct"):
        permissions.add_permission_for_role("user", f"media.factory.{right}", True)
    factory.set_permissions(permissions)  # type: ignore[attr-defined]


def main() -> None:
    """Serve until killed."""
    port, what, credentials = (sys.argv[1:] + ["640x360", ""][len(sys.argv) - 2 :])[:3]
    Gst.init(None)
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory.set_launch(f"( {_pictures(what)} )")
    if credentials:
        _lock(server, factory, *credentials.split(":"))
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
