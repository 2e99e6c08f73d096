"""Registers that change sizes: Resizable BAR, VF Resizable BAR, System Page Size; and what Xen sizes."""

import struct

import attrs
import pytest

from pcipt.pci import parse_sbdf
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.xen.devices import SRIOV_AT, device
from tests.xen.versions import full_version

PF, VF, MIB = parse_sbdf("00:03.0"), parse_sbdf("00:03.1"), 1 << 20
CONTROL, NUMBER, PAGE = SRIOV_AT + 8, SRIOV_AT + 0x10, SRIOV_AT + 0x20
REBAR_AT, VF_REBAR_AT = 0x200, 0x240


def physical(*, at=0xFD00_0000, io=False):
    raw = device("00:03.0", (0x8_0000_0000, MIB, "64"), sriov=(4, 1, 1, [(at, MIB)]))
    data = bytearray(raw.config)
    struct.pack_into("<I", data, SRIOV_AT, REBAR_AT << 20 | 0x1_0010)
    struct.pack_into("<I", data, PAGE, 1)
    struct.pack_into("<III", data, REBAR_AT, VF_REBAR_AT << 20 | 0x1_0015, 0x70, 1 << 5)
    struct.pack_into("<III", data, VF_REBAR_AT, 0x1_0024, 0x70, 1 << 5)
    if io:
        data[SRIOV_AT + 0x24] |= 1
    return attrs.evolve(raw, config=bytes(data))


def sizes(hardware):
    hardware.write(PF, NUMBER, 2, 2)
    hardware.write(PF, CONTROL, 2, 9)
    return [(span.start, span.size) for number in (0, 1)
            for _, span in hardware.memory_bars(parse_sbdf(f"00:03.{number + 1}"))]  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "value", "size"),
    [(PAGE, 1 << 0, MIB), (PAGE, 1 << 9, 2 * MIB), (VF_REBAR_AT + 8, 0x200, 4 * MIB)],
)
def test_virtual_functions_lie_behind_each_other(offset, value, size):
    hardware = BusHardware([physical()])
    hardware.write(PF, offset, 4, value)
    assert sizes(hardware) == [(0xFD00_0000 & -size, size), ((0xFD00_0000 & -size) + size, size)]


def test_the_page_size_stays_while_virtual_functions_are_on():
    hardware = BusHardware([physical()])
    assert [size for _, size in sizes(hardware)] == [MIB, MIB]
    hardware.write(PF, PAGE, 4, 1 << 9)
    assert [size for _, size in sizes(hardware)] == [MIB, MIB]


def test_a_bar_grows_and_its_low_address_bits_go():
    hardware = BusHardware([physical()])
    hardware.write(PF, 0x10, 4, 0x10_0000)
    hardware.write(PF, REBAR_AT + 8, 4, 0x200)
    assert hardware.memory_bars(PF)[0][1].size == 4 * MIB
    assert hardware.memory_bars(PF)[0][1].start == 0x8_0000_0000


@pytest.mark.parametrize(("control", "expected"), [(0, {0: 2 * MIB}), (0x1, {}), (0x8, {}), (0x9, {})])
def test_xen_sizes_vf_bars_while_they_are_off(control, expected):
    hardware = BusHardware([physical()])
    xen = SimulatedXen(hardware, XenIdentity("4.20.4", Dom0Kind.PV), known=[])
    hardware.write(PF, VF_REBAR_AT + 8, 4, 0x100)
    hardware.write(PF, CONTROL, 2, control)
    assert xen.kernel_add(PF) == 0
    assert xen.devices[PF].vf_sizes == expected
    hardware.write(PF, CONTROL, 2, 0)
    assert xen.kernel_add(PF) == 0  # told again, Xen sizes them
    assert xen.devices[PF].vf_sizes == {0: 2 * MIB}
    assert hardware.config(PF)[SRIOV_AT + 0x24 : SRIOV_AT + 0x28] == struct.pack("<I", 0xFD00_0000)


def test_what_xen_found_at_boot_is_sized_although_virtual_functions_are_on():
    raw = physical()
    data = bytearray(raw.config)
    data[CONTROL] = 9
    xen = SimulatedXen(
        BusHardware([attrs.evolve(raw, config=bytes(data))]), XenIdentity("4.17.7", Dom0Kind.PV)
    )
    assert xen.devices[PF].vf_sizes == {0: MIB}


@pytest.mark.parametrize(
    ("version", "hangs"), [((4, 17), True), ((4, 19, 3), True), ((4, 19, 4), False), ((4, 20, 2), False)]
)
def test_a_vf_bar_for_ports_hangs_xen(version, hangs):
    hardware = BusHardware([physical(io=True)])
    xen = SimulatedXen(hardware, XenIdentity(full_version(version), Dom0Kind.PV), known=[])
    if hangs:
        with pytest.raises(Catastrophe):
            xen.kernel_add(PF)
    else:
        assert xen.kernel_add(PF) == 0
