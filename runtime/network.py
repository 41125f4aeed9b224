"""Addresses of cameras on a network: never printed with their credentials, and why one of them gives no picture."""

import hashlib
import re
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from poseda_deploy.errors import InputError

SCHEMES = ("rtsp", "rtsps", "http", "https")
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
PROBE_S = 3.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_PAGES = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
"""Pages that may read what is served on loopback; without this any page open in the same browser could."""
_HIDDEN = "***"
_SHOWN_SCHEMES = (*SCHEMES, "rtmp", "udp", "tcp", "ws")  # anything else may be half of a user name
# Recorders of several makers want them in the path: rtsp://host/user=admin&password=12345&channel=1
_IN_PATH = re.compile(r"\b(user\w*|login|pass\w*|pwd|token|auth\w*|\w*key)=", re.IGNORECASE)
_LIKE_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # but not C:\

Kind = Literal["authentication", "not found", "refused", "time-out", "unknown host", "codec", "protocol", "server"]
_BY_STATUS: dict[int, Kind] = {401: "authentication", 403: "authentication", 404: "not found", 410: "not found"}


@dataclass(frozen=True)
class Address:
    """Where a camera or a video is on the network. As text it has no credentials; only `url` does."""

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = split(self.url)
        if parts is None or parts.scheme not in SCHEMES or not parts.hostname or _is_ambiguous(parts):
            hint = "rtsp://HOST:PORT/PATH or http://HOST:PORT/PATH, with %40 for @ and %2F for / in a password"
            raise InputError(f"{self}: not an address of a video", hint=hint)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def parts(self) -> SplitResult:
        """The address taken apart."""
        return urlsplit(self.url)

    @property
    def host(self) -> tuple[str, int]:
        """Name and port."""
        return self.parts.hostname or "", self.parts.port or PORTS[self.parts.scheme]

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User name and password, decoded."""
        user = self.parts.username
        return None if user is None else (unquote(user), unquote(self.parts.password or ""))

    @property
    def bare(self) -> str:
        """The address as it is named in a request: without credentials before the host."""
        return urlunsplit(self.parts._replace(netloc=self.parts.netloc.rpartition("@")[2]))

    @property
    def place(self) -> str:
        """Host, port and path, as they may be shown."""
        return _place(self.parts)


@dataclass(frozen=True)
class Reason:
    """Why an address gives no picture."""

    kind: Kind
    text: str
    hint: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def split(url: str) -> SplitResult | None:
    """The parts of an address; None where it has none, or a port that is no number."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        return parts
    except ValueError:
        return None


def shown(url: str) -> str:
    """An address for people to read, made of what was understood of it: never credentials, nor a query."""
    parts = split(url)
    if parts is None or parts.scheme not in _SHOWN_SCHEMES or not parts.hostname:
        return "something else"
    if _is_ambiguous(parts):
        return f"{parts.scheme}://{_HIDDEN}"
    query = f"?{_HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{f'{_HIDDEN}@' if '@' in parts.netloc else ''}{_place(parts)}{query}"


def _is_ambiguous(parts: SplitResult) -> bool:
    """Whether what seems to stand behind the host may belong to a password with a / or ? in it."""
    return "@" in parts.path + parts.query + parts.fragment


def _place(parts: SplitResult) -> str:
    """What follows a name or a password in the path goes with it: who knows where it ends."""
    asks = _IN_PATH.search(parts.path)
    path = parts.path[: asks.start()] + _HIDDEN if asks else parts.path
    return parts.netloc.rpartition("@")[2] + path


def may_hold_password(name: str) -> bool:
    """Whether what should be the name of a file looks like an address that was mistyped."""
    return "@" in name or _LIKE_ADDRESS.match(name) is not None


def why_no_picture(address: Address) -> Reason:
    """Ask the server itself, in `PROBE_S`: OpenCV only says that it did not work."""
    host, port = address.host
    try:
        status = _status(address)
    except socket.gaierror:
        return Reason("unknown host", f"nothing is called {host}", "check the name, or use the number of the address")
    except ConnectionRefusedError:
        return Reason("refused", f"nothing listens on port {port} of {host}", "check the port; is the server running?")
    except (ssl.SSLError, ValueError):
        return Reason("protocol", f"what listens on port {port} of {host} is no server of this kind", "check the port")
    except OSError as error:
        text = f"no answer from {host} port {port} ({error.strerror or f'waited {PROBE_S:g} s'})"
        return Reason("time-out", text, "check the cable, the network and the firewall")
    return _reason_of_status(status, address)


