import re
import shutil
import subprocess

import pytest

from pcipt.cli.main import main
from pcipt.host.dump import parse_dump
from pcipt.pci import Bar, BarKind, Bridge, Sbdf, Window, WindowKind, decode_machine
from tests.host.paste.lspci_samples import WORDS
from tests.machines import config
from tests.trees import dumps

PORT, CARD = Sbdf(0, 0, 0x1C, 0), Sbdf(0, 1, 0, 0)


def machine(text):
    return decode_machine(parse_dump(text.encode()).functions).functions


def test_words_tell_ids_class_driver_bars_and_buses():
    found = machine(WORDS)
    port, card = found[PORT], found[CARD]
    assert (port.ids.vendor, port.ids.device, port.ids.class_code, port.ids.revision) == (
        0x1B36, 0x000C, 0x060400, 2,
    )  # fmt: skip
    assert port.bridge == Bridge(0, 1, 1, (Window(WindowKind.MEMORY, 0xF060_0000, 0xF06F_FFFF),))
    assert (port.command, port.driver) == (0x407, "pcieport")
    assert (card.parent, str(card.path)) == (PORT, "00_1c.0-00_00.0")
    assert (card.ids.class_code, card.ids.revision) == (0x010601, 0)
    assert (card.ids.subsystem_vendor, card.ids.subsystem_device) == (0x17AA, 0x2214)
    assert (card.driver, card.numa_node) == ("ahci", 1)
    assert card.bars == (
        Bar(0, BarKind.IO, 0x5088, 8, False, True),
        Bar(1, BarKind.MEM64, 0, 256 << 20, True, False, unassigned=True),
        Bar(5, BarKind.MEM32, 0xF063_D000, 2048, False, True),
        Bar(6, BarKind.ROM, 0xF064_0000, 65536, False, False),
    )


def test_what_words_do_not_tell_is_unknown():
    card = machine(WORDS)[CARD]
    assert (card.answers, card.capabilities, card.msix, card.sriov, card.header.value) == (
        None, (), None, None, "unknown",
    )  # fmt: skip
    finding, lost = card.findings
    assert finding.code == "no-config"
    assert "lspci's words" in finding.text
    assert "-xxxx" in finding.text
    assert (lost.code, "BAR 1 (256M 64-bit memory) has no address" in lost.text) == ("bar-unassigned", True)


#  a line of lspci, decoding, codes of the findings beside no-config, a word of the last
LOST = [
    ("Region 0: Memory at fe000000 (32-bit, non-prefetchable) [size=16K]", True, [], ""),
    ("Region 0: Memory at <unassigned> (32-bit, non-prefetchable) [size=16K]", True, ["bar-unassigned"],
     "it decodes at address 0"),
    ("Region 0: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=8G]", False,
     ["bar-unassigned"], "8G"),
    ("Region 0: Memory at <ignored> (64-bit, prefetchable) [size=8G]", None, ["bar-unassigned"],
     "does not enable the function"),  # its register has an address that lspci does not print
    ("Region 0: I/O ports at <unassigned> [disabled] [size=32]", False, ["bar-unassigned"], "32"),
    ("Memory at <unassigned> (32-bit, non-prefetchable) [size=16K]", True, ["bar-unassigned"], "16K"),
    ("Expansion ROM at <unassigned> [disabled] [size=512K]", False, [], ""),  # Linux needs none
]  # fmt: skip


@pytest.mark.parametrize(("line", "decoding", "codes", "word"), LOST)
def test_words_tell_a_bar_without_an_address(line, decoding, codes, word):
    card = machine(f"00:02.0 Display controller [0380]: X [8086:56a0]\n\tFlags: fast devsel\n\t{line}\n")
    found = [each for each in card[Sbdf(0, 0, 2, 0)].findings if "unassigned" in each.code]
    assert [each.code for each in found] == codes
    assert word in "".join(each.text for each in found)
    (bar,) = card[Sbdf(0, 0, 2, 0)].bars
    assert (bar.decoding, bar.unassigned) == (decoding, "<" in line)


@pytest.mark.parametrize(("primary", "codes"), [("00", []), ("05", ["bus-primary"])])
def test_words_tell_a_primary_bus_that_is_not_the_bridges_own(primary, codes):
    port = machine(WORDS.replace("primary=00", f"primary={primary}"))[PORT]
    assert [each.code for each in port.findings] == ["no-config", *codes]


