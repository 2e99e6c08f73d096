"""The simulated vPCI gives the answers that Xen's own code has given, in recorded sequences."""

import gzip
import json
from pathlib import Path

import pytest

from pcipt.pci import Frames, Gfn, Ids, RawFunction, Resource, parse_sbdf
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.oracle.machines import MEM32, MEM64, MSIX_AT, RAM

ANSWERS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "vpci"
FILES = sorted(ANSWERS.glob("*.jsonl.gz"))
WIDE = 0x4


def function(address, described):
    """Make a function of its registers and the sizes of its BARs, as Linux would have read it."""
    config, writable = bytes.fromhex(described["config"]), bytes.fromhex(described["writable"])
    lines = [Resource(0, 0, 0)] * 13
    for name, size in described["sizes"].items():
        index = int(name)
        at = (0x38 if config[0x0E] else 0x30) if index == 6 else 0x10 + 4 * index
        value = int.from_bytes(config[at : at + 8], "little")
        wide = index != 6 and value & 0x7 == WIDE
        base = value & (0xFFFF_FFFF_FFFF_FFF0 if wide else 0xFFFF_FFF0)
        lines[index] = Resource(base, size, MEM64 if wide else MEM32)
    for index in range(2 if config[0x0E] else 6):  # I/O BARs: the recording has no sizes of them
        at = 0x10 + 4 * index
        upper = index and config[at - 4] & 0x7 == WIDE and str(index - 1) in described["sizes"]
        if config[at] & 1 and not upper:
            value, mask = (int.from_bytes(part[at : at + 4], "little") for part in (config, writable))
            lines[index] = Resource(value & 0xFFFF_FFFC, -mask & 0xFFFF_FFFF, Resource.IO)
    sbdf = parse_sbdf(address)
    behind = config[0x19] if config[0x0E] else None
    return RawFunction(
        sbdf=sbdf, config=config, resources=tuple(lines), ids=Ids(), root_bus=sbdf.bus, secondary=behind
    )


def reset(hardware, sbdf, described):
    """Do what a function-level reset does: Command, BARs, ROM and the enable bit of MSI-X go to 0."""
    config, writable = bytes.fromhex(described["config"]), bytes.fromhex(described["writable"])
    bridge = bool(config[0x0E])
    rom = 0x38 if bridge else 0x30
    places = [*range(4, 6), *range(0x10, 0x18 if bridge else 0x28), *range(rom, rom + 4)]
    places += [MSIX_AT + 3] if config[MSIX_AT] == 0x11 else []
    data = hardware.slot(sbdf).registers.data
    for at in places:
        data[at] = config[at] & ~writable[at]


def perform(xen, hardware, machine, step):
    """Do one step; give the answer of an add, else None."""
    kind, address, *rest = step
    sbdf = parse_sbdf(address)
    if kind == "w":
        xen.write_config(sbdf, *rest)
    elif kind == "reset":
        reset(hardware, sbdf, machine[address])
    elif kind == "remove":
        xen.kernel_remove(sbdf)
    else:
        return xen.kernel_add(sbdf)
    return None


def seen(xen, hardware, machine, pages):
    """Give what the recording tells: registers, mapped pages, trapped functions, MSI-X among `pages`."""
    return {
        "registers": {address: hardware.config(parse_sbdf(address))[:64].hex() for address in machine},
        "pages": [[int(span.start), span.count] for span in xen.p2m.direct()],
        "trapped": {address: xen.vpci.traps(parse_sbdf(address)) for address in machine},
        "msix": [page for page in pages if xen.vpci.holes(Frames(Gfn(page), 1))],
    }


def replay(line, version):
    """Replay one sequence; give the number of the first step that differs and both states, or None."""
    machine = line["machine"]
    hardware = BusHardware([function(address, described) for address, described in machine.items()])
    ram = Frames(Gfn(RAM[0] >> 12), RAM[1] >> 12)
    known = [parse_sbdf(address) for address in machine]
    xen = SimulatedXen(hardware, XenIdentity(version, Dom0Kind.PVH), memory=[ram], known=known)
    for number, (step, after) in enumerate(zip([None, *line["steps"]], line["after"], strict=True)):
        expected = {key: value for key, value in after.items() if key != "answer"}
        try:
            answer = perform(xen, hardware, machine, step) if step is not None else None
            found = seen(xen, hardware, machine, after.get("msix", []))
        except Catastrophe:
            answer, found = None, {"down": True}
        if found != expected or answer != after.get("answer"):
            return number, found, after
        if "down" in found:
            break
    return None


MISSING = pytest.mark.skip(reason="there are no answers of Xen's code at ../shared/data/vpci")
CASES = [pytest.param(path, id=path.name.removesuffix(".jsonl.gz")) for path in FILES]


@pytest.mark.parametrize("path", CASES or [pytest.param(None, marks=MISSING)])
def test_the_simulated_vpci_answers_as_xens_own_code(path):
    version = path.name.removesuffix(".jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert len(lines) > 100
    assert {line["xen"] for line in lines} == {f"RELEASE-{version}"}
    assert [(line["seed"], differs) for line in lines if (differs := replay(line, version))] == []
