"""Bytes of whole files, damaged at random: bits, bytes, cuts, pieces twice, numbers that nobody expects."""

import io
import random
from zipfile import ZipFile

from fuzz.seeds import zipped

PIECES = (
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"1e300", b"9" * 30, b"9" * 400, b"9" * 5000, b"5e-324", b"Infinity"),
    *(b"[", b"]", b"{", b"}", b"(", b")", b"<a>", b"</a>", b"<!--", b"&amp;", b'"', b"'", b"'''", b"\\", b"#", b"- "),
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\n", b"\r", b"\t", b" " * 9, b": ", b"=", b".", b","),
    *(
        b"null",
        b"true",
        b"a.b.c.d.",
        b"[" * 300,
        b"{a=" * 300,
        b"!!binary |",
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"\xc3\xa9",
    ),
    *(b"\x80\x04", b"\x94", b"h\x00", b"r\xff\xff\xff\x7f", b"\x85" * 99, b"\x86", b"R", b"b", b"u", b"."),
)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """One to six damages; of an archive, half of the time inside one of its members."""
    if whole[:2] == b"PK" and rng.random() < 0.6:
        with ZipFile(io.BytesIO(whole)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(list(members))
        return zipped(members | {name: _damaged(members[name], rng)})
    return _damaged(whole, rng)


def _damaged(whole: bytes, rng: random.Random) -> bytes:
    out = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 1, 4, 16, 64)))
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.randrange(256)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = rng.choice(PIECES)
            case 4:
                out[at:end] = rng.choice(PIECES)
            case 5:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[other : other + rng.choice((1, 8, 40))] * rng.choice((1, 1, 2, 50))
            case 6 if rng.random() < 0.3:
                del out[at:]
    return bytes(out)
