"""Rules about Xen's boot options that decide about single functions."""

import attrs
import pytest

from pcipt.firmware.coverage import IommuScope, snapshot_from_machine
from pcipt.firmware.passthrough import boot_options as rules
from pcipt.firmware.passthrough import trouble
from pcipt.firmware.passthrough.check import check_functions
from pcipt.firmware.passthrough.host import BootOptions, IommuKind, xen_says
from pcipt.firmware.passthrough.host_view import host_from_json, host_to_json
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.pci import parse_sbdf
from pcipt.xen.boot_words import BootWords
from tests.firmware.passthrough.groups_cases import endpoint, root_port
from tests.firmware.passthrough_cases import evidence_of, host, said_by
from tests.firmware.reserved_tables import dmar, drhd, scope
from tests.pci.spaces import standard_list

RELEASES = ("4.17.0", "4.17.7", "4.18.6", "4.19.6", "4.20.4", "4.21.2", "4.22.0")
VGA, CARD, NETWORK = 0x030000, 0x030000, 0x020000
ALL = drhd(flags=1)


def started_with(line, release="4.20.4", kind=None):
    said = xen_says(True, BootWords(kind=kind).by(line), None)
    return host(said=said, release=release)


def machine(**known):
    return evidence_of(
        endpoint("00:02.0", vendor=0x8086, class_code=VGA),
        endpoint("00:19.0", vendor=0x8086, class_code=NETWORK),
        root_port("00:1c.0", 3),
        endpoint("03:00.0", "00:1c.0", class_code=CARD),
        **known,
    )


def with_units(evidence, *units):
    served = IommuScope(snapshot_from_machine("", evidence.machine)).with_tables([dmar(*units)])
    return attrs.evolve(evidence, iommu=served)


IGD, LAN, IO_APIC = scope(0, (2, 0)), scope(0, (0x19, 0)), scope(0, (0x1F, 0), kind=3)
UNITS = {
    "its own unit": ([drhd(IGD, flags=0), ALL], {"00:02.0"}),
    "an absent display beside it": ([drhd(IGD, scope(0, (3, 0)), flags=0), ALL], {"00:02.0"}),
    "shared with the network": ([drhd(IGD, LAN, flags=0), ALL], set()),
    "with an IO-APIC": ([drhd(IGD, IO_APIC, flags=0), ALL], set()),
    "the unit for all": ([ALL], set()),
    "it takes all and names one": ([drhd(IGD)], set()),
    "the card by a bridge": ([drhd(scope(0, (0x1C, 0), kind=2), flags=0), ALL], set()),
    "the card by its path": ([drhd(scope(0, (0x1C, 0), (0, 0)), flags=0), ALL], {"03:00.0"}),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", UNITS)
def test_without_igfx_a_unit_for_graphics_only_is_off(name, release):
    units, off = UNITS[name]
    evidence = with_units(machine(host=started_with("iommu=no-igfx", release)), *units)
    for address in ("00:02.0", "00:19.0", "03:00.0"):
        found, unknown = said_by(rules.graphics_unit, address, evidence)
        assert (found, unknown) == ({"igfx-off": "refuse"} if address in off else {}, [])


@pytest.mark.parametrize("line", [None, "", "iommu=igfx", "iommu=off"])
def test_with_igfx_nothing_is_said(line):
    evidence = with_units(machine(host=started_with(line)), *UNITS["its own unit"][0])
    assert said_by(rules.graphics_unit, "00:02.0", evidence) == ({}, [])


def test_of_an_amd_machine_nothing_is_said():
    evidence = machine(host=started_with("iommu=no-igfx", kind=IommuKind.AMD_VI.value))
    assert said_by(rules.graphics_unit, "00:02.0", evidence) == ({}, [])


def test_where_dom0_cannot_read_the_table_it_is_not_known():
    evidence = machine(host=started_with("iommu=no-igfx"))
    assert said_by(rules.graphics_unit, "00:02.0", evidence)[1] != []
    assert said_by(rules.graphics_unit, "03:00.0", evidence) == ({}, [])
    (report,) = check_functions([parse_sbdf("00:02.0")], evidence)
    assert report.verdict.value in ("unknown", "refuse")


def with_ats(raw):
    data = bytearray(raw.config).ljust(4096, b"\0")
    data[0x100:0x104] = (0x000F | 1 << 16).to_bytes(4, "little")
    return attrs.evolve(raw, config=bytes(data))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("line", "has", "expected"),
    [
        ("ats", True, {"ats-on": "warn"}),
        ("ats=1", True, {"ats-on": "warn"}),
        ("ats", False, {}),
        ("ats=0", True, {}),
        ("", True, {}),
        (None, True, {}),
    ],
)
def test_ats_is_told_of_functions_that_have_it(line, has, expected, release):
    raw = endpoint("00:19.0", class_code=NETWORK)
    evidence = evidence_of(with_ats(raw) if has else raw, host=started_with(line, release))
    assert said_by(rules.translation_services, "00:19.0", evidence) == (expected, [])


