import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.daemon.control import protocol
from pcipt.daemon.control.protocol import ParameterError, checked_parameters


def test_frames_are_json_and_a_nul():
    frame = protocol.request("Status", {"a": "\0"})
    assert frame.endswith(b"\0")
    assert frame.count(b"\0") == 1
    assert protocol.decode_frame(frame[:-1]) == {"method": "org.pcipt.Status", "parameters": {"a": "\0"}}


@pytest.mark.parametrize(
    ("name", "whole"),
    [("Busy", "org.pcipt.Busy"), ("PermissionDenied", "org.varlink.service.PermissionDenied")],
)
def test_errors_are_varlinks_where_it_has_them(name, whole):
    assert json.loads(protocol.error(name)[:-1]) == {"error": whole, "parameters": {}}


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{", "JSON"),
        (b"\xff", "UTF-8"),
        (b'{"a":' + b"9" * 5000 + b"}", "JSON"),  # a number that Python does not take
        (b'{"a":' + b"[" * 17 + b"]" * 17 + b"}", "nested"),
        (b'{"a":' + b"[" * 100_000, "nested"),
        (b'{"a":"' + b"]" * 20_000 + b'","b":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "nested"),
        (b'{"a":["]]\\"]]"' + b',["]]"' * 16 + b"]" * 17 + b"}", "nested"),
        (b'{"a":"' + b'\\"' * 32_000, "JSON"),  # no end: read once, not once for each quote
    ],
)
def test_bad_frames_say_why(frame, words):
    with pytest.raises(protocol.FrameError, match=words):
        protocol.decode_frame(frame)


def test_brackets_in_a_text_are_no_nesting():
    assert protocol.decode_frame(b'{"a":"' + b"[" * 100 + b'"}') == {"a": "[" * 100}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_frame_error(frame):
    with contextlib.suppress(protocol.FrameError):
        assert isinstance(protocol.decode_frame(frame), dict)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("Status", None, {}),
        ("Status", {}, {}),
        ("History", {"function": "00:01.0"}, {"function": "00:01.0"}),
        ("Resync", {"dry_run": None}, {}),  # null is not given
        ("Resync", {"dry_run": True}, {"dry_run": True}),
    ],
)
def test_parameters_that_fit(name, parameters, expected):
    assert checked_parameters(name, parameters) == expected


@pytest.mark.parametrize(
    ("name", "parameters", "parameter", "why"),
    [
        ("Status", [], "parameters", "no object"),
        ("Status", {"a": 1}, "a", "Status has none"),
        ("Status", {"a": None}, "a", "no such parameter"),
        ("History", {"sbdf": "x"}, "sbdf", "expected function"),
        ("History", None, "function", "is missing; expected a text"),
        ("Release", {"function": None}, "function", "is missing"),
        ("History", {"function": 1}, "function", "must be a text"),
        ("Resync", {"dry_run": "yes"}, "dry_run", "must be true or false"),
        ("Resync", {"dry_run": 1}, "dry_run", "must be true or false"),
    ],
)
def test_parameters_that_do_not_fit(name, parameters, parameter, why):
    with pytest.raises(ParameterError) as caught:
        checked_parameters(name, parameters)
    assert caught.value.parameter == parameter
    assert why in caught.value.why
