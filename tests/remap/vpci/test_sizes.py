"""The sizes that vPCI has of Resizable BARs, and what follows for the pages of a function."""

import struct

import attrs
import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import decode_machine
from pcipt.remap.desired import By, desired_of
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.vpci.sizes import oversized, sees_resizing, sizes_at_setup
from tests.remap.devices import S, known
from tests.xen.devices import device
from tests.xen.versions import version_of

MIB, AT, ADDRESS = 1 << 20, 0x40_0000_0000, S("00:05.0")


def gpu(size, *, driver=None, command=2, msix=None):
    raw = device(
        "00:05.0", (AT, size * MIB, "64"), (0xC000_0000, 0x1000), driver=driver, command=command, msix=msix
    )
    data = bytearray(raw.config).ljust(4096, b"\0")
    struct.pack_into("<III", data, 0x100, 0x1_0015, 0x7FF0, 1 << 5 | (size.bit_length() - 1) << 8)
    return attrs.evolve(raw, config=bytes(data))


def function(*arguments, **more):
    return decode_machine([gpu(*arguments, **more)]).functions[ADDRESS]


def parts(raw, sizes, *, version=(4, 20, 4), pvh=True, memory=(), xen=None):
    there = decode_machine([raw])
    found = desired_of(
        there.functions[ADDRESS], there.functions, xen or known("00:05.0"),
        pvh=pvh, version=version_of(*version), protected=protected_ranges(memory), sizes=sizes,
    )  # fmt: skip
    return [(wanted.by, wanted.unsure, [(str(span.range)) for span in wanted.spans])
            for wanted in found.bars if wanted.bar == 0]  # fmt: skip


WHOLE = "0x4000000000-0x4000ffffff"  # 16 MiB
HEAD, TAIL = "0x4000000000-0x40003fffff", "0x4000400000-0x4000ffffff"


def test_a_bar_that_vpci_has_at_this_size_is_vpcis():
    assert parts(gpu(16), {0: 16 * MIB}) == [(By.XEN, False, [WHOLE])]


def test_what_it_has_grown_by_is_pcipts():
    assert parts(gpu(16), {0: 4 * MIB}) == [(By.XEN, False, [HEAD]), (By.US, True, [TAIL])]


def test_what_vpci_keeps_behind_a_bar_that_has_shrunk_stays():
    assert parts(gpu(4), {0: 16 * MIB}) == [(By.XEN, False, [WHOLE])]


def test_of_unknown_size_all_is_pcipts():
    assert parts(gpu(16), {0: None}) == [(By.US, True, [WHOLE])]
    assert parts(gpu(16, driver="amdgpu"), None) == [(By.US, True, [WHOLE])]
    assert parts(gpu(16), None) == [(By.XEN, False, [WHOLE])]  # nobody has resized it since vPCI saw it


def test_msix_pages_are_left_out_of_both_parts():
    found = parts(gpu(16, msix=(0, 0x1000, 0x50_0000)), {0: 4 * MIB})
    assert [by for by, _, _ in found] == [By.XEN, By.US]
    assert found[0][2] == ["0x4000000000-0x4000000fff", "0x4000002000-0x40003fffff"]
    assert found[1][2] == ["0x4000400000-0x40004fffff", "0x4000501000-0x4000ffffff"]


def test_where_vpci_maps_none_of_its_former_size_all_is_pcipts():
    behind = [entry(AT + 8 * MIB, MIB, MemoryType.RESERVED)]
    assert parts(gpu(4), {0: 16 * MIB}, memory=behind) == [(By.US, True, [HEAD])]
    assert parts(gpu(16), {0: 16 * MIB}, memory=behind, version=(4, 17, 7)) == []  # nothing maps such a BAR
    ((by, unsure, spans),) = parts(gpu(16), {0: 16 * MIB}, memory=behind, version=(4, 19, 6))
    assert (by, unsure) == (By.XEN, False)  # vPCI maps what the memory map leaves
    assert spans == ["0x4000000000-0x40007fffff", "0x4000900000-0x4000ffffff"]


@pytest.mark.parametrize("more", [{"version": (4, 21, 0)}, {"pvh": False}, {"xen": known()}])
def test_elsewhere_sizes_do_not_matter(more):
    ((by, unsure, spans),) = parts(gpu(16), {0: 4 * MIB}, **more)
    assert (unsure, spans) == (False, [WHOLE])
    assert by is (By.XEN if "version" in more else By.US)


@pytest.mark.parametrize(
    ("version", "sees"),
    [((4, 17, 7), False), ((4, 19, 6), False), ((4, 20, 4), False), ((4, 21, 0), True), ((4, 22, 0), True)],
)
def test_who_sees_a_bar_change_its_size(version, sees):
    assert sees_resizing(version_of(*version), pvh=True) is sees
    assert sees_resizing(version_of(*version), pvh=False)


def test_the_sizes_at_setup_are_those_of_bars_that_can_be_resized():
    assert sizes_at_setup(function(16)) == {0: 16 * MIB}
    assert sizes_at_setup(function(16, driver="amdgpu")) == {0: None}
    assert sizes_at_setup(function(1, driver="amdgpu")) == {0: MIB}  # it cannot have grown


@pytest.mark.parametrize(("sizes", "count"), [({0: 16 * MIB}, 1), ({0: 4 * MIB}, 0), ({0: None}, 0), ({}, 0)])
def test_only_a_bar_that_has_shrunk_is_told(sizes, count):
    found = list(oversized(function(4), sizes))
    assert [finding.code for finding in found] == ["resized-behind-vpci"] * count
    assert list(oversized(function(4, command=0), sizes)) == []
