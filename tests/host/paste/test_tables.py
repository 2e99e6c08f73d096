import bz2
import contextlib
import gzip
import lzma
import shutil
import struct
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.host.paste.tables import TextError, tables_in
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope

DMAR = dmar(
    rmrr(0x7B00_0000, 0x7B00_FFFF, scope(0, (2, 0))), rmrr(0x7C00_0000, 0x7C00_0FFF, scope(0, (0x1C, 0)))
)
IVRS = ivrs(ivmd(0x21, 1, 16, 0, 0x1000, 0x1000))
SPARSE = build_table(Header("TEST", 1), bytes(200) + b"end" + bytes(100))  # rows repeat
MADT = build_table(Header("APIC", 1), bytes(range(9)))


def rows(data, row, width=16):
    return "".join(row(at, data[at : at + width]) for at in range(0, len(data), width))


def words_of(data):
    """Words of 16 bits, the low byte first; a last single byte is one of them."""
    padded = data + bytes(len(data) % 2)
    return " ".join(f"{word:04x}" for (word,) in struct.iter_unpack("<H", padded))


def quads(data):
    """Words of 32 bits, the low byte first; the last is filled up."""
    padded = data + bytes(-len(data) % 4)
    return " ".join(f"{word:08x}" for (word,) in struct.iter_unpack("<I", padded))


def text_of(data):
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def pairs(data):
    return " ".join(data[at : at + 2].hex() for at in range(0, len(data), 2))


def hex2(byte):
    return f"0x{byte:02X}"


