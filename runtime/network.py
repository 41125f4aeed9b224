"""Addresses of cameras on a network: never printed with their credentials, and why one of them gives no picture."""

import hashlib
import re
import socket
import ssl
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
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
# Recorders of several makers want them in the path: rtsp://host/user=admin&password=12345&channel=1
_IN_PATH = re.compile(r"\b(user\w*|login|pass\w*|pwd|token|auth\w*|\w*key)=[^&/;,]*", re.IGNORECASE)

Kind = Literal["authentication", "not found", "refused", "time-out", "unknown host", "codec", "protocol", "server"]
_BY_STATUS: dict[int, Kind] = {401: "authentication", 403: "authentication", 404: "not found", 410: "not found"}


@dataclass(frozen=True)
class Address:
    """Where a camera or a video is on the network. As text it has no credentials; only `url` does."""

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.parts.scheme not in SCHEMES or not self.parts.hostname or self._port is None:
            raise InputError(
                f"{self}: not an address of a video", hint="rtsp://HOST:PORT/PATH or http://HOST:PORT/PATH"
            )

    def __str__(self) -> str:
        return masked(self.url)

    @property
    def parts(self) -> SplitResult:
        """The address taken apart."""
        return urlsplit(self.url)

    @property
    def host(self) -> tuple[str, int]:
        """Name and port."""
        return self.parts.hostname or "", self._port or 0

    @property
    def _port(self) -> int | None:
        try:
            return self.parts.port or PORTS[self.parts.scheme]
        except ValueError:
            return None

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User name and password, decoded."""
        user = self.parts.username
        return None if user is None else (unquote(user), unquote(self.parts.password or ""))

    @property
    def bare(self) -> str:
        """The address as it is named in a request: without credentials before the host."""
        return urlunsplit(self.parts._replace(netloc=self.parts.netloc.rpartition("@")[2]))


@dataclass(frozen=True)
class Reason:
    """Why an address gives no picture."""

    kind: Kind
    text: str
    hint: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def masked(text: str) -> str:
    """The text with the credentials of every address in it hidden; queries go whole, for many hold passwords."""
    return _URL.sub(lambda found: _masked_url(found.group()), text)


def _masked_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    # A password may hold / and ? though it should not: everything up to the last @ goes.
    credentials, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    place = _IN_PATH.sub(rf"\1={_HIDDEN}", place)
    return f"{scheme}://{_HIDDEN + at if credentials or at else ''}{place}{question + _HIDDEN if question else ''}"


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
    status, head = _ask(address, "")
    if status != 401 or address.credentials is None:
        return status
    return _ask(address, _authorisation(address, head))[0]


def _ask(address: Address, extra: str) -> tuple[int, str]:
    host, port = address.host
    head = ""
    with socket.create_connection((host, port), PROBE_S) as plain, _secured(plain, address) as stream:
        stream.sendall(_request(address, extra).encode())
        while "\r\n\r\n" not in head and len(head) < 16_384 and (got := stream.recv(4096)):
            head += got.decode("latin-1")
    version, status = [*head.split(maxsplit=2), "", ""][:2]
    if not version.startswith(("RTSP/", "HTTP/", "ICY")):
        raise ValueError(version)
    return int(status), head


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