SILENT = [
    "[0300]: NVIDIA [10de:2f04] (rev ff) (prog-if ff)\n\t!!! Unknown header type 7f\n",
    "[0300]: NVIDIA [10de:2f04] (rev a1)\n\tSubsystem: X [1043:0001]\n\t!!! Unknown header type 7f",
    "[0300]: NVIDIA [10de:2f04] (rev ff)",  # lspci -nn
]


@pytest.mark.parametrize("words", SILENT)
def test_words_tell_that_a_function_does_not_answer(words, tmp_path, capsys):
    text = f"01:00.0 VGA compatible controller {words}\n"
    (gone,) = machine(text).values()
    assert (gone.answers, [each.code for each in gone.findings]) == (False, ["no-answer"])
    (tmp_path / "dump").write_text(text)
    assert main(["list", "-n", "--dump", str(tmp_path / "dump")]) == 0
    assert capsys.readouterr().out.endswith(" (does not answer)\n")
    assert main(["check", "01:00.0", "--dump", str(tmp_path / "dump")]) == 4
    assert capsys.readouterr().out.startswith("refuse  0000:01:00.0")


def test_another_header_type_is_no_silence():
    (strange,) = machine("00:02.0 X [0380]: X [8086:56a0] (rev 0f)\n\t!!! Unknown header type 03\n").values()
    assert (strange.answers, [each.code for each in strange.findings]) == (None, ["no-config"])


HEADINGS = [
    # the heading, vendor, device, class, revision
    ("SATA controller [0106]: Example [8086:9c03] (rev 04)", 0x8086, 0x9C03, 0x0106, 4),
    ("0106: 8086:9c03 (rev 04)", 0x8086, 0x9C03, 0x0106, 4),  # -n
    ("0106: 8086:9c03", 0x8086, 0x9C03, 0x0106, 0),
    ("Class 0106: Device 8086:9c03 (rev 04)", 0x8086, 0x9C03, 0x0106, 4),  # no pci.ids
    ("Class [0106]: Device [8086:9c03]", 0x8086, 0x9C03, 0x0106, 0),
    ("Unassigned class [ff00]: Example Corporation Device [8086:0d93]", 0x8086, 0x0D93, 0xFF00, 0),
    ("PCI bridge [0604]: A [B] C [dead] [1b36:000c] (prog-if 01 [Subtractive])", 0x1B36, 0xC, 0x0604, 0),
    ("VGA compatible controller [0300]: Name: with colon [10de:1b80] (rev a1)", 0x10DE, 0x1B80, 0x0300, 0xA1),
    ('"SATA controller [0106]" "Example [8086]" "8 Series [9c03]" -r04 -p01 "X [17aa]" "Y [2214]"',
     0x8086, 0x9C03, 0x0106, 4),
    ('"0106" "8086" "9c03" -r04 "17aa" "2214"', 0x8086, 0x9C03, 0x0106, 4),  # -mn
]  # fmt: skip


@pytest.mark.parametrize(("heading", "vendor", "device", "kind", "revision"), HEADINGS)
def test_a_heading_tells_the_ids(heading, vendor, device, kind, revision):
    (raw,) = parse_dump(f"0000:00:1f.2 {heading}\n".encode()).functions
    assert (raw.ids.vendor, raw.ids.device, raw.ids.class_code >> 8, raw.ids.revision) == (
        vendor, device, kind, revision,
    )  # fmt: skip


def test_the_records_of_lspci_vmm_are_read():
    text = (
        "Slot:\t00:1f.2\nClass:\tSATA controller [0106]\nVendor:\tExample [8086]\nDevice:\t8 Series [9c03]\n"
        "SVendor:\tX [17aa]\nSDevice:\tY [2214]\nRev:\t04\nProgIf:\t01\nDriver:\tahci\nNUMANode:\t1\n\n"
        "Slot:\t0001:02:00.0\nClass:\tEthernet controller [0200]\nVendor:\tExample [8086]\n"
        "Device:\tD [10d3]\n"
    )
    first, second = parse_dump(text.encode()).functions
    assert (first.ids.class_code, first.ids.revision, first.ids.subsystem_device) == (0x010601, 4, 0x2214)
    assert (first.driver, first.numa_node) == ("ahci", 1)
    assert (second.sbdf, second.ids.device) == (Sbdf(1, 2, 0, 0), 0x10D3)


