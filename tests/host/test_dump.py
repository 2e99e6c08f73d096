import os
import shutil
import threading

import pytest

from pcipt.errors import InputError
from pcipt.host import dump
from pcipt.host.dump import MAX_BYTES
from pcipt.pci import decode_machine
from tests import lspci_text
from tests.machines import config
from tests.trees import DATA, dumps


def rows(data, start=0, digits=2):
    return "".join(
        f"{start + at:0{digits}x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16)
    )


def parse_dump(data):
    return list(dump.parse_dump(data).functions)


def read_dump(path):
    return list(dump.read_dump(path).functions)


HEADER = config()
FULL = config(size=4096)

ADDRESSES = [
    ("00:1f.2", "0000:00:1f.2"),
    ("00:1f.2 SATA controller: Intel Corporation Device", "0000:00:1f.2"),
    ("0000:00:1f.2 SATA controller", "0000:00:1f.2"),
    ("10000:e1:00.0 Non-Volatile memory controller", "10000:e1:00.0"),  # VMD
    ("0000:00:1F.2 in capitals", "0000:00:1f.2"),
    ("00:1f.2\r", "0000:00:1f.2"),  # it went through Windows
    ("00:1f.2\tx", "0000:00:1f.2"),
]


@pytest.mark.parametrize(("line", "expected"), ADDRESSES)
def test_a_line_that_begins_with_an_address_begins_a_function(line, expected):
    (raw,) = parse_dump(f"{line}\n{rows(HEADER)}".encode())
    assert (str(raw.sbdf), raw.config, raw.findings) == (expected, HEADER, ())


NO_ADDRESSES = [
    "00:1f",
    "00:1f.8 x",
    "00:20.0 x",
    "0:1f.2 x",
    "00:1f.2x",
    "00:1f.22",
    "see 00:1f.2 x",
    "1f.2 x",
    "000000000:00:00.0",
]


@pytest.mark.parametrize("line", NO_ADDRESSES)
def test_another_line_begins_none(line):
    assert parse_dump(f"{line}\n{rows(HEADER)}".encode()) == []


@pytest.mark.parametrize("size", [64, 256, 4096])
def test_config_space_is_as_long_as_its_rows(size):
    data = config(size=size)
    (raw,) = parse_dump(f"00:00.0 x\n{rows(data)}".encode())
    assert raw.config == data


NO_DATA = [
    "\tRegion 0: Memory at c2700000 (64-bit, non-prefetchable) [size=16K]",
    "\t10: 00 00 00",  # indented: lspci's own words
    "# a comment",
    "$ lspci -xxx",
    "0x10: 00",
    "1: 00",
    "1000: 00 00",
    "\x1b[31mred\x1b[0m",
    "\xff\xfe\x00",
    "x" * 1_000_000,
]


@pytest.mark.parametrize("line", NO_DATA)
def test_whatever_stands_in_between_is_no_data(line):
    text = f"{line}\n00:00.0 x\n{line}\n{rows(FULL[:256])}{line}\n{rows(FULL[256:], 256, 3)}{line}"
    (raw,) = parse_dump(text.encode("latin-1"))
    assert (raw.config, raw.findings) == (FULL, ())


BROKEN = [
    # after the first row: a row, how much is known, what the finding says
    ("20: " + "00 " * 15 + "00", 16, "line 3 of the dump begins at 0x20, expected 0x10"),  # a row was lost
    ("00: " + "00 " * 15 + "00", 16, "begins at 0x0, expected 0x10"),  # a row came twice
    ("10: 00 0", 16, "no row of hexadecimal bytes"),  # cut
    ("10:", 16, "no row of hexadecimal bytes"),
    ("10: 00 00 zz", 16, "no row of hexadecimal bytes"),
    ("10: " + "00 " * 17, 16, "no row of hexadecimal bytes"),
    ("10: 00 00 00\n13: 00", 20, None),  # odd, but nothing is missing
]


