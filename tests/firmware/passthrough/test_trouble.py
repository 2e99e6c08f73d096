import attrs
import pytest

from pcipt.firmware.passthrough import trouble as rules
from pcipt.firmware.passthrough.check import check_functions, make_snippets
from pcipt.firmware.passthrough.groups_quirks import ALIAS_QUIRKS, Alias
from pcipt.firmware.passthrough.host import xen_says
from pcipt.firmware.passthrough.trouble_table import ROWS, Trouble, troubles_of
from pcipt.firmware.passthrough.verdict import Reason
from pcipt.pci import Ids, parse_sbdf
from pcipt.pci.raw import LinuxFacts
from pcipt.xen.boot_words import BootWords
from tests.firmware.passthrough.groups_cases import endpoint, root_port
from tests.firmware.passthrough_cases import (
    TO_PCI,
    conventional,
    evidence_of,
    express,
    host,
    said_by,
    text_of,
)
from tests.machines import bridge, function

MIB = 1 << 20


def reasons(rule, address, evidence):
    said = rule(evidence.machine.functions[parse_sbdf(address)], evidence)
    return [each for each in said if isinstance(each, Reason)]


def marvell(address="03:00.0", device=0x9125, **more):
    return endpoint(address, "00:1c.0", vendor=0x1B4B, device=device, class_code=0x010601, **more)


PHANTOM = [
    # functions of the machine -> the line for Xen, words of the reason
    (["03:00.0"], "pci-phantom=03:00,1", "0000:03:00.1, a phantom function"),
    (["03:00.0", "03:00.1"], "", "requester id of 0000:03:00.1"),
    (["03:00.0", "03:00.2"], "", "0000:03:00.2 is a real"),  # Xen's step becomes 4 then
    (["03:00.0", "03:00.7"], "", "0000:03:00.7 is a real"),
]


@pytest.mark.parametrize(("present", "line", "words"), PHANTOM)
def test_dma_from_function_1(present, line, words):
    evidence = evidence_of(root_port("00:1c.0", 3), *map(marvell, present))
    (reason,) = reasons(rules.requester_alias, "03:00.0", evidence)
    assert (reason.code, reason.verdict.value, reason.xen) == ("dma-alias", "warn", line)
    assert words in reason.text
    assert line in reason.cure


TOLD = [
    # Xen's command line -> verdict, the line for Xen, words
    (None, "warn", "pci-phantom=03:00,1", "unless Xen knows the phantom"),
    ("", "warn", "pci-phantom=03:00,1", "add pci-phantom=03:00,1"),
    ("pci-phantom=03:00,1", "ok", "", "knows this from pci-phantom=03:00,1"),
    ("pci-phantom=0:3:0,0x1", "ok", "", "already knows this"),
    ("pci-phantom=04:00,1 pci-phantom=3:0,1", "ok", "", "already knows this"),
    ("pci-phantom=03:00,4", "warn", "pci-phantom=03:00,1", "in place of the pci-phantom= for 03:00"),
    ("pci-phantom=03:00,4 pci-phantom=03:00,1", "warn", "pci-phantom=03:00,1", "in place of"),  # the first
    ("pci-phantom=03:01,1", "warn", "pci-phantom=03:00,1", "add"),
    ("pci-phantom=03:00,3", "warn", "pci-phantom=03:00,1", "add"),  # Xen does not take 3
    ("-- pci-phantom=03:00,1", "warn", "pci-phantom=03:00,1", "add"),
    (" ".join(f"pci-phantom=0{bus}:00,1" for bus in (4, 5, 6, 7, 8, 9, 1, 2, 3)), "warn",
     "pci-phantom=03:00,1", "Xen uses only 8 of these options"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "verdict", "option", "words"), TOLD)
def test_what_xens_command_line_says_of_phantom_functions(line, verdict, option, words):
    said = xen_says(True, BootWords().by(line), None)
    evidence = evidence_of(root_port("00:1c.0", 3), marvell("03:00.0"), host=host(said=said))
    (reason,) = reasons(rules.requester_alias, "03:00.0", evidence)
    assert (reason.code, reason.verdict.value, reason.xen) == ("dma-alias", verdict, option)
    assert words in f"{reason.text} {reason.cure}"


def test_a_segment_is_in_the_line():
    raw = attrs.evolve(marvell(), sbdf=parse_sbdf("0001:0a:1f.0"), parent=None, root_bus=0x0A)
    (reason,) = reasons(rules.requester_alias, "0001:0a:1f.0", evidence_of(raw))
    assert reason.xen == "pci-phantom=0001:0a:1f,1"


