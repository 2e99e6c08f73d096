"""What each target begins with: good inputs, made by the project from its own fixtures and tests."""

import json
import struct
from functools import cache
from pathlib import Path

from pcipt.daemon.control.protocol import METHODS, request
from pcipt.daemon.setting_keys import DEFAULTS
from pcipt.remap.ledger_json import ledger_to_json
from pcipt.remap.mapped_pages import mapped_to_json
from pcipt.remap.steps import step_to_json
from tests.engine.test_laws import PHYSFN, PVH, REGIONS, Telling
from tests.engine.test_laws import SLOTS as FREE
from tests.firmware.host_tables import good_dmar, good_ivrs
from tests.firmware.pvh.test_read_start_info import BUILT
from tests.firmware.reserved_tables import ivhd, ivmd, rmrr, scope, select
from tests.host.paste.lspci_samples import WORDS
from tests.pci.notation.test_hidden import LINES as HIDDEN
from tests.pci.notation.test_xl_config import READ
from tests.pci.notation.test_xl_guest import DEVICES
from tests.pvh import any_table, native_tables
from tests.simulation.kernel import uevent
from tests.watch.test_recording import CONTENTS
from tests.xen.test_boot_words import AMD, PARSE, REFUSED, VTD
from tests.xen.test_complaints import MESSAGES
from tests.xen.test_console import HEAD, A
from tests.xen.test_console import OWNERS as DUMPED
from tests.xen.test_dma_faults import LINES
from tests.xen.test_rangesets import DUMP, GUEST

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures" / "sysfs"


def files(pattern):
    return sorted({path.read_bytes() for path in FIXTURES.rglob(pattern) if path.is_file()})


def config_spaces():
    return files("config")


def dumps():
    return [WORDS.encode(), *(hexdump(data).encode() for data in files("config")[:6])]


def hexdump(data):
    """Give config space as `lspci -xxxx` prints it."""
    rows = (f"{at:02x}: {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
    return "\n".join(("00:1f.3 Example", *rows))


def tables():
    found = [
        *native_tables().values(),
        *(data for data in files("*") if data[:4] in {b"APIC", b"MCFG", b"FACP"}),
    ]
    found.append(good_dmar(rmrr(0x7000_0000, 0x7000_3FFF, scope(0, (3, 0)))))
    found.append(good_ivrs(ivhd(select(0x18)), ivmd(0x21, 0, 0x18, 0, 0x7000_0000, 0x4000)))
    found.append(any_table("XSDT", struct.pack("<QQ", 0x7FF0_0000, 0x7FF0_1000)))
    return found


def start_infos():
    return [BUILT.data]


def traces():
    return [content for _, content, _ in CONTENTS]


def frames():
    values = {str: "0000:00:1f.3", bool: True}
    return [
        request(name, {key: values[kind] for key, kind in method.parameters.items()}, more=method.stream)
        for name, method in METHODS.items()
    ]


def uevents():
    return [uevent(action, "0000:00:1f.3", 7) for action in ("add", "remove", "bind")] + [
        b"change@/devices/pci-3-0\0ACTION=change\0DEVPATH=/devices/pci-3-0\0SUBSYSTEM=xen-backend\0SEQNUM=8\0"
    ]


def settings():
    lines = [f"{name} = {json.dumps(value)}" for name, value in DEFAULTS.items()]
    return [b"", b'mode = "observe"\n[watch]\nsettle-ms = 50\n', "\n".join(lines).encode()]


@cache
def lived():
    """Give a machine that has lived a little, so that its ledger has entries of many kinds."""
    events = [("give", REGIONS[0].scope[0], 0), ("vfs", PHYSFN, 2), ("plug", FREE[0], 1)]
    world = Telling(**PVH)
    appended = []
    keep = world.store.append
    world.store.append = lambda steps: (appended.extend(steps), keep(steps))
    world.told([[event] for event in events])
    return world.engine.ledger, tuple(appended)


def ledgers():
    ledger, _ = lived()
    seen = {"boot_id": "boot", "mappings": mapped_to_json(ledger.mapped), "sizes": {"00_02.0": [[0, 4096]]}}
    boot = {"boot_id": "boot", "functions": ["0000:00:02.0"], "bridges": {"0000:00:1c.0": [2, 4]}}
    return [json.dumps(each).encode() for each in (ledger_to_json(ledger), seen, boot)]


def steps():
    _, appended = lived()
    return [json.dumps(step_to_json(step)).encode() for step in appended]


def iomems():
    return [*files("iomem"), *files("resource")[:4]]


def consoles():
    dump = HEAD + A + "".join(f"(XEN) {line}\n" for _, line, _ in DUMPED)
    complaints = "".join(f"(XEN) {row[0]}\n" for row in MESSAGES if isinstance(row[0], str))
    faults = "".join(
        f"(XEN) {line}\n" for row in LINES for line in (row[0] if isinstance(row[0], list) else [row[0]])
    )
    return [text.encode() for text in (dump, DUMP, GUEST, VTD, AMD, REFUSED, PARSE, complaints, faults)]


def xl_guests():
    """Guests' files, and single devices."""
    devices = [f'pci = [ "{text}" ]' for text, _ in DEVICES]
    return [text.encode() for text in (*(text for text, _ in READ), *devices)]


def hidden():
    """Command lines that hide functions."""
    return [line.encode() for line, _ in HIDDEN]


def words_of_xl():
    info = """\
host                   : dom0
xen_version            : 4.17.7
virt_caps              : pv hvm hvm_directio
xen_commandline        : placeholder dom0=pvh iommu=force
"""
    refused = "libxl: error: libxl_pci.c:900: libxl__device_pci_assignable_add: failed\n"
    return [info.encode(), refused.encode()]


def recorded_frames():
    """Give inputs of the C decoders: kind, options, where the stream is cut, records."""
    pair = struct.pack("<6I", 0x2008_2216, 0xCF8, 0x8000_FB04, 0x2008_2216, 0xCFC, 3)
    ports = struct.pack("<QQIHBB", 1, 0xCF8, 0x8000_FB04, 0, 4, 1) + struct.pack(
        "<QQIHBB", 2, 0xCFC, 3, 0, 2, 1
    )
    return [bytes([1, 0, 8, 0]) + pair, bytes([0, 0, 24, 0]) + ports]
