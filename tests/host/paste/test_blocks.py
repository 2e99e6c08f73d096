import shutil
import subprocess

import pytest

from pcipt.errors import InputError
from pcipt.host.dump import parse_dump, read_dump
from pcipt.pci import Sbdf, decode_machine
from tests.host.paste.lspci_samples import BRIDGE, CARD
from tests.machines import config
from tests.trees import dumps

DATA = config(vendor=0x1B36, device=0x000C, size=256)


def early(data, digits=8, before="", heading="pci 0000:00:02.0: config space:", characters=False):
    """A boot log with pci=earlydump: 8 digits since Linux 4.19, 2 digits before."""
    rows = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        shown = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in row)
        rows.append(f"{at:0{digits}x}: {row.hex(' ')}{f'  {shown}' if characters else ''}")
    lines = ["Linux version 6.1.0", heading, *(f"{'  ' if digits == 2 else ''}{row}" for row in rows)]
    return "".join(f"{before}{line}\n" for line in [*lines, "pci 0000:00:02.0: [1b36:000c] type 00"])


LOGS = [
    early(DATA),
    early(DATA, 2),
    early(DATA, 2, heading="pci 0000:00:02.0 config space:"),
    early(DATA, before="[    0.612345] "),
    early(DATA, before="Nov 29 23:12:01 host kernel: [    0.612345] "),
    early(DATA, before="> > [    0.612345] "),
    early(DATA, before="[    0.612345][    T1] ", heading="pcieport 0000:00:02.0: config space:"),
    early(DATA, 2, before="   "),
    early(DATA, characters=True),
    early(DATA, 2, characters=True),
    early(DATA, before="kern  :info  : [    0.612345] ", characters=True),
]


@pytest.mark.parametrize("text", LOGS)
def test_a_boot_log_with_earlydump_is_read(text):
    found = parse_dump(text.encode())
    (raw,) = found.functions
    assert (raw.sbdf, raw.config, raw.findings, raw.told) == (Sbdf(0, 0, 2, 0), DATA, (), None)
    assert found.about == "1 function, with 256 bytes of config space at boot (earlydump)"


def test_all_functions_of_a_boot_log_are_read():
    text = "".join(
        early(data, heading=f"pci {address}: config space:", before="[    0.1] ")
        for address, data in (("0000:00:1c.0", BRIDGE), ("0000:01:00.0", CARD), ("10000:00:00.0", CARD))
    )
    found = decode_machine(parse_dump(text.encode()).functions).functions
    assert list(map(str, found)) == ["0000:00:1c.0", "0000:01:00.0", "10000:00:00.0"]
    assert str(found[Sbdf(0, 1, 0, 0)].path) == "00_1c.0-00_00.0"


def test_a_row_that_the_log_lost_is_told():
    text = early(DATA).replace("00000020: ", "lost ")
    (raw,) = parse_dump(text.encode()).functions
    assert len(raw.config) == 32
    assert [finding.code for finding in raw.findings] == ["dump-malformed"]


def test_a_boot_log_that_lost_all_rows_is_told(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(line for line in early(DATA).splitlines(keepends=True) if line[:4] != "0000"))
    with pytest.raises(InputError, match=r"has 1 function by name in a boot log, but no bytes follow the fi"):
        read_dump(str(path))


def test_characters_behind_less_than_a_whole_row_are_no_bytes():
    text = f"00:02.0 x\n00: {DATA[:16].hex(' ')}  ....\n10: 86 80 cd ab  .... ab\n"
    (raw,) = parse_dump(text.encode()).functions
    assert (raw.config, [finding.code for finding in raw.findings]) == (DATA[:16], ["dump-malformed"])


def test_indented_words_are_no_bytes():
    text = f"00:02.0 x\n\t10: 00 00\n00: {DATA[:16].hex(' ')}\n\t\t10: 00 00\n"
    (raw,) = parse_dump(text.encode()).functions
    assert (raw.config, raw.findings) == (DATA[:16], ())


def test_paths_of_lspci_are_read_or_told():
    text = (
        "00:1c.0 0604: 1b36:000c\n00:1c.0/01:00.0 0106: 8086:9c03\n00:1c.0/01:00.0/02:00.0 0200: 8086:10d3\n"
    )
    assert [str(raw.sbdf) for raw in parse_dump(text.encode()).functions] == [
        "0000:00:1c.0", "0000:01:00.0", "0000:02:00.0",
    ]  # fmt: skip
    found = parse_dump(
        b"00:1c.0 0604: 1b36:000c\n00:1c.0/00.0 0106: 8086:9c03\n\tKernel driver in use: ahci\n"
    )
    (raw,) = found.functions
    assert raw.driver is None  # it is that of the function that was left out
    assert found.notes[0].startswith("1 functions have a path in place of a bus number")


