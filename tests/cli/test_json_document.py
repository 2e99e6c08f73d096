"""docs/json.md and what is printed: every key that is documented exists, and the other way round."""

import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from pcipt.daemon.control.status import cut_to_json, release_to_json
from pcipt.daemon.telling import events
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.start_info import Module, StartInfo, build_start_info
from pcipt.pci import (
    BarKind,
    Finding,
    Frames,
    Gfn,
    PciPath,
    Range,
    RawFunction,
    Sbdf,
    Window,
    WindowKind,
    decode_function,
)
from pcipt.pci.json_view import json_from_shift
from pcipt.pci.space.beliefs import Shift
from pcipt.pci.write import ConfigWrite, Writer
from pcipt.remap.actions import AddDevice, MapMmio, Outcome, Refusal, Result
from pcipt.remap.desired import By, Desired, DesiredBar
from pcipt.remap.explain import Explanation, Step, json_from_explanation
from pcipt.remap.guard.rules import Precaution
from pcipt.remap.kinds.domains import CutOrphans
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.writes import changes
from pcipt.remap.writes.json_view import json_from_change
from pcipt.xen.dma_faults import Cause, DmaFault, There
from pcipt.xen.releases import parse_version
from tests import toolstack
from tests.answers import WHEN, action
from tests.cli.commands.policy.test_policy import card
from tests.cli.commands.policy.test_policy import machine as a_machine
from tests.firmware.reserved_tables import ivmd, ivrs
from tests.pci.spaces import BRIDGE, bars, extended_list, space, standard_list
from tests.toolstack import ANSWERS, fake_toolstack, told
from tests.trees import REPO, add

SCHEMA = runpy.run_path(str(REPO / "scripts/json_schema.py"))  # docs/json.md as tables and as JSON Schema
NIC, VMD = Sbdf(0, 2, 0, 0), Sbdf(0x10000, 0xE1, 0, 0)
HEX = r"0x[0-9a-f]+"
SBDF = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
PLAIN = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
    "address": lambda value: isinstance(value, str) and re.fullmatch(HEX, value),
    "sbdf": lambda value: isinstance(value, str) and re.fullmatch(SBDF, value),
    "path": lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f_.-]+", value),
    "time": lambda value: isinstance(value, str) and re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.[0-9]{3}Z", value),
}
FAULT = DmaFault(NIC, "dom0", "write", 0x1000, Cause.PAGE, There.RAM, "RAM at 0x0-0xfff", 10, WHEN)
ALSO = SCHEMA["ALSO"]
TABLES = SCHEMA["read_tables"]((REPO / "docs/json.md").read_text())