def _reason_of_status(status: int, address: Address) -> Reason:
    kind = _BY_STATUS.get(status, "codec" if status < 400 else "server")
    if kind == "authentication":
        given = "refuses the user name and password" if address.credentials else "wants a user name and password"
        scheme = address.parts.scheme
        return Reason(kind, f"the server {given} ({status})", f"{scheme}://USER:PASSWORD@HOST/..., with %40 for @")
    if kind == "not found":
        return Reason(
            kind, f"the server has nothing at this path ({status})", "look the path up in the camera's manual"
        )
    if kind == "server":
        return Reason(kind, f"the server answers with error {status}", "look into the server's log")
    hint = "set the camera to H.264 or MJPEG; rtsp:// for a stream, http:// for MJPEG or a file"
    return Reason("codec", f"the server answers ({status}), but with nothing that can be decoded", hint)


def _status(address: Address) -> int:
    """Status of the answer to one request, repeated with the credentials if it asks for some."""
    deadline_s = time.monotonic() + PROBE_S
    status, head = _ask(address, "", deadline_s)
    if status != 401 or address.credentials is None:
        return status
    return _ask(address, _authorisation(address, head), deadline_s)[0]


def _ask(address: Address, extra: str, deadline_s: float) -> tuple[int, str]:
    head = ""
    with socket.create_connection(address.host, _left_s(deadline_s)) as plain, _secured(plain, address) as stream:
        stream.sendall(_request(address, extra).encode())
        while "\r\n\r\n" not in head and len(head) < 16_384:
            stream.settimeout(_left_s(deadline_s))  # else every byte that drips in would begin it anew
            if not (got := stream.recv(4096)):
                break
            head += got.decode("latin-1")
    version, status = [*head.split(maxsplit=2), "", ""][:2]
    if not version.startswith(("RTSP/", "HTTP/", "ICY")):
        raise ValueError(version)
    return int(status), head


def _left_s(deadline_s: float) -> float:
    """Seconds until then; TimeoutError if it is past."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _secured(plain: socket.socket, address: Address) -> socket.socket:
    if address.parts.scheme not in ("rtsps", "https"):
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as FFmpeg: cameras sign their own
    return context.wrap_socket(plain, server_hostname=address.host[0])


def _request(address: Address, extra: str) -> str:
    method, target, protocol = _asked(address)
    more = "CSeq: 1\r\nAccept: application/sdp" if method == "DESCRIBE" else f"Host: {address.parts.hostname}"
    return f"{method} {target} {protocol}\r\n{more}\r\n{extra}\r\n"


def _asked(address: Address) -> tuple[str, str, str]:
    """Method, target and protocol of the request."""
    if address.parts.scheme.startswith("rtsp"):
        return "DESCRIBE", address.bare, "RTSP/1.0"
    query = f"?{address.parts.query}" if address.parts.query else ""
    return "GET", (address.parts.path or "/") + query, "HTTP/1.0"


def _authorisation(address: Address, head: str) -> str:
    """The header that answers a 401: digest (RFC 2069) if it is offered, else basic."""
    user, password = address.credentials or ("", "")
    digest = re.search(r"^WWW-Authenticate: *Digest (.*)$", head, re.IGNORECASE | re.MULTILINE)
    if digest is None:
        return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}\r\n"
    asked = dict(re.findall(r'(\w+)="([^"]*)"', digest.group(1)))
    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    method, target, _ = _asked(address)
    answer = _md5(f"{_md5(f'{user}:{realm}:{password}')}:{nonce}:{_md5(f'{method}:{target}')}")
    fields = {"username": user, "realm": realm, "nonce": nonce, "uri": target, "response": answer}
    return "Authorization: Digest " + ", ".join(f'{key}="{value}"' for key, value in fields.items()) + "\r\n"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