FORMS = {
    "acpidump": lambda data: (
        f"{data[:4].decode()} @ 0x00000000B9C5A000\n"
        + rows(data, lambda at, row: f"    {at:04X}: {row.hex(' ').upper():48} {text_of(row)}\n")
        + "\n"
    ),
    "xxd": lambda data: rows(data, lambda at, row: f"{at:08x}: {pairs(row):39}  {text_of(row)}\n"),
    "xxd -g1": lambda data: rows(data, lambda at, row: f"{at:08x}: {row.hex(' '):47}  {text_of(row)}\n"),
    "xxd -p": lambda data: "".join(f"{data[at : at + 30].hex()}\n" for at in range(0, len(data), 30)),
    "hexdump -C": lambda data: (
        rows(data, lambda at, row: f"{at:08x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  |{text_of(row)}|\n")
        + f"{len(data):08x}\n"
    ),
    "hexdump": lambda data: rows(data, lambda at, row: f"{at:07x} {words_of(row)}\n") + f"{len(data):07x}\n",
    "od -t x1": lambda data: rows(data, lambda at, row: f"{at:07o} {row.hex(' ')}\n") + f"{len(data):07o}\n",
    "od -A x -t x1": lambda data: rows(data, lambda at, row: f"{at:06x} {row.hex(' ')}\n"),
    "od -x": lambda data: rows(data, lambda at, row: f"{at:07o} {words_of(row)}\n"),
    "od -A d -t x1": lambda data: rows(data, lambda at, row: f"{at:07d} {row.hex(' ')}\n"),
    "od -A n -t x1": lambda data: rows(data, lambda _at, row: f" {row.hex(' ')}\n"),
    "od -t x4": lambda data: rows(data, lambda at, row: f"{at:07o} {quads(row)}\n"),
    "xxd -c 8": lambda data: rows(data, lambda at, row: f"{at:08x}: {pairs(row):19}  {text_of(row)}\n", 8),
    "xxd -c 32": lambda data: rows(data, lambda at, row: f"{at:08x}: {pairs(row):79}  {text_of(row)}\n", 32),
    "Format-Hex": lambda data: (
        f"{'':11}00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F\n\n"
        + rows(data, lambda at, row: f"{at:08X}   {row.hex(' ').upper():47}  {text_of(row)}\n")
    ),
    "iasl -tc": lambda data: (
        "unsigned char DMAR[] =\n{\n"
        + rows(
            data,
            lambda at, row: f'    {",".join(f"0x{byte:02X}" for byte in row)},  /* {at:08X}    "0x44" */\n',
        )
        + "};\n"
    ),
}
MANGLED = {
    "plain": lambda text: text.encode(),
    "quoted": lambda text: "".join(f"> {line}\n" for line in text.splitlines()).encode(),
    "in a forum's code": lambda text: f"Hello,\n[CODE]{text.rstrip()}[/CODE]\n".encode(),
    "in Markdown": lambda text: f"Hello,\n```\n{text}```\n".encode(),
    "below a prompt": lambda text: f"root@host:~# hexdump DMAR\n{text}root@host:~# \n".encode(),
    "indented": lambda text: "".join(f"      {line}\n" for line in text.splitlines()).encode(),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "empty lines": lambda text: text.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("mangled", MANGLED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("table", [DMAR, IVRS, SPARSE, MADT], ids=["DMAR", "IVRS", "sparse", "odd"])
def test_every_form_of_text_gives_the_table(table, form, mangled):
    assert tables_in(MANGLED[mangled](FORMS[form](table))) == [table]


def test_the_text_of_acpidump_has_several_tables():
    text = "".join(FORMS["acpidump"](table) for table in (MADT, DMAR, IVRS))
    assert tables_in(text.encode()) == [MADT, DMAR, IVRS]


def test_raw_tables_follow_each_other():
    assert tables_in(DMAR) == [DMAR]
    assert tables_in(MADT + DMAR + IVRS) == [MADT, DMAR, IVRS]
    assert tables_in(DMAR + bytes(100)) == [DMAR + bytes(100)]  # no table follows: it is left as it is


def test_raw_bytes_that_are_no_table_stay_as_they_are():
    for data in (b"", b"DMAR", b"\0" * 100, b"DMAR\0\0\0\0", DMAR[:40], bytes(range(256))):
        assert tables_in(data) == [data]


def test_rows_that_repeat_are_filled():
    text = FORMS["hexdump -C"](SPARSE).splitlines(keepends=True)
    zero = "  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"
    kept = []
    for number, line in enumerate(text):
        if zero in line and zero in text[number - 1]:
            kept += ["*\n"] if kept[-1] != "*\n" else []
        else:
            kept.append(line)
    assert len(kept) < len(text)
    assert tables_in("".join(kept).encode()) == [SPARSE]


def test_what_looks_like_digits_behind_a_short_row_is_cut_by_the_length():
    table = build_table(Header("TEST", 1), b"\xbe\xef cafe")
    text = FORMS["acpidump"](table).replace(".. cafe", "bead cafe")
    assert tables_in(text.encode()) == [table]


REFUSED = [
    # a text, what is said of it
    ("Hello\n", "no hexdump"),
    ("0000: 44 4D\n", None),  # short, and left to whoever parses it
    ('DefinitionBlock ("", "SSDT", 2, "", "", 1)\n{\n}\n', "acpidump -n DMAR -b"),
    ('[000h 0000   4]    Signature : "DMAR"    [DMA Remapping table]\n', "iasl FILE.dsl"),
    ('[000h 0000 004h]   Signature : "IVRS"    [I/O Virtualization Reporting Structure]\n', "-n IVRS -b"),
    ('[000h 0000 004h]   Signature : "DMAR"\n' + FORMS["acpidump"](DMAR), "iasl's text (.dsl)"),
    (
        FORMS["xxd"](DMAR).replace("00000020:", "lost:"),
        "line 4: the row begins at 0x30, expected 0x20",
    ),
    (FORMS["acpidump"](DMAR).replace("    0010:", "    0020:"), "line 3: the row begins at 0x20"),
    ("zz" * 100, "no hexdump"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_no_table_is_said_in_one_line(text, said):
    if said is None:
        assert tables_in(text.encode()) == [b"DM"]
        return
    with pytest.raises(TextError) as caught:
        tables_in(text.encode())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_table_is_to_be_unpacked(pack):
    with pytest.raises(TextError, match="is compressed: unpack it first"):
        tables_in(pack(DMAR))


ENDLESS = [
    "0" * 1_000_000,
    "0000: " + "00 " * 400_000,
    "00000000  00\n*\n" * 50_000,
    "00000000: 0000\n*\nffffffff\n",
    "[" * 500_000,
    "0x00," * 200_000,
]


@pytest.mark.parametrize("text", ENDLESS, ids=lambda text: text[:9])
def test_no_text_takes_long(text):
    begun = time.process_time()
    with contextlib.suppress(TextError):
        tables_in(text.encode())
    assert time.process_time() - begun < 5


@given(st.binary(max_size=300) | st.text("0123456789abcdef:x *\n|", max_size=300).map(str.encode))
def test_any_bytes_give_tables_or_an_error_of_the_module(data):
    with contextlib.suppress(TextError):
        assert len(tables_in(data)) >= 1


TOOLS = [
    ["xxd"], ["xxd", "-g1"], ["xxd", "-u"], ["xxd", "-p"], ["xxd", "-i"], ["hexdump"], ["hexdump", "-C"],
    ["hexdump", "-Cv"], ["od", "-x"], ["od", "-t", "x1"], ["od", "-A", "x", "-t", "x1z"],
]  # fmt: skip


@pytest.mark.parametrize("command", TOOLS, ids=" ".join)
@pytest.mark.parametrize("table", [DMAR, IVRS, SPARSE, MADT], ids=["DMAR", "IVRS", "sparse", "odd"])
def test_what_the_tools_print_is_read(command, table, tmp_path):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "table").write_bytes(table)
    printed = subprocess.run([*command, tmp_path / "table"], capture_output=True, check=True).stdout
    assert tables_in(printed) == [table]
