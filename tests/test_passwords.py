"""Whatever the password of a camera, and wherever it was typed, nothing that is printed or named after it shows it."""

import socket
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poseda_deploy.errors import InputError
from poseda_deploy.opencv import cv2
from poseda_deploy.runtime.cli import main as run_main
from poseda_deploy.runtime.detect_cli import DetectOptions
from poseda_deploy.runtime.detect_cli import main as detect_main
from poseda_deploy.runtime.network import Address, shown
from poseda_deploy.runtime.options import RunOptions
from poseda_deploy.runtime.sources import source_stem
from poseda_deploy.runtime.stream import open_stream

FORMS = [
    "rtsp://u:{}@h.invalid/x",
    "rtsp://{}:p@h.invalid/x",
    "rtsp://{}@h.invalid",
    "rtsp:/u:{}@h.invalid/x",
    "rtsp:u:{}@h.invalid/x",
    "u:{}@h.invalid/x",
    "{}:p@h.invalid/x",
    "{}://u@h.invalid/x",
    "rtspx://u:{}@h.invalid/x",
    "http://h.invalid/x?password={}",
    "http://u:{}@h.invalid/x?y=z",
    "rtsp://h.invalid/user=u&password={}",
    "rtsp:/h.invalid/user=u&password={}",
    "udp://u:{}@h.invalid:9000",
]
ENDS = "q9zk", "x7vw"
"""Of every secret here; they are found nowhere else, and whatever stands between them may split it."""
LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("@:/?#[]'\"<> %\n\x00&;=")
URLS = st.builds(lambda form, secret: form.format(ENDS[0] + secret + ENDS[1]), st.sampled_from(FORMS), st.text(LETTERS))
NASTY = ["", "p'q", '"<>', "a b", "12/34", "a/../../b", "a@b", "1?a", "[", "\u2100", "x" * 300]
Test = Callable[..., None]


def every_form(test: Test) -> Test:
    """Beside random ones, every form with every secret that was once shown, or nearly."""
    for form in FORMS:
        for secret in NASTY:
            test = example(url=form.format(ENDS[0] + secret + ENDS[1]))(test)
    return test


def shows(text: str) -> bool:
    return any(end in text.lower() for end in ENDS)


def no_such_host(address: Address) -> int:
    raise socket.gaierror


@pytest.mark.parametrize("main", [run_main, detect_main])
@settings(max_examples=20, deadline=None)
@every_form
@given(url=URLS)
def test_no_message_has_it(main: Callable[[list[str]], int], url: str) -> None:
    told = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(told), redirect_stdout(told):
        patch.setattr("poseda_deploy.runtime.sources.open_stream", lambda *args: cv2.VideoCapture())
        patch.setattr("poseda_deploy.runtime.network._status", no_such_host)
        code = main([f"--video={url}", "--debug"])
    assert code == 2, told.getvalue()
    assert not shows(told.getvalue())


@settings(deadline=None)
@every_form
@given(url=URLS)
def test_no_name_error_or_repr_has_it(url: str) -> None:
    assert not shows(shown(url))
    assert not shows(repr(RunOptions(video=url, stream=url)) + repr(DetectOptions(video=url)))
    with pytest.raises(InputError) as caught:
        open_stream(url)
    assert not shows(f"{caught.value} {caught.value.hint} {caught.value!r}")
    try:
        address = Address(url)
    except InputError as error:
        assert not shows(f"{error} {error.hint} {error!r}")
    else:
        assert not shows(f"{address} {address!r} {source_stem(url)}")