@pytest.mark.parametrize("row", ALIAS_QUIRKS, ids=lambda row: f"{row.vendor:04x}")
def test_every_device_with_a_requester_id_of_its_own_kind_is_told(row):
    for device in row.devices:
        number = 1 if row.alias is Alias.FUNCTION_0 else 0
        vendor, card = next(iter(row.subsystems), (0x1043, 1))
        raw = endpoint(f"03:00.{number}", "00:1c.0", vendor=row.vendor, device=device)
        ids = Ids(row.vendor, device, 0x010601, 0, vendor, card)
        evidence = evidence_of(root_port("00:1c.0", 3), attrs.evolve(raw, ids=ids))
        (reason,) = reasons(rules.requester_alias, f"03:00.{number}", evidence)
        assert reason.verdict.value == "warn"
        assert bool(reason.xen) == (row.alias is Alias.FUNCTION_1)
        other = endpoint("03:00.0", "00:1c.0", vendor=row.vendor, device=device ^ 0x8000)
        assert reasons(rules.requester_alias, "03:00.0", evidence_of(root_port("00:1c.0", 3), other)) == []


def test_function_1_itself_has_no_alias():
    evidence = evidence_of(root_port("00:1c.0", 3), marvell("03:00.1"))
    assert reasons(rules.requester_alias, "03:00.1", evidence) == []


def to_pci(address="03:00.0", parent="00:1c.0", *, ids=(0x1283, 0x8892), says=False):
    """Make an ITE 8892, a bridge from PCI Express to PCI that does not say so."""
    vendor, device = ids
    raw = bridge(address, 4, 4, parent=parent, conventional=True, vendor=vendor, device=device)
    return express(raw, TO_PCI) if says else conventional(raw)


HIDDEN = [
    # vendor of the machine, the bridge, the addresses behind it -> is the first one told
    (0x8086, to_pci(), ["04:01.0"], True),
    (0x8086, to_pci(), ["04:00.0"], False),  # its own id is the one that the bridge uses
    (0x8086, to_pci(), ["04:01.0", "04:00.0"], False),  # they share an id: another reason says so
    (0x8086, to_pci(says=True), ["04:01.0"], False),  # Xen maps 04:00.0 as well
    (0x8086, to_pci(ids=(0x1283, 0x8888)), ["04:01.0"], False),
    (0x8086, to_pci("00:1e.0", None, ids=(0x8086, 0x244E)), ["04:01.0"], False),  # no PCI Express above it
    (0x1022, to_pci(), ["04:01.0"], False),  # the IVRS tells
]


@pytest.mark.parametrize(("vendor", "between", "behind", "told"), HIDDEN)
def test_a_bridge_that_hides_its_express_link(vendor, between, behind, told):
    cards = [conventional(function(each, parent=str(between.sbdf))) for each in behind]
    host_bridge = conventional(function("00:00.0", vendor=vendor, class_code=0x060000))
    evidence = evidence_of(host_bridge, root_port("00:1c.0", 3, last=4), between, *cards)
    found = reasons(rules.hidden_bridge, behind[0], evidence)
    assert [each.code for each in found] == (["dma-alias"] if told else [])
    assert all("the id of 0000:04:00.0" in each.text for each in found)


def test_the_lines_are_in_the_snippets():
    evidence = evidence_of(root_port("00:1c.0", 3), marvell())
    (report,) = check_functions([parse_sbdf("03:00.0")], evidence)
    assert make_snippets([report], together=True).xen == ("pci-phantom=03:00,1",)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.vendor:04x}-{row.trouble.code}")
def test_every_row_of_the_table(row):
    for device in row.devices or (0x1234,):
        kind = (row.kind if row.kind is not None else 0x0200) << 8
        raw = endpoint("00:05.0", vendor=row.vendor, device=device, class_code=kind)
        raw = attrs.evolve(raw, ids=Ids(row.vendor, device, kind, row.revision or 0, None, None))
        found = troubles_of(evidence_of(raw).machine.functions[parse_sbdf("00:05.0")])
        assert row.trouble in found
    wrong = endpoint("00:05.0", vendor=row.vendor ^ 0x4000, device=device, class_code=kind)
    assert troubles_of(evidence_of(wrong).machine.functions[parse_sbdf("00:05.0")]) == ()


RESETS = [
    # vendor, device, class, Linux's methods (None: unknown) -> reasons
    (0x1022, 0x149C, 0x0C0330, None, {"reset-hangs": "warn"}),
    (0x1022, 0x149C, 0x0C0330, ("flr", "pm"), {"reset-hangs": "warn"}),
    (0x1022, 0x149C, 0x0C0330, ("pm", "bus"), {"reset-hangs": "ok"}),  # this Linux knows
    (0x1022, 0x149D, 0x0C0330, None, {}),
    (0x168C, 0x003C, 0x028000, ("bus",), {"reset-kills": "warn"}),
    (0x168C, 0x003C, 0x028000, (), {"reset-kills": "ok"}),
    (0x1B21, 0x1164, 0x010601, ("pm", "bus"), {"reset-kills": "warn"}),  # ASM1164: 6.18 does not know it
    (0x1B21, 0x1164, 0x010601, ("pm",), {"reset-kills": "ok"}),
    (0x1B21, 0x1166, 0x010601, ("pm", "bus"), {}),
    (0x1022, 0x1502, 0x118000, ("flr",), {"reset-hangs": "warn"}),  # AMD's neural processor
    (0x1022, 0x17F0, 0x118000, None, {"reset-hangs": "warn"}),
    (0x10DE, 0x2342, 0x030200, None, {"reset-kills": "warn"}),  # a range of devices
    (0x10DE, 0x2382, 0x030200, None, {}),
    (0x1002, 0x731F, 0x030000, ("bus",), {"reset-fails": "warn"}),
    (0x1002, 0x731F, 0x030000, ("device_specific", "bus"), {"reset-fails": "ok"}),
    (0x8086, 0x10ED, 0x020000, ("device_specific",), {"reset-specific": "ok"}),
    (0x8086, 0x10ED, 0x020000, ("pm",), {"reset-specific": "warn"}),
    (0x8086, 0x10ED, 0x020000, None, {"reset-specific": "ok"}),
]


