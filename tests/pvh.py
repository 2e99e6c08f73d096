"""What tests of the PVH boot ABI share: native tables made of a few words, iasl, a kernel that halts."""

import re
import shutil
import subprocess

import pytest

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.dsdt import build_dsdt
from pcipt.firmware.acpi.fadt import Field, build_fadt, make_fadt
from pcipt.firmware.acpi.madt import (
    InterruptOverride,
    IoApic,
    LocalApic,
    Madt,
    OtherEntry,
    build_madt,
    parse_madt,
)
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.build_tables import build_facs
from pcipt.firmware.pvh.layout import Platform, compute_layout
from pcipt.pci import Address
from pcipt.pci.write import EcamRegion
from tests.machines import function, machine

OEM = {"oem_id": b"LAPTOP", "oem_table_id": b"MODEL   ", "oem_revision": 7}
IO_APIC = IoApic(0, Address(0xFEC0_0000), 0)
SECOND = IoApic(1, Address(0xFEC1_0000), 24)
TIMER = InterruptOverride(0, 2, 0)
SCI = InterruptOverride(9, 9, 0xD)
NMI = OtherEntry(4, bytes([4, 6, 0xFF, 0, 0, 1]))

DSDT_AT, FACS_AT = 0x7FE0_0040, 0x7FE0_0000


def native_madt(*entries):
    apics = (LocalApic(0, 0), LocalApic(1, 1), LocalApic(2, 2), LocalApic(3, 3))
    return build_madt(Madt(Header("APIC", 5, **OEM), Address(0xFEE0_0000), 1, (*apics, *entries)))


def native_fadt(**fields):
    values = {Field.FACS: FACS_AT, Field.DSDT: DSDT_AT, Field.X_DSDT: DSDT_AT, Field.SCI_INT: 9}
    values |= {Field.IAPC_BOOT_ARCH: 0x3, Field.FLAGS: 0x4A5, Field.PM_TMR: 0x608, Field.PM_TMR_LEN: 4}
    values |= {Field[name]: value for name, value in fields.items()}
    return build_fadt(make_fadt(Header("FACP", 5, **OEM), values))


def any_table(signature, body=bytes(8)):
    return build_table(Header(signature, 1, **OEM), body)


def mcfg(base=0xB000_0000, last=0xFF):
    entry = base.to_bytes(8, "little") + bytes([0, 0, 0, last]) + bytes(4)
    return any_table("MCFG", bytes(8) + entry)


def native_tables():
    """Give the tables of a machine, by the names they have in sysfs."""
    return {
        "FACP": native_fadt(),
        "APIC": native_madt(IO_APIC, SECOND, TIMER, SCI, NMI),
        "DSDT": build_dsdt(Header("DSDT", 2, **OEM), 4),
        "FACS": build_facs(),
        "MCFG": mcfg(),
        "SSDT1": build_dsdt(Header("SSDT", 2, **OEM), 1),
        "HPET": any_table("HPET"),
        "DMAR": any_table("DMAR", bytes(12)),
        "MSDM": any_table("MSDM", b"a licence key"),
        "WAET": any_table("WAET"),
    }


# a small machine's address space
RAM, RESERVED, ACPI, NVS, UNUSABLE = (
    MemoryType.RAM, MemoryType.RESERVED, MemoryType.ACPI, MemoryType.NVS, MemoryType.UNUSABLE,
)  # fmt: skip
MAP = (
    entry(0, 0x9FC00, RAM),
    entry(0x9FC00, 0x400, RESERVED),
    entry(0xF_0000, 0x1_0000, RESERVED),
    entry(0x10_0000, 0x4000_0000 - 0x10_0000, RAM),
    entry(0x4000_0000, 0x3FE0_0000, UNUSABLE),
    entry(0x7FE0_0000, 0x10_0000, NVS),
    entry(0x7FF0_0000, 0xF_0000, ACPI),
    entry(0x7FFF_0000, 0x1_0000, RESERVED),
    entry(0xB000_0000, 0x1000_0000, RESERVED),
    entry(0xFD_0000_0000, 0x3_0000_0000, RESERVED),
)
NIC = function("00:03.0", command=2, bars=(0xFEB0_0000,), resources=((0xFEB0_0000, 0x2_0000, 0x200),))
MADT = parse_madt(parse_table(native_madt(IO_APIC, SECOND)))


def layout_of(memory=MAP, **more):
    given = {"machine": machine(NIC), "ecam": (EcamRegion(0xB000_0000),), "madt": MADT, **more}
    return compute_layout(Platform(memory, **given))


def iasl(*arguments, cwd):
    """Run iasl; skip where it is not installed. Give its exit code and all it said."""
    if shutil.which("iasl") is None:
        pytest.skip("iasl is not installed (package acpica-tools)")
    done = subprocess.run(
        ["iasl", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def disassemble(data, directory, name="table"):
    """Give iasl's text of a table; fail where it has anything to say against it."""
    (directory / f"{name}.aml").write_bytes(data)
    code, said = iasl("-d", f"{name}.aml", cwd=directory)
    assert code == 0, said
    assert not re.search(r"warning|error|invalid|truncat|could not|unknown", said, re.IGNORECASE), said
    text = (directory / f"{name}.dsl").read_text()
    assert "Invalid" not in text
    assert "Incorrect" not in text
    return text


def reassemble(directory, name="table"):
    """Give the bytes that iasl makes of its own text; fail where it warns."""
    code, said = iasl("-p", "again", f"{name}.dsl", cwd=directory)
    assert code == 0, said
    assert re.search(r"0 Errors, 0 Warnings, 0 Remarks", said), said
    return (directory / "again.aml").read_bytes()


def apart_from_compiler(data):
    """Blank what iasl writes anew: compiler id and revision, hence the checksum."""
    return data[:9] + b"\0" + data[10:28] + bytes(8) + data[36:]


KERNEL = """\
    .code32
    .text
    .globl _start
_start:
    movl %ebx, saved
    movl $0x600d600d, saved + 4
1:  cli
    hlt
    jmp 1b
    .balign 16
    .long 0x70636970
saved:
    .long 0, 0
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
    .section .note.GNU-stack, "", @progbits
"""
KERNEL_AT = 0x10_0000
MARK = 0x7063_6970.to_bytes(4, "little")
DONE = 0x600D_600D.to_bytes(4, "little")


def build_kernel(directory):
    """Assemble a PVH kernel that notes ebx behind a mark and halts; skip without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to assemble a kernel")
    (directory / "kernel.S").write_text(KERNEL)
    command = [compiler, "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-N"]
    command += [
        f"-Wl,-Ttext={KERNEL_AT:#x}",
        "-Wl,--section-start=.note.Xen=0x101000",
        "-o",
        "kernel",
        "kernel.S",
    ]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    return directory / "kernel"


def noted_ebx(page):
    """Read the kernel's note out of its memory; None while it has not run."""
    at = page.find(MARK)
    if at < 0 or page[at + 8 : at + 12] != DONE:
        return None
    return int.from_bytes(page[at + 4 : at + 8], "little")