def by_schema(name):
    """Give a function that validates an object by docs/json-schema.json."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema (python3-jsonschema) is not installed")
    schema = json.loads((REPO / "docs/json-schema.json").read_text())
    schema["$ref"] = f"#/$defs/{name.replace(' ', '%20')}"
    return jsonschema.Draft202012Validator(schema).validate


class Comparison:
    """Walks values beside the document, and remembers which keys it met."""

    def __init__(self):
        self.met = set()
        self.objects = []

    def check(self, value, kind, where=""):
        if " or " in kind:
            assert any(self.fits(value, each, where) for each in kind.split(" or ")), (where, value, kind)
        else:
            assert self.fits(value, kind, where), (where, value, kind)

    def fits(self, value, kind, where):
        if kind in PLAIN:
            return bool(PLAIN[kind](value))
        if kind.startswith("list of "):
            for item in value or ():
                self.check(item, kind.removeprefix("list of "), f"{where}[]")
            return isinstance(value, list)
        if isinstance(value, dict):
            self.object(value, kind, where)
        return isinstance(value, dict)

    def object(self, value, name, where=""):
        if not where:
            self.objects.append((name, value))
        parts = self.parts(value, name)
        for key, item in value.items():
            homes = [part for part in parts if key in TABLES.get(part, {})]
            assert homes, f"{where}.{key} of {name} is not documented"
            self.met |= {(home, key) for home in homes}
            self.check(item, TABLES[homes[0]][key], f"{where}.{key}")

    def parts(self, value, name):
        parts = [name, *ALSO.get(name, ())]
        if name == "event":
            parts += self.parts(value, f"event {value['kind']}")
        if name in {"change", "event change"}:
            parts.append(f"change {value['change']}")
        return parts


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        main([*map(str, arguments)])
    return out.getvalue()


STANDARD = standard_list(
    (0x40, 0x10, {0x02: (2, 0x0142), 0x28: (2, 0x0020)}),
    (0x80, 0x11, {0x02: (2, 0x8003), 0x04: (4, 0x2003), 0x08: (4, 0x3003)}),
    (0x90, 0x14, {0x02: (1, 1), 0x04: (4, 0x8000_0002), 0x08: (4, 0xFD00_0000), 0x0C: (4, 0xFFC)}),
)
VFS = {
    0x08: (2, 9),
    0x0C: (2, 7),
    0x0E: (2, 8),
    0x10: (2, 2),
    0x14: (2, 128),
    0x16: (2, 2),
    0x24: (4, 0xFD80_0000),
}
EXTENDED = extended_list((0x100, 0x10, VFS), (0x200, 0x15, {0x04: (4, 0x30), 0x08: (4, 0x20)}))
PORT = space({0x18: (4, 0x02_02_00), 0x1C: (2, 0x4030), 0x20: (4, 0xFFF0), 0x24: (4, 0xFFF0)}, header=BRIDGE)


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """A bridge, a function behind it that has everything, and one that does not answer."""
    spaces = {
        "00:04.0": PORT,
        "02:00.0": space(STANDARD | EXTENDED | bars(0xFE04_0000, 0, 0xC) | {0x04: (2, 2)}, size=4096),
        "00:05.0": b"\xff" * 64,
    }
    text = ""
    for address, data in spaces.items():
        rows = (f"{at:02x}: {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
        text += f"{address} x\n" + "\n".join(rows) + "\n\n"
    path = tmp_path_factory.mktemp("dump") / "dump"
    path.write_text(text)
    return path


CAUSE = ConfigWrite(NIC, 0x10, 4, 0xFE04_0000, None, Writer(vcpu=1), 7)
HEAD = {"sbdf": NIC, "place": PciPath(0, ((0, 4, 0), (0, 0, 0))), "causes": (CAUSE,)}
HERE, THERE = Range(0xFE04_0000, 0x2_0000), Range(0xFE00_0000, 0x1_0000)
CHANGES = [
    changes.BarMapped(**HEAD, bar=0, kind=BarKind.MEM32, after=HERE),
    changes.BarUnmapped(**HEAD, bar=0, kind=BarKind.MEM32, before=HERE),
    changes.BarMoved(**HEAD, bar=0, kind=BarKind.MEM32, before=THERE, after=HERE),
    changes.DecodeChanged(**HEAD, before=None, after=changes.Decode(True, False)),
    changes.RomChanged(**HEAD, before=None, after=True),
    changes.BridgeWindowChanged(
        **HEAD, window=WindowKind.MEMORY, before=None, after=Window(WindowKind.MEMORY, 0x1000, 0x1FFF)
    ),
    changes.BusRenumbered(
        **HEAD, before=changes.Numbers(0, None, 2), after=changes.Numbers(0, 5, 5), moved=((NIC, None),)
    ),
    changes.VfBarsChanged(**HEAD, before=(), after=(changes.VfRange(0, 0xFD80_0000, 0x1000, 4),)),
    changes.FunctionReset(**HEAD, kind=changes.ResetKind.FUNCTION),
]


NOTHING = AddDevice(NIC, "why")
SPAN = Frames(Gfn(0xFE040), 2)
EXPLANATION = Explanation(
    function=decode_function(RawFunction(NIC, space())),
    known=True,
    owner="dom0",
    held=(MappedRun("00_04.0", NIC, 0, SPAN, By.US, WHEN),),
    desired=Desired("00_04.0", NIC, (DesiredBar("00_04.0", NIC, 0, (SPAN,), By.US),)),
    steps=(
        Step(NOTHING, Precaution.NONE, ()),
        Step(
            MapMmio(NIC, "why", "00_04.0", 0, SPAN),
            Refusal("held", "why"),
            (("held", "why"), ("other", None)),
        ),
    ),
)


def used_disk(tmp_path):
    """Make a machine with one function that carries a disk."""
    root = tmp_path / "used"
    add(root, "pci0000:00/0000:00:17.0")
    (root / "sys/class/block").mkdir(parents=True)
    (root / "sys/class/block/sda").symlink_to("../../devices/pci0000:00/0000:00:17.0/block/sda")
    return root


def policy_commands(tmp_path):
    """Keep a device for guests, put another in its place, and give the commands that show it."""
    place = ["--root", a_machine(tmp_path / "kept"), "--policy", tmp_path / "etc"]
    main(["policy", "add", "03:00.0", *map(str, place)])
    a_machine(tmp_path / "kept", nic=card(serial=1))
    (tmp_path / "kept/sys/bus/pci/slots/4").mkdir(parents=True)
    (tmp_path / "kept/sys/bus/pci/slots/4/address").write_text("0000:03:00\n")
    (tmp_path / "kept/proc").mkdir()
    (tmp_path / "kept/proc/cmdline").write_text("xen-pciback.hide=(09:00.0)\n")
    gone = REPO / "fixtures/sysfs/lab-pv"
    policies = [["policy list", *place], ["policy check", *place], ["policy snippet", "--xl", *place]]
    return [["diff", gone, tmp_path / "kept"], *policies]


@pytest.fixture
def files(tmp_path):
    """Give command lines about files that are made for them."""
    table = tmp_path / "ivrs"
    table.write_bytes(ivrs(ivmd(0x22, 8, 0x10, 0x18, 0x7000_0000, 0x1000)))
    memory = StartInfo(1, modules=(Module(0x200_0000, 5000),), memory_map=(entry(0, 4096, MemoryType.RAM),))
    image = tmp_path / "memory"
    image.write_bytes(build_start_info(memory, 0x100_0000).data)
    machine = f"--root={REPO / 'fixtures/sysfs/lab-pvh'}"
    xl = tmp_path / "web.cfg"
    xl.write_text('name = "web"\npci = [ "00:1f.2", "name=nic" ]\n')
    return [
        ["rmrr", "--table", table],
        ["rmrr", "--table", table, f"--root={REPO / 'fixtures/sysfs/lab-pv'}"],
        ["host", f"--root={REPO / 'fixtures/sysfs/lab-pv'}"],
        *policy_commands(tmp_path),
        ["check", machine],
        ["check", "--xl", xl, machine],
        ["groups", machine],
        ["groups", f"--root={used_disk(tmp_path)}"],
        ["pvh startinfo", image, "--at", "0x1000000"],
        ["pvh layout", f"--root={REPO / 'fixtures/sysfs/lab-pv'}"],
        ["pvh tables", "--domain", "hardware", "--vcpus", "2", machine, "-o", tmp_path / "tables"],
        ["pvh check", machine],
    ]


@pytest.fixture
def handed(tmp_path, monkeypatch, daemon):
    """Give what release, reclaim and admit print of a function that is released and taken back."""
    fake = fake_toolstack(tmp_path, monkeypatch)
    fake.path, answers = daemon
    answers |= {**ANSWERS, "Release": told(actions=[action("withdraw-reserved")])}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    printed = {}
    for command in ("release", "reclaim", "admit"):
        out = io.StringIO()
        with redirect_stdout(out):
            fake.run(command, toolstack.NIC, "--json=short")
        printed[command] = json.loads(out.getvalue())
    return printed


def test_the_document_is_what_is_printed(dump, tmp_path, service, files, handed):
    comparison = Comparison()
    for command, printed in handed.items():
        comparison.object(printed, f"pcipt {command} --json")
    comparison.object({"sbdf": str(NIC), "owner": "guest 3"}, "given function")
    comparison.object(cut_to_json(CutOrphans(None, ((VMD, VMD.cut),), panics=True)), "cut segment")
    for command, *arguments in files:
        told = json.loads(run(*command.split(), *arguments, "--json"))
        comparison.object(told, f"pcipt {command} --json")
    comparison.object(json_from_shift(Shift(1, 2)), "translation")
    lab = REPO / "fixtures/sysfs/lab-pv"
    comparison.object(json.loads(run("space", "02:00.0", "--root", lab, "--json")), "pcipt space --json")
    for command in (["list"], ["show", "02:00.0"], ["show", "02:00"], ["space"], ["tree"]):
        told = json.loads(run(*command, "--dump", dump, "--json"))
        comparison.object(told, f"pcipt {command[0]} --json")
    writes = tmp_path / "a.writes.jsonl"
    write = {"n": 1, "sbdf": "0000:02:00.0", "offset": "0x04", "size": 2, "value": "0x0406"}
    writes.write_text(json.dumps(write) + "\n")
    machine = REPO / "fixtures/sysfs/lab-pvh"
    for line in run("decode", "--json", writes).splitlines():
        told = json.loads(line)
        comparison.object(told, told["type"])
    for line in run("replay", "--json", machine).splitlines():
        comparison.object(json.loads(line), "replayed action")
    told = json.loads(run("decode", "--final", "--json", "--root", machine, writes))
    comparison.object(told, "pcipt decode --final --json")
    for change in CHANGES:
        comparison.object(json_from_change(change), "change")
    for event in (
        *(events.event_from_change(change, WHEN, read_back=False) for change in CHANGES),
        events.event_from_outcome(Outcome(AddDevice(NIC, "why"), Result.DONE), WHEN),
        events.event_from_finding(NIC, Finding("code", "text"), WHEN, gone=False),
        events.event_from_loss(WHEN, 3, "writes"),
        events.event_from_fault(FAULT),
        events.event_from_hotplug(NIC, "add", WHEN),
    ):
        comparison.object(event, "event")
    comparison.object(json_from_explanation(EXPLANATION), "pcipt explain --json")
    for command in (
        ["status"],
        ["resync"],
        ["mappings"],
        ["history", "00:06.0"],
        ["explain", "02:00.0"],
        ["metrics"],
    ):
        told = json.loads(service(*command, "--json"))
        comparison.object(told, f"pcipt {command[0]} --json")
    build = release_to_json(parse_version("4.17.4-vendor"))
    comparison.object(build, "release of Xen")
    every = {(name, key) for name, keys in TABLES.items() for key in keys}
    assert every - comparison.met == set()
    assert len(comparison.objects) > 50
    for name, printed in comparison.objects:
        by_schema(name)(printed)


def test_the_schema_is_made_from_the_document():
    made = json.dumps(SCHEMA["schema_of"](TABLES), indent=1) + "\n"
    assert (REPO / "docs/json-schema.json").read_text() == made, "run scripts/json_schema.py"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("finding", {"code": 1}),
        ("found", {"sbdf": "03:00.0"}),
        ("pcipt list --json", {"version": 1, "devices": [{"sbdf": 0}]}),
        ("action", {"start": 4096}),
        ("event", {"when": "yesterday"}),
    ],
)
def test_the_schema_finds_a_wrong_type(name, value):
    validate = by_schema(name)
    with pytest.raises(sys.modules["jsonschema"].ValidationError):
        validate(value)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Ask the service on a recorded machine, with a simulated Xen; findings stay, for it only observes."""
    directory = tmp_path_factory.mktemp("service")
    (directory / "pcipt.toml").write_text('mode = "observe"\n')
    control = directory / "control"
    command = [sys.executable, "-m", "pcipt.cli.main", "daemon", "--replay", "fixtures/sysfs/lab-pvh"]
    command += ["--state", str(directory / "state"), "--socket", str(control)]
    command += ["--settings", str(directory / "pcipt.toml")]
    environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(60)
        daemon = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL, env=environment)
        try:
            while b"READY=1" not in manager.recv(1000):
                pass
            yield lambda *arguments: run(*arguments, "--socket", control)
        finally:
            daemon.terminate()
            daemon.wait(30)
