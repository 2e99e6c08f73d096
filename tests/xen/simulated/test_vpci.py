"""vPCI on simulated hardware: each row of what a PVH dom0's Xen does to a config write."""

import errno

import pytest

from pcipt.errors import HypervisorError
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.xen.interface import DeviceFlags, Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.versions import EACH_RELEASE, full_version

S = parse_sbdf
NIC, SMALL, BRIDGE, CARDBUS = S("00:03.0"), S("00:04.0"), S("00:05.0"), S("00:06.0")
PVH = XenIdentity("4.17.7", Dom0Kind.PVH)
RAM = Frames(Gfn(0x100), 0x3FF00)
COMMAND, ON, OFF = 0x04, 0x2, 0x0


def frames(start, count=1):
    return Frames(Gfn(start), count)


def machine(*raws, dom0=Dom0Kind.PVH, **more):
    hardware = BusHardware(raws)
    return SimulatedXen(hardware, XenIdentity("4.17.7", dom0), memory=[RAM], **more), hardware


def usual(**more):
    """A NIC with its MSI-X in the middle of BAR 0 and a ROM, two BARs in one page, two odd headers."""
    return machine(
        device("00:03.0", (0xFE000000, 0x4000), (0xE0000000, 0x200000, "64"), msix=(0, 0x1000, 0x1800),
               rom=(0xFD000000, 0x2000)),
        device("00:04.0", (0xFE100000, 0x800), (0xFE100800, 0x100)),
        port("00:05.0", 1, 1),
        device("00:06.0", header=2),
        **more,
    )  # fmt: skip


NIC_PAGES = [frames(0xE0000, 0x200), frames(0xFE000), frames(0xFE002, 2)]
ALL_PAGES = [*NIC_PAGES, frames(0xFE100)]


def test_at_boot_what_decodes_is_mapped_but_for_msix():
    xen, hardware = usual()
    assert xen.p2m.direct() == ALL_PAGES
    assert all(hardware.decodes_memory(function) for function in (NIC, SMALL))


def test_a_header_that_vpci_does_not_know_is_dom0s_and_untrapped():
    xen, _ = usual()
    assert xen.known([CARDBUS]) == [True]
    assert not xen.vpci.traps(CARDBUS)
    assert xen.vpci.traps(BRIDGE)


def test_decode_off_unmaps_and_on_maps_again():
    xen, hardware = usual()
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert xen.p2m.direct() == [frames(0xFE100)]
    assert not hardware.decodes_memory(NIC)
    xen.write_config(NIC, COMMAND, 4, 0x0004)  # bus master alone passes, status is written with it
    assert hardware.config(NIC)[COMMAND] == 0x4
    xen.write_config(NIC, COMMAND, 1, ON | 0x4)
    assert xen.p2m.direct() == ALL_PAGES


def test_bars_that_share_a_page_are_unmapped_and_mapped_as_one():
    xen, _ = usual()
    for command, pages in ((OFF, NIC_PAGES), (ON, ALL_PAGES)):  # one rangeset holds the page once
        xen.write_config(SMALL, COMMAND, 2, command)
        assert xen.p2m.direct() == pages
        assert xen.vpci.traps(SMALL)


def test_a_bar_write_while_decoding_is_ignored():
    xen, hardware = usual()
    before = hardware.config(NIC)
    for value in (0xFE200000, 0xFFFFFFFF):
        xen.write_config(NIC, 0x10, 4, value)
    assert hardware.config(NIC) == before
    assert xen.vpci.ignored == 2
    xen.write_config(NIC, 0x10, 4, 0xFE000000)  # the value that is there: not worth a word
    assert xen.vpci.ignored == 2


def test_a_bar_moves_while_decode_is_off():
    xen, _ = usual()
    xen.write_config(NIC, COMMAND, 2, OFF)
    xen.write_config(NIC, 0x10, 4, 0xFE200000)
    xen.write_config(NIC, 0x18, 4, 0x1)
    assert xen.p2m.direct() == [frames(0xFE100)]
    xen.write_config(NIC, COMMAND, 2, ON)
    assert xen.p2m.direct() == [frames(0xFE100), frames(0xFE200), frames(0xFE202, 2), frames(0x1E0000, 0x200)]


def test_halves_and_bytes_of_a_bar_are_put_together():
    xen, hardware = usual()
    xen.write_config(NIC, COMMAND, 2, OFF)
    xen.write_config(NIC, 0x12, 2, 0xFE30)
    assert dict(hardware.memory_bars(NIC))[0].start == 0xFE300000
    xen.write_config(NIC, COMMAND, 2, ON)
    assert xen.p2m.mapped(frames(0xFE300))


