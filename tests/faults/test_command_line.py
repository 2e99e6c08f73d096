"""Faults in what a person gives to the command line, or in what sysfs shows it."""

import json
import struct
import tarfile

import pytest

from tests.faults.stage import pcipt, told
from tests.firmware.host_tables import good_dmar
from tests.firmware.reserved_tables import rmrr, scope
from tests.fuzz.corpus import hexdump
from tests.machines import config
from tests.trees import a_directory, a_fifo, a_link, add
from tests.watch.test_recording import XENTRACE, port

NIC = "pci0000:00/0000:00:03.0"


def decoded(path, *options):
    return [json.loads(line) for line in pcipt("decode", path, "--json", *options).stdout.splitlines()]


ADDRESS = port(1, 0xCF8, 0x8000_FB04)
WRITE = port(3, 0xCFC, 3, 2)


def test_a_loss_between_address_and_data_forgets_the_address(tmp_path):
    file = tmp_path / "a.ports.jsonl"
    file.write_text(ADDRESS + "{damaged\n" + WRITE)
    assert not any(item.get("type") == "write" for item in decoded(file))
    file.write_text(ADDRESS + WRITE)
    assert any(item.get("type") == "write" for item in decoded(file))


@pytest.mark.parametrize(
    ("accesses", "writes"),
    [
        ([(0xCF8, 0x8000_FB04, 4), (0xCFD, 1, 1)], [(5, 1)]),
        ([(0xCF8, 0x8000_FB04, 4), (0xCFE, 1, 2)], [(6, 2)]),
        ([(0xCF8, 0x8000_FB04, 4), (0xCF8, 1, 1), (0xCFC, 3, 2)], [(4, 2)]),
        ([(0xCF8, 0x8000_FB04, 4), (0xCF9, 6, 1), (0xCFC, 3, 2)], [(4, 2)]),
        ([(0xCF8, 0x0000_FB04, 4), (0xCFC, 3, 2)], []),
    ],
    ids=["a byte at cfd", "two bytes at cfe", "a byte at cf8", "the reset port", "the enable bit is clear"],
)
def test_odd_accesses_to_the_ports(accesses, writes, tmp_path):
    file = tmp_path / "a.ports.jsonl"
    file.write_text("".join(port(n, at, value, size) for n, (at, value, size) in enumerate(accesses)))
    found = [item for item in decoded(file) if item.get("type") == "write"]
    assert [(int(item["offset"], 16), item["size"]) for item in found] == writes


def capabilities(*entries, pointer=0x40, size=256):
    data = bytearray(config(size=size))
    data[6], data[0x34] = 0x10, pointer
    for at, kind, following in entries:
        data[at : at + 2] = bytes((kind, following))
    return bytes(data[:size])


#  what it shows, config space, whether a finding says so: the low bits of a pointer are reserved, and who may
#  read 64 bytes only has no list
CHAINED = capabilities((0x40, 0x10, 0), size=4096)[:0x100] + struct.pack("<I", 0x1001_0001) * 960
LISTS = [
    ("a loop", capabilities((0x40, 1, 0x50), (0x50, 5, 0x40)), True),
    ("a pointer below 40", capabilities(pointer=0x20), True),
    ("not aligned", capabilities((0x40, 1, 0x53)), False),
    ("past the end", capabilities((0x40, 1, 0x80), size=64), False),
    ("an extended chain into itself", CHAINED, True),
]


