import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.service import protocol


def test_frames_are_json_and_a_nul():
    frame = protocol.request("Status", {"a": "\0"})
    assert frame.endswith(b"\0")
    assert frame.count(b"\0") == 1
    assert protocol.decode_frame(frame[:-1]) == {"method": "org.pcipt.Status", "parameters": {"a": "\0"}}
    assert json.loads(protocol.error("Busy")[:-1])["error"] == "org.pcipt.Busy"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{", "JSON"),
        (b"\xff", "UTF-8"),
        (b'{"a":' + b"[" * 17 + b"]" * 17 + b"}", "nested"),
        (b'{"a":' + b"[" * 100_000, "nested"),
    ],
)
def test_bad_frames_say_why(frame, words):
    with pytest.raises(protocol.FrameError, match=words):
        protocol.decode_frame(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_frame_error(frame):
    with contextlib.suppress(protocol.FrameError):
        assert isinstance(protocol.decode_frame(frame), dict)