def with_msi(raw, capability):
    data = bytearray(raw.config).ljust(256, b"\0")
    for offset, (size, value) in standard_list((0x40, capability, {2: (2, 0)})).items():
        data[offset : offset + size] = value.to_bytes(size, "little")
    data[6] |= 0x10
    return attrs.evolve(raw, config=bytes(data))


@pytest.mark.parametrize(
    ("line", "capability", "virtual", "expected"),
    [
        ("msi=off", 0x05, False, {"msi-off": "warn"}),
        ("msi=0", 0x11, False, {"msi-off": "warn"}),
        ("no-msi", 0x11, True, {"msi-off": "refuse"}),
        ("msi=off", 0x01, False, {}),
        ("msi=on", 0x11, True, {}),
        ("", 0x11, True, {}),
        (None, 0x11, True, {}),
    ],
)
def test_msi_off_leaves_line_interrupts(line, capability, virtual, expected):
    physical = endpoint("00:19.0", class_code=NETWORK)
    raw = with_msi(endpoint("00:19.1", class_code=NETWORK), capability)
    raw = attrs.evolve(raw, physfn=physical.sbdf) if virtual else raw
    evidence = evidence_of(physical, raw, host=started_with(line))
    assert said_by(rules.message_interrupts, "00:19.1", evidence) == (expected, [])


@pytest.mark.parametrize(
    ("dom0", "capability", "virtual", "expected"),
    [
        (Guest.PVH, 0x11, False, {"pvh-dom0-msix": "warn"}),
        (Guest.PVH, 0x11, True, {"pvh-dom0-msix": "refuse"}),  # it has neither MSI nor INTx
        (Guest.PVH, 0x05, False, {}),
        (Guest.PV, 0x11, False, {}),
        (Guest.PV, 0x11, True, {}),
        (None, 0x11, False, {}),
    ],
)
def test_a_pvh_dom0_cannot_prepare_msix_for_a_guest(dom0, capability, virtual, expected):
    physical = endpoint("00:19.0", class_code=NETWORK)
    raw = with_msi(endpoint("00:19.1", class_code=NETWORK), capability)
    raw = attrs.evolve(raw, physfn=physical.sbdf) if virtual else raw
    evidence = evidence_of(physical, raw, host=host(dom0=dom0))
    assert said_by(trouble.msix_of_pvh_dom0, "00:19.1", evidence) == (expected, [])


def with_pin(raw, pin):
    config = bytearray(raw.config)
    config[0x3D] = pin
    return attrs.evolve(raw, config=bytes(config))


def test_a_pin_is_known_from_the_register_and_no_virtual_function_has_one():
    raw = endpoint("00:19.0", class_code=NETWORK)
    assert [trouble.is_pinless(with_pin(raw, pin)) for pin in (0, 1, 4)] == [True, False, False]
    assert not trouble.is_pinless(attrs.evolve(raw, config=raw.config[:0x3D]))  # nobody knows
    assert trouble.is_pinless(attrs.evolve(with_pin(raw, 1), physfn=raw.sbdf))


@pytest.mark.parametrize(("dom0", "word"), [(Guest.PVH, "warn"), (Guest.PV, None), (None, None)])
@pytest.mark.parametrize("pinless", [False, True])
def test_a_pvh_dom0_may_not_get_a_function_without_a_pin_for_pciback(dom0, word, pinless):
    raw = endpoint("00:19.0", class_code=NETWORK)
    evidence = evidence_of(raw, host=host(dom0=dom0))
    evidence = attrs.evolve(evidence, pinless=frozenset({raw.sbdf} if pinless else ()))
    expected = {"pvh-dom0-pin": word} if word and pinless else {}
    assert said_by(trouble.pin_for_pvh_dom0, "00:19.0", evidence) == (expected, [])


@pytest.mark.parametrize(
    "boot",
    [None, BootOptions(), BootOptions(False, True, False, ((0, 3, 0, 1), (1, 10, 31, 4)))],
)
def test_the_options_travel_as_json(boot):
    judged = attrs.evolve(host(), boot=boot)
    assert host_from_json(host_to_json(judged)) == judged
    older = host_to_json(judged)
    del older["boot_options"]  # a daemon of before
    assert host_from_json(older).boot is None