@pytest.mark.parametrize(("vendor", "device", "kind", "methods", "expected"), RESETS)
def test_trouble_with_resets(vendor, device, kind, methods, expected):
    raw = endpoint("00:05.0", vendor=vendor, device=device, class_code=kind)
    evidence = evidence_of(raw, facts={raw.sbdf: LinuxFacts(reset_methods=methods)})
    assert said_by(rules.resets, "00:05.0", evidence) == (expected, [])


def test_trouble_with_a_reset_that_it_does_not_have():
    raw = endpoint("00:05.0", vendor=0x1022, device=0x149C, flr=False)
    assert said_by(rules.resets, "00:05.0", evidence_of(raw)) == ({}, [])


def test_each_kind_of_trouble_has_its_own_code():
    assert len({trouble.code for trouble in Trouble}) == len(Trouble)


GRAPHICS = [
    # address, vendor, class -> reasons, line for xl.cfg
    ("00:02.0", 0x8086, 0x030000, {"igd": "warn"}, 'gfx_passthru="igd"'),
    ("00:02.0", 0x8086, 0x038000, {"igd": "warn"}, 'gfx_passthru="igd"'),
    ("00:02.0", 0x1002, 0x030000, {"display": "ok"}, ""),
    ("00:05.0", 0x8086, 0x030000, {"display": "ok"}, ""),
    ("00:02.0", 0x8086, 0x020000, {}, ""),
]


@pytest.mark.parametrize(("address", "vendor", "kind", "expected", "line"), GRAPHICS)
def test_display_controllers(address, vendor, kind, expected, line):
    evidence = evidence_of(function(address, vendor=vendor, class_code=kind))
    assert said_by(rules.graphics, address, evidence) == (expected, [])
    assert [each.xl for each in reasons(rules.graphics, address, evidence)] == [line] * len(expected)


def test_no_cure_for_a_display_makes_xl_fail():
    """With qemu-xen, libxl takes gfx_passthru=1 for the graphics of Intel's processors only."""
    evidence = evidence_of(function("03:00.0", vendor=0x10DE, class_code=0x030000))
    (reason,) = reasons(rules.graphics, "03:00.0", evidence)
    assert reason.cure.startswith("leave gfx_passthru out of xl.cfg")


BARS = [
    # sizes in MiB of 64-bit BARs, of 32-bit BARs -> reasons, line for xl.cfg
    ((16,), (1,), {}, []),
    ((128, 32), (32,), {}, []),  # 192 MiB fit
    ((256, 32), (16,), {"large-bars": "ok"}, ["mmio_hole=512"]),
    ((1024,), (), {"large-bars": "ok"}, ["mmio_hole=2048"]),
    ((16384, 32), (64,), {"large-bars": "ok"}, [""]),  # above 1 GiB always goes above 4 GiB
    ((), (256,), {"large-bars": "warn"}, ["mmio_hole=512"]),
    ((), (2048, 2048), {"large-bars": "warn"}, [""]),  # no hole is that large
]


@pytest.mark.parametrize(("wide", "narrow", "expected", "lines"), BARS)
def test_bars_beyond_the_default_window(wide, narrow, expected, lines):
    registers, resources = [], []
    for size in narrow:
        registers.append(0x8000_0000)
        resources.append((0x8000_0000, size * MIB, 0x40200))
    for number, size in enumerate(wide):
        at = 0x40_0000_0000 * (number + 1)
        registers += [at & 0xFFFF_FFFF | 0xC, at >> 32]
        resources += [(at, size * MIB, 0x14220C), (0, 0, 0)]
    raw = function("00:05.0", bars=registers, resources=resources, command=2)
    evidence = evidence_of(raw)
    assert said_by(rules.large_bars, "00:05.0", evidence) == (expected, [])
    assert [each.xl for each in reasons(rules.large_bars, "00:05.0", evidence)] == lines
    if wide and max(wide) > 1024:
        assert f"BAR 1 of {max(wide) // 1024} GiB" in text_of(rules.large_bars, "00:05.0", evidence)
