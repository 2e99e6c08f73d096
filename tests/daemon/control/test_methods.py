"""What the daemon answers is what the interface file says."""

import json
import shutil
import subprocess

import pytest

from pcipt.daemon.control.protocol import METHODS, request
from pcipt.daemon.control.varlink import own_description
from pcipt.daemon.telling.events import event_from_fault
from pcipt.errors import InputError, NoSuchDeviceError
from pcipt.pci import parse_sbdf
from pcipt.xen.dma_faults import Cause, DmaFault, There
from tests.daemon.control.varlink_idl import Interface
from tests.daemon.running import Running

OWN = Interface(own_description())
NIC = "0000:01:00.0"
PORT = "0000:00:03.0"

#  method, parameters; each method but the stream is here
ASKED = [
    ("Status", {}),
    ("History", {"function": NIC}),
    ("Mappings", {}),
    ("Explain", {"function": PORT}),
    ("Explain", {"function": PORT, "as": "pvh"}),
    ("Rmrr", {}),
    ("Metrics", {}),
    ("Check", {}),
    ("Release", {"function": PORT}),
    ("Guests", {}),
    ("Resync", {"dry_run": True}),
    ("Resync", {}),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("daemon"))
    yield running
    running.stop()


@pytest.mark.parametrize(("method", "parameters"), ASKED)
def test_an_answer_has_the_members_that_are_declared(running, method, parameters):
    told = running.ask(method, parameters)
    assert told["version"] == 1
    assert OWN.complaints(OWN.methods[method][1], told) == []


def test_every_method_is_asked_here():
    assert {method for method, _ in ASKED} | {"Monitor", "Reclaim", "Admit"} == METHODS.keys()


def test_the_parts_of_a_stream_have_the_members_that_are_declared(running):
    parts = [running.first_event(), *running.ask("History", {"function": NIC})["events"]]
    kinds = {part["kind"] for part in parts}
    assert kinds == {"start", "hotplug", "action"}
    for part in parts:
        assert OWN.complaints(OWN.methods["Monitor"][1], part) == []


def test_refused_dma_has_the_members_that_are_declared():
    fault = DmaFault(parse_sbdf(NIC), "dom0", "", 0x1000, Cause.UNTOLD, There.NOTHING, "nothing", 1, "now")
    assert OWN.complaints(OWN.methods["Monitor"][1], event_from_fault(fault)) == []


def test_the_check_finds_nothing_to_complain_of(running):
    assert running.ask("Check") == {"version": 1, "problems": []}


@pytest.mark.parametrize(
    ("method", "text", "error", "words"),
    [
        ("History", "zz", InputError, "zz"),
        ("History", "", InputError, "address"),
        ("Explain", "07:00.0", NoSuchDeviceError, "0000:07:00.0"),
        ("Explain", "00:03.7", NoSuchDeviceError, rf"did you mean {PORT}\?"),
        ("History", "00:03.7", NoSuchDeviceError, rf"did you mean {PORT}\?"),
        ("Explain", "00_09.0-00_00.0", NoSuchDeviceError, "00_09.0-00_00.0"),
    ],
)
def test_a_function_that_is_not_there_or_none(running, method, text, error, words):
    with pytest.raises(error, match=words):
        running.ask(method, {"function": text})


@pytest.mark.parametrize(("slot", "nearest"), [("00:03.7", [PORT]), ("09:", []), ("00:", None), ("*", None)])
def test_a_filter_that_matches_nothing_is_answered_with_the_nearest(running, slot, nearest):
    part = running.send(request("Monitor", {"slot": slot}, more=True))["parameters"]
    assert part.get("nearest") == nearest
    assert OWN.complaints(OWN.methods["Monitor"][1], part) == []


@pytest.mark.skipif(shutil.which("varlinkctl") is None, reason="varlinkctl comes with systemd 255 and later")
def test_systemds_own_client_understands_it(running):
    def varlinkctl(*arguments):
        done = subprocess.run(
            ["varlinkctl", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    code, told, _ = varlinkctl("info", running.control)
    assert (code, "org.pcipt" in told) == (0, True)
    code, told, _ = varlinkctl("introspect", running.control, "org.pcipt")
    assert (code, "method Explain(" in told) == (0, True)
    code, told, _ = varlinkctl("call", "--json=short", running.control, "org.pcipt.Check", "{}")
    assert (code, json.loads(told)) == (0, {"version": 1, "problems": []})
    code, _, complaint = varlinkctl("call", running.control, "org.pcipt.History", '{"functoin":"x"}')
    assert code != 0
    assert "InvalidParameter" in complaint
