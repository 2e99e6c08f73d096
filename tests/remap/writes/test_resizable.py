"""Shadows of Resizable BARs, of virtual functions too, and of the System Page Size."""

import struct

import attrs
import pytest

from pcipt.pci import decode_machine, parse_sbdf
from pcipt.remap.writes.decoding import UNKNOWN, vf_ranges
from pcipt.remap.writes.initial import shadow_from_raws
from tests.machines import bridge
from tests.remap.writes.shadows import EXPRESS, MIB, NIC, REBAR, SRIOV, mapped, nic, run, told, write

VF_REBAR = 0x180
ON = [write(NIC, SRIOV + 0x10, 2, 2), write(NIC, SRIOV + 8, 2, 9)]


def w(offset, size, value):
    return write(NIC, offset, size, value)


def with_vf_rebar(raw):
    """Add a VF Resizable BAR structure: VF BAR 0 has 1 MiB of 1, 2 and 4 MiB."""
    data = bytearray(raw.config)
    struct.pack_into("<I", data, REBAR, VF_REBAR << 20 | 1 << 16 | 0x15)
    struct.pack_into("<I", data, VF_REBAR, 1 << 16 | 0x24)
    struct.pack_into("<II", data, VF_REBAR + 4, 0x7 << 4, 1 << 5)
    return attrs.evolve(raw, config=bytes(data))


def shadow(raw=None):
    return shadow_from_raws([bridge("00:1c.0", 2, 4), raw or with_vf_rebar(nic())])


def vfs(state):
    return [(str(each.sbdf), each.range.start, each.range.size) for each in state.virtual()]


@pytest.mark.parametrize(("control", "size"), [(0, MIB), (0x100, 2 * MIB), (0x200, 4 * MIB)])
def test_a_vf_bar_has_the_size_of_its_control_register(control, size):
    state, changes = run(shadow(), w(VF_REBAR + 8, 4, control), *ON)
    assert vfs(state) == [("0000:02:10.0", 0xFD00_0000, size), ("0000:02:10.2", 0xFD00_0000 + size, size)]
    expected = {"bar": 0, "address": "0xfd000000", "size": size, "count": 2}
    assert told(changes) == [("vf-bars", [expected])]


def test_a_reset_gives_a_vf_bar_its_first_size():
    state, _ = run(shadow(), w(VF_REBAR + 8, 4, 0x200), w(EXPRESS + 8, 2, 0x8000))
    state, _ = run(state, w(SRIOV + 0x24, 4, 0xFD00_0000), w(SRIOV + 0x28, 4, 0), *ON)
    assert [size for _, _, size in vfs(state)] == [MIB, MIB]


@pytest.mark.parametrize(
    ("register", "size"), [(0, 0x4000), (1 << 0, 0x4000), (1 << 2, 0x4000), (1 << 4, 0x1_0000), (1 << 8, MIB)]
)
def test_sizes_and_strides_follow_the_system_page_size(register, size):
    state, _ = run(shadow(nic()), w(SRIOV + 0x20, 4, register), *ON)
    assert vfs(state) == [("0000:02:10.0", 0xFD00_0000, size), ("0000:02:10.2", 0xFD00_0000 + size, size)]


def test_a_shadow_of_a_machine_that_was_resized_before():
    raw = nic()
    data = bytearray(raw.config)
    struct.pack_into("<I", data, REBAR + 8, 1 << 5 | 2 | 0x200)  # Linux has the old size still
    raw = attrs.evolve(raw, config=bytes(data))
    assert mapped(shadow(raw))["02:00.0", 2] == (0x38_0000_0000, 4 * MIB)
    function = decode_machine([raw]).functions[parse_sbdf(NIC)]
    assert {bar.index: bar.size for bar in function.bars}[2] == 4 * MIB
    assert "bar-resized" in {finding.code for finding in function.findings}


def test_the_decoded_function_has_resized_vf_bars():
    raw = with_vf_rebar(nic())
    data = bytearray(raw.config)
    struct.pack_into("<I", data, VF_REBAR + 8, 1 << 5 | 0x100)
    function = decode_machine([attrs.evolve(raw, config=bytes(data))]).functions[parse_sbdf(NIC)]
    assert [(bar.index, bar.size) for bar in function.sriov.bars] == [(0, 2 * MIB)]
    assert [bar.supported for bar in function.sriov.resizable] == [(MIB, 2 * MIB, 4 * MIB)]


@pytest.mark.parametrize(("count", "expected"), [(0, ()), (1, UNKNOWN)])
def test_without_virtual_functions_no_size_is_needed(count, expected):
    """VF Enable and VF Memory Enable are set, and nobody knows the size of VF BAR 0."""
    raw = nic()
    raw = attrs.evolve(raw, resources=raw.resources[:7])
    state, _ = run(shadow(raw), w(SRIOV + 0x10, 2, count), w(SRIOV + 8, 2, 9))
    assert vf_ranges(state.at(parse_sbdf(NIC))) == expected