def test_sizing_while_decode_is_off_shows_the_mask():
    xen, hardware = usual()
    xen.write_config(NIC, COMMAND, 2, OFF)
    xen.write_config(NIC, 0x10, 4, 0xFFFFFFFF)
    assert hardware.config(NIC)[0x10:0x14] == (0xFFFFC000).to_bytes(4, "little")
    xen.write_config(NIC, 0x10, 4, 0xFE000000)
    xen.write_config(NIC, COMMAND, 2, ON)
    assert xen.p2m.direct() == ALL_PAGES


def test_a_page_shared_by_two_functions_stays_while_one_has_it():
    xen, _ = machine(device("00:03.0", (0xFE000000, 0x800)), device("00:04.0", (0xFE000800, 0x800)))
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert xen.p2m.direct() == [frames(0xFE000)]
    xen.write_config(SMALL, COMMAND, 2, OFF)
    assert xen.p2m.direct() == []


def test_the_rom():
    xen, _ = usual()
    xen.write_config(NIC, 0x30, 4, 0xFD000001)
    assert xen.p2m.mapped(frames(0xFD000, 2))
    xen.write_config(NIC, 0x30, 4, 0xFC000001)  # enabled and to be enabled: ignored
    assert xen.vpci.ignored == 1
    xen.write_config(NIC, 0x30, 4, 0xFC000000)
    assert not xen.p2m.touched(frames(0xFD000, 2))
    xen.write_config(NIC, COMMAND, 2, OFF)
    xen.write_config(NIC, 0x30, 4, 0xFC000001)
    assert not xen.p2m.touched(frames(0xFC000, 2))
    xen.write_config(NIC, COMMAND, 2, ON)
    assert xen.p2m.mapped(frames(0xFC000, 2))
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert not xen.p2m.touched(frames(0xFC000, 2))


def test_a_rom_that_a_switch_left_out_counts_as_mapped_where_it_goes():
    """Xen's own code, 4.17.7 to 4.20.0, seed 2095 of the oracle: its address in RAM is not mapped."""
    xen, _ = usual()
    xen.write_config(NIC, 0x30, 4, 0xFD000001)
    xen.write_config(NIC, 0x30, 4, 0x200000)
    for function in (NIC, SMALL):
        xen.write_config(function, COMMAND, 2, OFF)
    xen.write_config(NIC, 0x30, 4, 0xFE100000)
    xen.write_config(SMALL, COMMAND, 2, ON)
    assert not xen.p2m.touched(frames(0xFE100))


def test_a_bar_over_ram_is_not_mapped():
    xen, _ = machine(device("00:03.0", (0x200000, 0x4000), (0xFE000000, 0x1000)))
    assert xen.p2m.direct() == [frames(0xFE000)]
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert xen.p2m.direct() == []


def test_removal_leaves_the_mappings_and_takes_the_handlers():
    xen, hardware = usual()
    xen.remove_device(NIC)
    assert xen.p2m.direct() == ALL_PAGES
    xen.write_config(NIC, 0x10, 4, 0xFE200000)
    assert dict(hardware.memory_bars(NIC))[0].start == 0xFE200000
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert xen.p2m.direct() == ALL_PAGES


def test_an_added_function_is_mapped_where_it_is():
    xen, hardware = usual()
    xen.remove_device(NIC)
    xen.unmap_mmio(frames(0xFE000))
    xen.write_config(NIC, 0x10, 4, 0xFE200000)
    xen.add_device(NIC, DeviceFlags())
    assert xen.p2m.mapped(frames(0xFE200))
    assert not xen.p2m.touched(frames(0xFE201))
    assert hardware.decodes_memory(NIC)
    assert xen.p2m.mapped(frames(0xFE002))  # stale: nobody takes it away


def test_a_hot_plugged_function_is_mapped_when_it_decodes():
    xen, hardware = usual()
    hardware.plug(device("00:07.0", (0xFE300000, 0x1000), command=0))
    assert xen.kernel_add(S("00:07.0")) == 0
    assert not xen.p2m.touched(frames(0xFE300))
    xen.write_config(S("00:07.0"), COMMAND, 2, ON)
    assert xen.p2m.mapped(frames(0xFE300))
    hardware.pull(S("00:07.0"))
    xen.kernel_remove(S("00:07.0"))
    assert xen.p2m.mapped(frames(0xFE300))


def test_unmapping_behind_vpcis_back_costs_the_function_its_handlers():
    xen, hardware = usual()
    xen.unmap_mmio(frames(0xFE000))
    xen.write_config(NIC, COMMAND, 2, OFF)
    assert not xen.vpci.traps(NIC)
    assert not hardware.decodes_memory(NIC)


def test_mapping_over_a_trapped_msix_table_is_a_catastrophe():
    xen, _ = usual()
    with pytest.raises(Catastrophe) as caught:
        xen.map_mmio(frames(0xFE000, 4))
    assert str(NIC) in caught.value.why
    xen, _ = usual()
    xen.remove_device(NIC)
    xen.map_mmio(frames(0xFE000, 4))  # nobody traps it now