@pytest.mark.parametrize(("row", "known", "told"), BROKEN)
def test_a_row_that_does_not_continue_ends_what_is_known(row, known, told):
    text = f"00:1f.2 x\n{rows(HEADER[:16])}{row}\n{rows(HEADER[32:], 32)}\n00:1f.3 y\n{rows(HEADER)}"
    broken, whole = parse_dump(text.encode())
    assert len(broken.config) == known
    assert (whole.config, whole.findings) == (HEADER, ())
    if told:
        (finding,) = broken.findings
        assert finding.code == "dump-malformed"
        assert told in finding.text


def test_more_than_a_config_space_is_cut_and_told():
    (raw,) = parse_dump(f"00:00.0 x\n{rows(FULL)}{'1000: 00'[1:]}\n".encode())
    assert len(raw.config) == 4096
    assert [finding.code for finding in raw.findings] == ["dump-malformed"]


def test_of_an_address_that_comes_twice_the_first_is_taken():
    other = config(vendor=0x1234)
    text = f"00:1f.2 x\n{rows(HEADER)}\n00:1f.2 x\n{rows(other)}\n0000:00:1f.2 x\n{rows(other)}"
    (raw,) = parse_dump(text.encode())
    assert raw.config == HEADER
    assert [finding.code for finding in raw.findings] == ["duplicate-address"]


def test_an_address_without_rows_is_a_function_without_config():
    (raw,) = parse_dump(b"00:1f.2 SATA controller: Example\n")
    assert raw.config is None
    (function,) = decode_machine([raw]).functions.values()
    assert [finding.code for finding in function.findings] == ["no-config"]


def test_sizes_and_linux_are_unknown():
    (raw,) = parse_dump(f"00:00.0 x [size=16K]\n{rows(config(bars=(0xFEB00000,)))}".encode())
    (function,) = decode_machine([raw]).functions.values()
    assert [bar.size for bar in function.bars] == [None]
    assert (function.driver, function.numa_node) == (None, None)


UNUSABLE = [
    (b"", "is empty"),
    (b"no dump\n", "holds no function"),
    (b"10: 00 00\n", "holds no function"),
    (b"00:1f.2 does not work\n", "holds no function"),  # a sentence
    (b"\0" * 1000, "holds no function"),
]


@pytest.mark.parametrize(("content", "told"), UNUSABLE)
def test_a_file_without_a_function_is_an_input_error(tmp_path, content, told):
    (tmp_path / "dump").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_dump(str(tmp_path / "dump"))
    assert caught.value.path == str(tmp_path / "dump")
    assert caught.value.why.startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "", ".", "nul\0"])
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError):
        read_dump(str(tmp_path / name) if name != "nul\0" else name)


def test_a_file_without_end_is_an_input_error(tmp_path):
    with open(tmp_path / "dump", "wb") as out:
        out.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError) as caught:
        read_dump(str(tmp_path / "dump"))
    assert "longer" in caught.value.why


def test_a_dump_may_come_through_a_pipe(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text(f"00:1f.2 x\n{rows(HEADER)}"))
    writer.start()
    (raw,) = read_dump(str(fifo))
    writer.join()
    assert raw.config == HEADER


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_dumps_agree_with_lspci(path):
    if not path.exists():
        pytest.skip("the recordings of other projects are not here")
    theirs = lspci_text.on_dump(path)
    machine = decode_machine(read_dump(str(path)))
    assert {str(sbdf) for sbdf in machine.functions} == set(theirs)
    for sbdf, function in machine.functions.items():
        lspci_text.compare(function, theirs[str(sbdf)], live=False)


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")
def test_raw_config_spaces_written_as_a_dump_agree_with_lspci(tmp_path):
    found = sorted((DATA / "libvirt").glob("*.config"))
    if not found:
        pytest.skip("the recordings of other projects are not here")
    with open(tmp_path / "dump", "w", encoding="ascii") as out:
        for path in found:
            segment, bus, devfn = path.name.removesuffix(".config").split("-")
            out.write(f"{segment}:{bus}:{devfn} x\n{rows(path.read_bytes())}\n")
    theirs = lspci_text.on_dump(tmp_path / "dump")
    machine = decode_machine(read_dump(str(tmp_path / "dump")))
    assert len(machine.functions) == len(found) == len(theirs)
    for sbdf, function in machine.functions.items():
        lspci_text.compare(function, theirs[str(sbdf)], live=False)