@pytest.mark.parametrize(("data", "said"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_broken_lists_of_capabilities(data, said, tmp_path):
    file = tmp_path / "dump"
    file.write_text(hexdump(data))
    (function,) = told("list", "--dump", file)["devices"]
    assert function["sbdf"] == "0000:00:1f.3"
    assert len(function["capabilities"]) < 60
    assert any("capability" in finding["code"] for finding in function["findings"]) is said


@pytest.mark.parametrize(
    "files",
    [
        {"resource": "0x1\n"},
        {"resource": "garbled \0\n" * 13},
        {"resource": "0" * (1 << 20)},
        {"vendor": "\0" * 64},
        {"config": a_directory},
        {"config": a_fifo},
        {"resource": a_fifo},
        {"config": None},
        {"config": b"\xff" * 64},
        {"config": b"\0"},
    ],
    ids=[
        "short", "garbled", "a line of a megabyte", "zeros", "a directory", "a FIFO", "a FIFO of lines",
        "no config", "all ones", "one byte",
    ],
)  # fmt: skip
def test_malformed_files_of_sysfs(files, tmp_path):
    add(tmp_path, NIC, files)
    add(tmp_path, "pci0000:00/0000:00:04.0")
    found = {function["sbdf"] for function in told("list", "--root", tmp_path)["devices"]}
    assert "0000:00:04.0" in found


def test_a_segment_of_five_digits(tmp_path):
    add(tmp_path, "pci10000:00/10000:00:03.0")
    assert [each["sbdf"] for each in told("list", "--root", tmp_path)["devices"]] == ["10000:00:03.0"]


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "..", "/dev/zero", "0000:00:09.0"])
def test_links_that_lead_out_of_a_recorded_tree(target, tmp_path):
    add(tmp_path, "pci0000:00/0000:00:04.0")
    a_link(target)(tmp_path / "sys/bus/pci/devices/0000:00:09.0")
    good, astray = told("list", "--root", tmp_path)["devices"]
    assert (good["sbdf"], good["findings"]) == ("0000:00:04.0", [])
    assert (astray["sbdf"], astray["vendor"]) == ("0000:00:09.0", None)
    assert astray["findings"]


def test_names_with_escapes_reach_no_terminal(tmp_path):
    add(tmp_path, NIC)
    (tmp_path / "sys/bus/pci/devices/0000:00:09.0\n\x1b[31m").mkdir()
    done = pcipt("list", "--root", tmp_path)
    assert b"\x1b" not in done.stdout + done.stderr


def test_an_archive_with_names_above_it_is_no_machine(tmp_path):
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "evil", arcname="../../evil")
    assert pcipt("list", "--root", tmp_path / "a.tar").returncode != 0
    assert not (tmp_path.parent.parent / "evil").exists()


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_trace_that_is_cut_names_the_offset(cut, tmp_path):
    file = tmp_path / "trace"
    file.write_bytes(XENTRACE + XENTRACE[:-cut])
    told_of = pcipt("decode", file)
    assert f"{len(XENTRACE) + 12:#x}".encode() in told_of.stdout + told_of.stderr


NICS = scope(0, (3, 0))
BAD = {
    "base above limit": good_dmar(rmrr(0x7000_4000, 0x7000_0FFF, NICS)),
    "base 0": good_dmar(rmrr(0, 0x3FFF, NICS)),
    "not aligned": good_dmar(rmrr(0x7000_0010, 0x7000_3FFF, NICS)),
    "over 64 MiB": good_dmar(rmrr(0x7000_0000, 0x77FF_FFFF, NICS)),
    "ten devices": good_dmar(rmrr(0x7000_0000, 0x7000_3FFF, *(scope(0, (n, 0)) for n in range(3, 13)))),
    "a missing bridge": good_dmar(rmrr(0x7000_0000, 0x7000_3FFF, scope(0, (0x1C, 0), (0, 0)))),
    "a scope of length 0": good_dmar(rmrr(0x7000_0000, 0x7000_3FFF, b"\1\0\0\0\0\0")),
    "an entry of length 0": good_dmar(struct.pack("<HH", 1, 0) + bytes(20)),
    "a bad checksum": good_dmar()[:9] + b"\x55" + good_dmar()[10:],
    "shorter than its header": good_dmar()[:20],
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_tables(data, tmp_path):
    (tmp_path / "DMAR").write_bytes(data)
    done = pcipt("rmrr", "--table", tmp_path / "DMAR")
    assert (done.stdout + done.stderr).strip()


def test_without_a_daemon_and_without_xen_reading_commands_work(tmp_path):
    add(tmp_path, NIC)
    assert pcipt("list", "--root", tmp_path).returncode == 0
    done = pcipt("status", "--socket", tmp_path / "none")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
