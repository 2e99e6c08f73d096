"""The PVH boot contract on a real Xen: dom0's tables and address space, and a guest as xl makes it.

What dom0 says is compared with two witnesses that know nothing of it: Xen's own console, and a probe
that reads /dev/mem (unmapped: all ones; mapped, nobody answers: zeros).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pcipt.firmware.pvh.build_tables import build_hardware_tables
from pcipt.pci import Address
from tests.pvh import KERNEL_AT, build_kernel, noted_ebx

from . import inside
from .cell import Vendor
from .hardware import PARTS, VCPUS
from .machine import Dom0

PAGE = 4096
GUEST_TABLES = 0xFC00_0000
#: The table that tells of the IOMMUs.
UNITS: dict[Vendor, str] = {"intel": "DMAR", "amd": "IVRS"}
CONFIG = """\
name = "pvhguest"
type = "pvh"
kernel = "/root/pvh/kernel"
ramdisk = "/root/pvh/initrd"
cmdline = "console=hvc0 pcipt lab"
memory = 32
vcpus = 3
on_poweroff = "preserve"
on_crash = "preserve"
"""
INITRD = bytes(range(256)) * 20
E820 = re.compile(r"\[([0-9a-f]{16}), ([0-9a-f]{16})\] \((.*)\)")
XEN_NAMES = {
    "usable": "ram",
    "reserved": "reserved",
    "ACPI data": "acpi",
    "unusable": "unusable",
    "ACPI NVS": "nvs",
}


@pytest.fixture
def pvh(dom0: Dom0) -> Dom0:
    if dom0.mode != "pvh":
        pytest.skip("a PV dom0 is handed nothing by the PVH contract")
    return dom0


def pcipt(dom0: Dom0, arguments: str) -> tuple[int, Any]:
    result = dom0.run(f"pcipt pvh {arguments} --json=short", check=False)
    assert result.rc in (0, 4), result.stderr
    return result.rc, result.json()


def findings(rows: list[dict[str, Any]], verdict: str) -> list[tuple[str, str]]:
    return [(row["rule"], row["table"]) for row in rows if row["verdict"] == verdict]


def physical(address: int, size: int) -> str:
    """Read memory through /dev/mem; give its bytes as hex."""
    import mmap
    import os

    memory = os.open("/dev/mem", os.O_RDONLY)  # O_SYNC asks for uncached pages; the kernel has these cached
    first = address // 4096 * 4096
    view = mmap.mmap(memory, address + size - first, mmap.MAP_SHARED, mmap.PROT_READ, offset=first)
    os.close(memory)
    return bytes(view[address - first :]).hex()


def foreign_pages(domain: int, first: int, count: int, target: str) -> int:
    """Copy pages of a guest into a file through libxenforeignmemory; give how many there were.

    The file ends before the first page that is not there.
    """
    import ctypes

    library = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
    library.xenforeignmemory_open.restype = ctypes.c_void_p
    library.xenforeignmemory_map.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.xenforeignmemory_open(None, 0))
    if not handle:
        raise OSError(ctypes.get_errno(), "xenforeignmemory_open")
    with open(target, "wb") as out:
        for number in range(count):
            frames = (ctypes.c_uint64 * 1)(first + number)
            errors = (ctypes.c_int * 1)()
            at = library.xenforeignmemory_map(
                handle, ctypes.c_uint32(domain), 1, ctypes.c_size_t(1), frames, errors
            )
            if not at or errors[0]:
                return number
            out.write(ctypes.string_at(at, 4096))
            library.xenforeignmemory_unmap(handle, ctypes.c_void_p(at), ctypes.c_size_t(1))
    return count


def test_the_real_tables_keep_the_contract(installed: Dom0, pvh: Dom0) -> None:
    _, said = pcipt(pvh, f"check --vcpus {VCPUS['pvh']}")
    for row in said["rows"]:
        print(row)
    assert said["domain"] == "hardware"
    assert findings(said["rows"], "error") == []
    listed = pvh.run("ls /sys/firmware/acpi/tables").stdout.split()
    assert {"APIC", "DSDT", "FACP", "FACS", "MCFG"} <= set(listed)
    assert ("forbidden", "all") in findings(said["rows"], "ok")
    assert findings(said["rows"], "warn") == []


def test_what_we_would_build_is_what_xen_built(pvh: Dom0) -> None:
    """Xen's console tells where the machine's own tables are, and they are still there to be read."""
    native = {}
    for name, at, size in re.findall(r"ACPI: (\w{4}) ([0-9A-F]{8}), ([0-9A-F]{4})", pvh.console()):
        if name not in ("RSDP", "RSDT"):
            native[name] = bytes.fromhex(pvh.call(physical, int(at, 16), int(size, 16)))
            assert native[name][:4] == name.encode()
    assert {"APIC", "FACP", "MCFG", UNITS[pvh.cell.platform.vendor]} <= set(native)
    built = build_hardware_tables(native.values(), VCPUS["pvh"], Address(0x4006_0000))
    names = {table.signature for table in built.tables} - {"XSDT"}
    there = set(pvh.run("ls -p /sys/firmware/acpi/tables | grep -v /").stdout.split())
    assert names == there
    for table in built.tables:
        if table.signature in names - {"FACS"}:  # the FACS is written to while the machine runs
            assert table.data == pvh.fetch(f"/sys/firmware/acpi/tables/{table.signature}"), table.signature


def test_a_pv_dom0_is_told_that_it_is_none(installed: Dom0, dom0: Dom0) -> None:
    if dom0.mode != "pv":
        pytest.skip("this is the PVH dom0")
    code, said = pcipt(dom0, "check")
    assert code == 4
    assert ("domain", "all") in findings(said["rows"], "warn")
    left = {"intel": "RMAD", "amd": "IVRS"}[dom0.cell.platform.vendor]  # Xen renames DMAR only
    assert ("forbidden", left) in findings(said["rows"], "error")


def test_xens_own_map_is_the_layouts(installed: Dom0, pvh: Dom0) -> None:
    console = pvh.console()
    told = console[console.index("Dom0 memory map:") :].split("WARNING: PVH")[0]
    xen = [(int(first, 16), int(last, 16), XEN_NAMES[kind]) for first, last, kind in E820.findall(told)]
    assert len(xen) > 8
    _, said = pcipt(pvh, "layout")
    print(pvh.run("pcipt pvh layout", check=False).stdout)
    ranges = [(int(r["start"], 16), int(r["last"], 16), r) for r in said["ranges"]]
    for first, last, kind in xen:
        for address in (first, last):
            (place,) = [r for low, high, r in ranges if low <= address <= high]
            if kind == "ram":
                assert place["treatment"] == "ram", (hex(address), place)
            elif kind == "unusable":
                # Linux 6.9 and later list it as RAM: it is room for dom0's balloon (38620fc4e893)
                listed = ("withheld", "ram") if pvh.cell.platform.suite == "trixie" else ("withheld",)
                assert place["treatment"] in listed, (hex(address), place)
            elif kind == "acpi":
                assert place["treatment"] in ("ram", "identity"), (hex(address), place)
            else:
                assert place["treatment"] in ("identity", "trapped", "withheld"), (hex(address), place)
    # and nothing is RAM of dom0 that Xen does not call usable, its own tables apart
    for low, high, place in ranges:
        if place["treatment"] == "ram" and "made by Xen" not in place["what"]:
            usable = ("ram", "unusable") if pvh.cell.platform.suite == "trixie" else ("ram",)
            assert any(first <= low and high <= last for first, last, kind in xen if kind in usable), place


def samples(low: int, high: int, count: int = 24) -> list[int]:
    """Choose pages of a range: the first ones, the last one, and some in between."""
    pages = range(low // PAGE * PAGE, high + 1, PAGE)
    step = max(1, len(pages) // count)
    return sorted({*pages[:4], *pages[::step], pages[-1]})


def test_it_can_be_drawn(installed: Dom0, pvh: Dom0) -> None:
    pvh.run("pcipt pvh layout --svg /root/layout.svg", check=False)
    drawing = pvh.fetch("/root/layout.svg")
    (pvh.output / "layout.svg").write_bytes(drawing)
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert b"MMCFG segment 0000" in drawing


@pytest.mark.fresh
def test_the_machine_maps_what_the_layout_says(installed: Dom0, pvh: Dom0) -> None:
    _, said = pcipt(pvh, "layout")
    wanted = []
    for number, place in enumerate(said["ranges"]):
        low, high = int(place["start"], 16), int(place["last"], 16)
        if place["treatment"] == "ram" and low >= 1 << 20:
            continue  # the kernel lets nobody read RAM through /dev/mem
        wanted += [(number, address) for address in samples(low, high)]
    read = pvh.call(inside.probe, [address for _, address in wanted], timeout=300)
    by_range: dict[int, list[tuple[int, str]]] = {}
    for (number, address), value in zip(wanted, read, strict=True):
        if value is not None:
            by_range.setdefault(number, []).append((address, value))
    checked = {"identity": 0, "hole": 0, "withheld": 0, "trapped": 0, "emulated": 0}
    wrong = []
    for number, values in by_range.items():
        place = said["ranges"][number]
        ones = [f"{address:#x}" for address, value in values if value == "ffffffff"]
        others = [f"{address:#x}" for address, value in values if value != "ffffffff"]
        kind = place["treatment"]
        print(
            f"{place['start']} {place['last']} {kind} {place['what']}: {len(ones)} ones, {len(others)} others"
        )
        if kind in ("hole", "withheld") and others:
            wrong.append((place, "mapped", others[:4]))
        if kind in ("identity", "trapped") and not others:
            wrong.append((place, "not mapped", ones[:4]))
        if kind in checked:
            checked[kind] += len(values)
    assert wrong == []
    assert all(checked[kind] for kind in ("identity", "hole", "withheld", "trapped", "emulated")), checked
    bars = [r for r in said["ranges"] if " BAR " in r["what"] and r["treatment"] == "identity"]
    assert {part.sbdf for part in PARTS if part.name in ("nic", "nvme", "ahci")} <= {
        word for r in bars for word in r["what"].replace(",", " ").split()
    }


@pytest.fixture
def guest(pvh: Dom0, tmp_path: Path) -> int:
    """Start a PVH guest whose kernel notes ebx and halts; give its number."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler to assemble the guest's kernel")
    pvh.put("/root/pvh/kernel", build_kernel(tmp_path).read_bytes())
    pvh.put("/root/pvh/initrd", INITRD)
    pvh.put("/root/pvh/guest.cfg", CONFIG.encode())
    pvh.run("/etc/init.d/xen start; systemctl start xen 2>/dev/null; xl list", timeout=180)
    pvh.run("xl create /root/pvh/guest.cfg", timeout=180)
    yield int(pvh.run("xl domid pvhguest").stdout)
    pvh.run("xl destroy pvhguest", timeout=120, check=False)