def test_a_function_whose_handlers_cannot_be_set_up_is_nobodys_when_added():
    xen, hardware = usual()
    hardware.plug(device("00:06.0", (0xFE300000, 0x1000), header=2))
    xen.remove_device(CARDBUS)
    with pytest.raises(HypervisorError) as caught:
        xen.add_device(CARDBUS, DeviceFlags())
    assert caught.value.errno == errno.EOPNOTSUPP
    assert xen.owners()[CARDBUS] == Owner(OwnerKind.NOBODY)


def test_virtual_functions_are_taken_at_face_value():
    vfs = device("00:03.0", (0xFE000000, 0x1000), sriov=(2, 8, 1, [(0xFD000000, 0x4000)]))
    xen, hardware = machine(vfs)
    xen.write_config(NIC, SRIOV_AT + 0x10, 2, 2)
    xen.write_config(NIC, SRIOV_AT + 8, 2, 0x9)
    for function in (S("00:04.0"), S("00:04.1")):
        assert xen.kernel_add(function) == 0
        assert xen.devices[function].flags.physfn == NIC
    assert xen.p2m.direct() == [frames(0xFE000)]
    assert hardware.decodes_memory(S("00:04.1"))


def test_on_pv_nothing_is_trapped_and_nothing_mapped():
    xen, hardware = usual(dom0=Dom0Kind.PV)
    assert (xen.vpci, xen.p2m) == (None, None)
    xen.write_config(NIC, 0x10, 4, 0xFE200000)
    assert dict(hardware.memory_bars(NIC))[0].start == 0xFE200000


def test_renumbering_as_measured():
    """The recipe of 4.17: add at the new number, remove the ghost; the BAR is readable throughout."""
    xen, hardware = machine(port("00:1c.0", 2, 9), device("02:00.0", (0xFE000000, 0x1000)))
    old, new = S("02:00.0"), S("05:00.0")
    xen.write_config(S("00:1c.0"), 0x19, 1, 5)
    assert hardware.presence(old) is None
    xen.add_device(new, DeviceFlags())
    xen.remove_device(old)
    assert xen.p2m.direct() == [frames(0xFE000)]
    xen.write_config(new, COMMAND, 2, OFF)
    assert xen.p2m.direct() == []
    xen.write_config(new, COMMAND, 2, ON)
    assert xen.p2m.direct() == [frames(0xFE000)]


# A reset that vPCI does not see: it drops what Linux writes back, silently

EACH = list(map(full_version, EACH_RELEASE))


def of_version(version):
    hardware = BusHardware([device("00:03.0", (0xFE000000, 0x4000))])
    return SimulatedXen(hardware, XenIdentity(version, Dom0Kind.PVH), memory=[RAM]), hardware


@pytest.mark.parametrize("version", EACH)
def test_after_a_reset_vpci_drops_what_linux_writes_back_and_says_nothing(version):
    xen, hardware = of_version(version)
    hardware.reset(NIC)
    xen.write_config(NIC, 0x10, 4, 0xFE000000)
    xen.write_config(NIC, COMMAND, 2, ON)
    assert hardware.config(NIC)[0x10:0x14] == bytes(4)
    assert hardware.decodes_memory(NIC)
    assert xen.vpci.ignored == 0
    assert xen.p2m.direct() == [frames(0xFE000, 4)]
    for offset, value in ((COMMAND, OFF), (0x10, 0xFE000000), (COMMAND, ON)):
        xen.write_config(NIC, offset, 4, value)
    assert hardware.config(NIC)[0x10:0x14] == (0xFE000000).to_bytes(4, "little")
    assert xen.p2m.direct() == [frames(0xFE000, 4)]


@pytest.mark.parametrize("version", EACH)
def test_a_reset_that_xen_is_told_of_sets_vpci_up_anew_and_unmaps_nothing(version):
    xen, hardware = of_version(version)
    hardware.reset(NIC)
    told = xen.kernel_reset(NIC)
    xen.write_config(NIC, 0x10, 4, 0xFE100000)
    xen.write_config(NIC, COMMAND, 2, ON)
    if version < "4.20":
        assert told == -errno.ENOSYS
        assert xen.p2m.direct() == [frames(0xFE000, 4)]
    else:
        assert told == 0
        assert xen.p2m.direct() == [frames(0xFE000, 4), frames(0xFE100, 4)]
        assert xen.kernel_reset(S("00:09.0")) == -errno.ENODEV
        xen.give(NIC, Owner(OwnerKind.NOBODY))
        with pytest.raises(Catastrophe):
            xen.kernel_reset(NIC)


@pytest.mark.parametrize("version", EACH)
def test_a_function_that_comes_back_is_trapped_as_before_or_anew(version):
    xen, hardware = of_version(version)
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 1))
    hardware.write(NIC, 0x10, 4, 0xFE100000)
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 0))
    stale = frames(0xFE000, 4)
    assert xen.p2m.direct() == ([stale] if version < "4.19" else [stale, frames(0xFE100, 4)])
