"""The interface file says what the daemon does: the same methods, parameters and errors."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pcipt.daemon.control import connection as peer
from pcipt.daemon.control import protocol, server
from pcipt.daemon.control import varlink as introspection
from pcipt.daemon.control.protocol import INTERFACE, METHODS, SERVICE, STANDARD_ERRORS, ParameterError
from pcipt.daemon.control.varlink import SERVICE_METHODS, NoSuchInterfaceError, own_description
from tests.daemon.control.varlink_idl import Interface

OWN = Interface(own_description())
SOURCES = os.path.dirname(introspection.__file__)
TYPES = {str: "string", bool: "bool"}


def test_the_methods_are_those_of_the_table():
    assert OWN.name == INTERFACE
    assert OWN.methods.keys() == METHODS.keys()
    for name, method in METHODS.items():
        declared = {key: kind[1] if kind[0] == "?" else kind for key, kind in OWN.methods[name][0].items()}
        assert declared == {key: TYPES[kind] for key, kind in method.parameters.items()}


def test_the_errors_are_those_that_are_sent():
    """Each error(...) of server and peer is declared, here or by Varlink itself, and the other way round."""
    text = "".join(Path(SOURCES, name).read_text(encoding="utf-8") for name in ("server.py", "connection.py"))
    sent = set()
    for part in text.replace("self._refuse(", "error(").split("error(")[1:]:
        if part.startswith('"'):
            sent.add(part.split('"')[1])
    assert sent - STANDARD_ERRORS == OWN.errors.keys()
    assert sent >= STANDARD_ERRORS
    service = Interface(SERVICE_METHODS["GetInterfaceDescription"]({"interface": SERVICE})["description"])
    assert service.errors.keys() >= STANDARD_ERRORS
    assert service.methods.keys() == SERVICE_METHODS.keys()


def test_who_answers():
    told = SERVICE_METHODS["GetInfo"](None)
    assert told["interfaces"] == [SERVICE, INTERFACE]
    assert told["product"] == "pcipt"


@pytest.mark.parametrize("parameters", [None, {}, {"interface": 7}, []])
def test_an_interface_must_be_named(parameters):
    with pytest.raises(ParameterError):
        SERVICE_METHODS["GetInterfaceDescription"](parameters)


def test_another_interface_is_not_here():
    with pytest.raises(NoSuchInterfaceError):
        SERVICE_METHODS["GetInterfaceDescription"]({"interface": "org.other"})


#  method, parameters that it has not; docs/protocol.md: unknown members and wrong types are refused
ODD = [
    ("GetInfo", {"a": 1}, "a"),
    ("GetInfo", [], "parameters"),
    ("GetInfo", 0, "parameters"),
    ("GetInfo", "", "parameters"),
    ("GetInterfaceDescription", {"interface": INTERFACE, "more": 1}, "more"),
    ("GetInterfaceDescription", [INTERFACE], "parameters"),
]


@pytest.mark.parametrize(("method", "parameters", "named"), ODD)
def test_odd_parameters_are_refused(method, parameters, named):
    with pytest.raises(ParameterError) as caught:
        SERVICE_METHODS[method](parameters)
    assert caught.value.parameter == named


@pytest.mark.skipif(shutil.which("varlinkctl") is None, reason="varlinkctl comes with systemd 255 and later")
def test_systemd_reads_the_interface_file():
    path = os.path.join(SOURCES, f"{INTERFACE}.varlink")
    done = subprocess.run(["varlinkctl", "validate-idl", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "value", "complaint"),
    [
        ("type A (x: int)", {"x": 1}, None),
        ("type A (x: int)", {"x": True}, ".x is True"),
        ("type A (x: int)", {}, ".x is None"),
        ("type A (x: int)", {"x": 1, "y": 2}, ".y is not declared"),
        ("type A (x: ?[]B)\ntype B (y: string)", {"x": [{"y": "a"}, {"y": 1}]}, ".x[1].y is 1"),
        ("type A (x: ?[]B)\ntype B (y: string)", {"x": None}, None),
        ("type A (x: ?[]string)", {"x": {}}, ".x is no list"),
        ("type A (x: (y: bool))", {"x": 1}, ".x is no object"),
    ],
)
def test_the_checker_itself(text, value, complaint):
    told = Interface(f"interface a.b\n# a comment: (\n{text}").complaints("A", value)
    assert told == ([] if complaint is None else [complaint])


DOCS = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"


def test_the_manual_has_the_same_tables():
    text = DOCS.read_text(encoding="utf-8")
    rows = set()
    for name, method in METHODS.items():
        parameters = "".join(f" `{key}`" for key in method.parameters)
        rows.add(f"| `{name}` |{parameters} | {'root' if method.changes else 'readers'} |")
    assert [row for row in rows if row not in text] == []
    assert [name for name in OWN.errors if f"| `{INTERFACE}.{name}` |" not in text] == []
    assert [name for name in STANDARD_ERRORS if f"`{name}`" not in text.replace(f"{SERVICE}.", "")] == []


@pytest.mark.parametrize(
    "words",
    [
        f"{server.CONNECTIONS_PER_UID} of one user, {server.CONNECTIONS} of all",
        f"{protocol.REQUEST_LIMIT // 1024} KiB, {protocol.NESTING_LIMIT} levels",
        f"{peer.PATIENCE:.0f} seconds until a request is complete",
        f"{server.WAITING_LIMIT >> 20} MiB",
        f"{peer.STREAM_LIMIT // 1024} KiB | the daemon drops events",
        f"The version of the protocol is {protocol.VERSION},",
        protocol.SOCKET_PATH,
    ],
)
def test_the_manual_has_the_same_bounds(words):
    assert words in DOCS.read_text(encoding="utf-8")