def test_a_guest_as_xl_makes_it(installed: Dom0, pvh: Dom0, guest: int) -> None:
    kernel = KERNEL_AT // PAGE
    ebx = None
    for _ in range(40):
        assert pvh.call(foreign_pages, guest, kernel, 1, "/root/pvh/page") == 1
        ebx = noted_ebx(pvh.fetch("/root/pvh/page"))
        if ebx is not None:
            break
    assert ebx is not None, "the guest's kernel has not run"
    pages = pvh.call(foreign_pages, guest, ebx // PAGE, 16, "/root/pvh/low.bin")
    acpi = pvh.call(foreign_pages, guest, GUEST_TABLES // PAGE, 64, "/root/pvh/acpi.bin")
    print(f"ebx {ebx:#x}, {pages} pages from there, {acpi} pages of tables")
    assert pages >= 1
    assert acpi >= 1
    arguments = f"/root/pvh/low.bin /root/pvh/acpi.bin --at {ebx // PAGE * PAGE:#x} --at {GUEST_TABLES:#x}"
    print(pvh.run(f"pcipt pvh startinfo {arguments}", check=False).stdout)
    code, said = pcipt(pvh, f"startinfo {arguments}")
    info = said["start_info"]
    assert int(info["address"], 16) == ebx
    assert (info["version"], info["flags"], info["domain"]) == (1, "0x0", "guest")
    assert info["cmdline"] == "console=hvc0 pcipt lab"
    assert [module["size"] for module in info["modules"]] == [len(INITRD)]
    assert sum(e["size"] for e in info["memory_map"] if e["kind"] == "ram") <= 33 << 20
    module = int(info["modules"][0]["address"], 16)
    copied = pvh.call(foreign_pages, guest, module // PAGE, 2, "/root/pvh/module")
    assert copied == 2
    assert pvh.fetch("/root/pvh/module")[: len(INITRD)] == INITRD
    assert findings(said["rows"], "error") == []
    assert findings(said["rows"], "warn") == [("pcat-compat", "APIC")]
    assert code == 4
    by_rule = {(row["rule"], row["table"].split()[0]): row["reason"] for row in said["rows"]}
    assert by_rule["local-apics", "APIC"].startswith("3 ")
    assert by_rule["io-apic", "APIC"] == "no IO-APIC"
    assert by_rule["no-vga", "FACP"] == "NO_VGA is set"