def test_bars_without_numbers_are_counted_and_told():
    text = (
        "01:00.0 Ethernet controller [0200]: Example [8086:10d3]\n\tFlags: bus master, NUMA node 1\n"
        "\tMemory at f0000000 (64-bit, prefetchable) [size=16K]\n\tI/O ports at 3000 [size=32]\n"
        "\tMemory at f1000000 (32-bit, non-prefetchable) [size=4K]\n\t[virtual] Expansion ROM at f2000000 "
        "[disabled] [size=64K]\n"
    )
    (function,) = machine(text).values()
    assert [bar.index for bar in function.bars] == [0, 2, 3, 6]
    assert function.numa_node == 1
    assert [finding.code for finding in function.findings] == ["bar-numbers-counted", "no-config"]


def test_words_without_ids_keep_the_name():
    text = WORDS.replace(" [8086:9c03]", "").replace(" [0106]", "")
    card = machine(text)[CARD]
    assert card.ids.vendor is None
    assert card.title.startswith("SATA controller: Example Corporation 8 Series [AHCI mode]")


def test_a_heading_that_mail_has_broken_is_joined():
    text = WORDS.replace("8 Series [AHCI mode] [8086", "8 Series\n[AHCI mode] [8086")
    assert machine(text)[CARD].ids == machine(WORDS)[CARD].ids


def bars_of(function):
    """List the BARs without their sizes; a ROM of which no size is known is not printed by lspci."""
    return [
        (bar.index, bar.kind, bar.address, bar.prefetchable, bar.decoding)
        for bar in function.bars
        if bar.kind is not BarKind.ROM
    ]


def test_without_bus_numbers_nothing_behind_a_bridge_gets_a_path():
    text = "00:1c.0 0604: 1b36:000c\n00:1d.0 0c03: 8086:1e26\n01:00.0 0106: 8086:9c03\n"
    text += "0001:01:00.0 0106: 8086:9c03\n"
    found = machine(text)
    assert [str(each.path) for each in found.values()] == ["00_1c.0", "00_1d.0", "None", "0001_01_00.0"]
    assert [finding.code for finding in found[CARD].findings] == ["no-path", "no-config"]


def forms():
    """Dumps of recorded machines and one of our own, each with what lspci prints of it."""
    return [*dumps(), None]


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")
@pytest.mark.parametrize("path", forms(), ids=lambda path: path.name if path is not None else "own")
def test_the_words_that_lspci_prints_tell_what_the_bytes_tell(path, tmp_path):
    if path is not None and not path.exists():
        pytest.skip("the recordings of other projects are not here")
    if path is None:
        path = tmp_path / "dump"
        data = config(
            vendor=0x8086, device=0x10D3, class_code=0x020000, command=6, bars=(0xFEB0_000C, 1, 0x3001)
        )
        path.write_text(
            "".join(
                ["00:03.0 x\n", *(f"{at:02x}: {data[at : at + 16].hex(' ')}\n" for at in (0, 16, 32, 48))]
            )
        )
    theirs = decode_machine(parse_dump(re.sub(rb"(?m)^\t.*\n", b"", path.read_bytes())).functions).functions
    for options in ("-vvnn", "-vvvn", "-nnk", "-Dn", "-mmnn", "-mn", "-vmmnn"):
        printed = subprocess.run(["lspci", "-F", path, options], capture_output=True, check=True).stdout
        ours = decode_machine(parse_dump(printed).functions).functions
        assert set(ours) == set(theirs)
        for sbdf, function in ours.items():
            hexed = theirs[sbdf]
            assert (function.ids.vendor, function.ids.device, function.ids.revision) == (
                hexed.ids.vendor, hexed.ids.device, hexed.ids.revision,
            )  # fmt: skip
            assert function.ids.class_code >> 8 == hexed.ids.class_code >> 8
            if "vv" not in options:
                continue
            assert (function.command, function.bridge, function.path) == (
                hexed.command, hexed.bridge, hexed.path,
            )  # fmt: skip
            windows = function.bridge.windows if function.bridge is not None else ()
            if any(window.kind is WindowKind.PREFETCHABLE for window in windows):
                assert function.bridge.wide == hexed.bridge.wide
            if function.ids.class_code >> 8 != 0x0101:  # an IDE controller may ignore its registers
                assert bars_of(function) == bars_of(hexed)