BRIDGE_WORDS = "\tBus: primary=00, secondary=07, subordinate=08, sec-latency=0\n"
BRIDGE_BYTES = (
    "00: 36 1b 0c 00 07 00 10 00 00 00 04 06 00 00 01 00\n10: 00 00 00 00 00 00 00 00 00 07 08 00\n"
)
BELOW = [
    # the root port, what names the function below, and its address
    ("00:1c.0 PCI bridge [0604]: x [1b36:000c]\n", BRIDGE_WORDS,
     "00:1c.0/01.2 0106: 8086:9c03\n", "0000:07:01.2"),
    ("0001:00:1C.0 0604: 1b36:000c\n", BRIDGE_BYTES, "0001:00:1c.0/01.2 0106: 8086:9c03\n", "0001:07:01.2"),
    ("0001:00:1c.0 0604: 1b36:000c\n", BRIDGE_WORDS,
     "0001:00:1c.0/07:01.2 0106: 8086:9c03\n", "0001:07:01.2"),
    ("Slot:\t00:1c.0\nClass:\t0604\nVendor:\t1b36\nDevice:\t000c\n\n", BRIDGE_BYTES,
     "Slot:\t00:1c.0/01.2\nClass:\t0106\nVendor:\t8086\nDevice:\t9c03\n", "0000:07:01.2"),
]  # fmt: skip


@pytest.mark.parametrize(("port", "numbers", "function", "address"), BELOW)
def test_a_path_leads_to_the_bus_below_its_bridge(port, numbers, function, address):
    found = parse_dump(f"{port}{numbers}\n{function}".encode())
    assert found.notes == ()
    below = found.functions[1]
    assert (str(below.sbdf), below.ids.vendor, below.ids.device) == (address, 0x8086, 0x9C03)
    alone = parse_dump(f"{port}\n{function}".encode())
    assert len(alone.functions) == (2 if "/07:" in function else 1)


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
@pytest.mark.parametrize("form", ["-xxxx", "-nnvv", "-nnvvxxx", "-mmnvx"])
@pytest.mark.parametrize("paths", ["-P", "-PP"])
def test_with_paths_lspci_tells_the_same(path, form, paths):
    if not path.exists():
        pytest.skip("the dumps of other projects are not here: ../shared/data/pciutils")

    def told(*more):
        command = ["lspci", "-F", str(path), form, *more]
        return parse_dump(subprocess.run(command, capture_output=True, check=True).stdout)

    assert told(paths) == told()


BROKEN = [
    # a line of lspci, where mail has broken it
    ("00:14.2 PIC [0800]: Intel Corporation", "Status and RAS Registers [8086:3423] (rev 12)"),
    ("00:14.2 PIC [0800]: Intel Corporation", "Memory Controller [8086:3423] (rev 12)"),
    ("00:14.2 PIC [0800]: Intel Corporation", "I/O Hub", "Control Registers [8086:3423] (rev 12)"),
    ("00:14.2 PIC [0800]: Intel Corporation X [8086:3423] (rev", "12)"),
    ("00:14.2 PIC [0800]: Intel Corporation X [8086:3423] (rev 12) (prog-if", "20 [IO-APIC])"),
    ('00:14.2 "PIC [0800]" "Intel Corporation [8086]" "5520/5500/X58', 'I/O Hub [3423]" -r12 -p00 "" ""'),
    ('00:14.2 "PIC [0800]" "Intel', 'Corporation [8086]" "Hub', 'to Port [3423]" -r12 -p00 "A', 'B" "C"'),
]


@pytest.mark.parametrize("lines", BROKEN)
def test_headings_that_mail_has_broken_are_whole_again(lines):
    text = "00:00.0 0600: 8086:3405\n" + "\n".join(lines) + "\n00:1f.0 0601: 8086:3a16\n"
    found = parse_dump(text.encode())
    assert found.notes == ()
    ids = found.functions[1].ids
    assert len(found.functions) == 3
    assert (ids.class_code >> 8, ids.vendor, ids.device, ids.revision) == (0x0800, 0x8086, 0x3423, 0x12)


@pytest.mark.parametrize("tree", ["-[0000:00]-+-00.0\n", "-+-[0000:00]-\n +-[0001:02]---00.0-[03]----00.0\n"])
def test_the_tree_of_lspci_is_named(tree, tmp_path):
    (tmp_path / "tree").write_text(tree)
    with pytest.raises(InputError, match="is the output of lspci -t"):
        read_dump(str(tmp_path / "tree"))
