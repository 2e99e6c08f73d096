import json
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from pcipt.cli.main import main
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.build_tables import Guest, build_guest_tables
from pcipt.firmware.pvh.start_info import Module, StartInfo, build_start_info
from tests.pvh import KERNEL_AT, build_kernel, noted_ebx

AT, TABLES = 0x100_0000, 0xFC00_0000
INFO = StartInfo(
    1,
    modules=(Module(0x200_0000, 5000, b"first"), Module(0x1_4000_0000, 77)),
    cmdline=b"console=hvc0 \x1b[2J",
    memory_map=(entry(0x10_0000, 0x700_0000, MemoryType.RAM), entry(1 << 32, 1 << 31, MemoryType.RAM)),
)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "memory.bin"
    path.write_bytes(build_start_info(INFO, AT).data)
    return path


def run(capsys, *arguments):
    code = main(["pvh", "startinfo", *map(str, arguments)])
    return code, capsys.readouterr()


def test_a_start_info_as_a_person_reads_it(image, capsys):
    code, said = run(capsys, image, "--at", hex(AT))
    assert code == 0
    lines = said.out.splitlines()
    assert lines[0] == "hvm_start_info at 0x1000000, version 1, flags 0x0"
    assert 'command line  "console=hvc0 \\x1b[2J"' in lines[1]  # nothing reaches the terminal as it is
    assert "\x1b" not in said.out
    assert any(line.startswith("module 1      0x140000000, 77 bytes") for line in lines)
    assert lines[-1] == "11 ok, 0 warn, 0 error"


def test_a_start_info_as_a_program_reads_it(image, capsys):
    code, said = run(capsys, image, "--at", AT, "--json")
    answer = json.loads(said.out)
    places = build_start_info(INFO, AT).places
    line = hex(places.module_cmdlines[0])
    assert code == 0
    assert answer["version"] == 1
    assert answer["start_info"] == {
        "address": "0x1000000", "version": 1, "flags": "0x0", "domain": "guest",
        "module_list": hex(places.module_list),
        "modules": [
            {"address": "0x2000000", "size": 5000, "cmdline": "first", "cmdline_address": line},
            {"address": "0x140000000", "size": 77, "cmdline": None, "cmdline_address": None},
        ],
        "cmdline": "console=hvc0 \x1b[2J", "cmdline_address": hex(places.cmdline),
        "rsdp": None, "memory_map_address": hex(places.memory_map),
        "memory_map": [
            {"address": "0x100000", "size": 0x700_0000, "type": 1, "kind": "ram"},
            {"address": "0x100000000", "size": 1 << 31, "type": 1, "kind": "ram"},
        ],
    }  # fmt: skip
    assert {row["verdict"] for row in answer["rows"]} == {"ok"}
    assert {"rule", "verdict", "table", "offset", "reason"} == set(answer["rows"][0])


def write_guest(tmp_path, change=None):
    tables = build_guest_tables(Guest(2))
    end = tables.rsdp.range.last + 1
    acpi = bytearray(end - TABLES)
    for table in tables.everything:
        acpi[table.address - TABLES : table.address - TABLES + len(table.data)] = table.data
    if change:
        acpi[change] ^= 0xFF
    (tmp_path / "low").write_bytes(build_start_info(StartInfo(1, rsdp=tables.rsdp.address), AT).data)
    (tmp_path / "acpi").write_bytes(acpi)
    return [tmp_path / "low", tmp_path / "acpi", "--at", hex(AT), "--at", hex(TABLES)]


def test_several_pieces_and_the_tables_behind_them(tmp_path, capsys):
    code, said = run(capsys, *write_guest(tmp_path), "--json")
    rules = {(row["rule"], row["table"]) for row in json.loads(said.out)["rows"]}
    assert code == 0
    assert {("rsdp", "RSDP"), ("local-apics", "APIC"), ("acpi-checksum", "DSDT")} <= rules


def test_the_hardware_domains_tables_are_judged_as_such(tmp_path, capsys):
    arguments = write_guest(tmp_path)
    data = bytearray((tmp_path / "low").read_bytes())
    data[8] = 3
    (tmp_path / "low").write_bytes(data)
    code, said = run(capsys, *arguments)
    assert code == 4
    assert "an RSDT at 0xfc" in said.out  # which a guest has, and the hardware domain has not


def test_a_table_that_was_changed_is_found(tmp_path, capsys):
    code, said = run(capsys, *write_guest(tmp_path, change=0x90))
    assert code == 4
    assert "error  DSDT+0x9" in said.out


def test_tables_outside_the_image_are_a_warning(tmp_path, capsys):
    low, _, at, base, *_ = write_guest(tmp_path)
    code, said = run(capsys, low, at, base)
    assert code == 4
    assert "warn   start_info+0x20" in said.out


def test_an_rsdp_that_is_none_is_an_error(tmp_path, capsys):
    (tmp_path / "x").write_bytes(build_start_info(StartInfo(1, rsdp=AT), AT).data)
    code, said = run(capsys, tmp_path / "x", "--at", AT)
    assert code == 4
    assert 'the signature is not "RSD PTR "' in said.out


def test_its_place_can_be_named(tmp_path, capsys):
    data = build_start_info(INFO, AT).data
    moved = build_start_info(INFO, AT + len(data)).data
    (tmp_path / "x").write_bytes(data + moved)
    code, said = run(capsys, tmp_path / "x", "--at", AT, "--info", AT + len(data))
    assert (code, said.out.split(",")[0]) == (0, f"hvm_start_info at {AT + len(data):#x}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\0" * 4096, "not contain its magic 0x336ec578"),
        (b"xEn3", "not contain its magic"),
        (
            (0x336EC578).to_bytes(4, "little") + bytes(35),
            "40 bytes of hvm_start_info are needed, the image holds 39",
        ),
    ],
)
def test_what_is_no_start_info_is_1_and_one_line(content, why, tmp_path, capsys):
    (tmp_path / "x").write_bytes(content)
    code, said = run(capsys, tmp_path / "x", "--at", "0x1000")
    assert (code, said.out) == (1, "")
    assert why in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("path", ["absent", ".", "/dev/zero", "nul\0"])
def test_what_cannot_be_read_is_1(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, path, "--at", "0x1000")
    assert (code, said.out) == (1, "")
    assert said.err.startswith("pcipt: ")


def test_pieces_that_overlap_are_refused(image, capsys):
    code, said = run(capsys, image, image, "--at", AT, "--at", AT + 8)
    assert code == 1
    assert "overlaps" in said.err


def hostile(**fields):
    values = {
        "version": 1,
        "flags": 0,
        "count": 0,
        "modules": 0,
        "cmdline": 0,
        "rsdp": 0,
        "map": 0,
        "entries": 0,
    }
    values |= fields
    head = (
        values[name] for name in ("version", "flags", "count", "modules", "cmdline", "rsdp", "map", "entries")
    )
    return struct.pack("<IIIIQQQQII", 0x336EC578, *head, 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hostile(count=0xFFFF_FFFF, modules=AT + 56), "4294967295 entries"),
        (hostile(entries=0xFFFF_FFFF, map=AT + 56), "4294967295 entries"),
        (hostile(count=3, modules=AT), "lies over"),  # the list is the structure
        (hostile(cmdline=AT + 56), "no zero ends it"),
        (hostile(cmdline=1 << 63), "not in the image"),
        (hostile(version=0xFFFF_FFFF), "version 4294967295 is unknown"),
        (hostile()[:50], "the image ends before"),
    ],
)
def test_hostile_images_end_soon_with_their_reason(data, why, tmp_path, capsys):
    (tmp_path / "x").write_bytes(data + (b"\xff" * (1 << 20) if len(data) == 56 else b""))
    started = time.monotonic()
    code, said = run(capsys, tmp_path / "x", "--at", AT)
    assert time.monotonic() - started < 10
    assert code == 4
    assert why in said.out


class Qemu:
    """QEMU booting a PVH kernel, and its control socket."""

    def __init__(self, directory, *arguments):
        path = str(directory / "q")
        command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35,accel=tcg"]
        self._process = subprocess.Popen([*command, "-qmp", f"unix:{path},server=on,wait=off", *arguments])
        self._link = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 30
        while self._link.connect_ex(path) != 0:
            assert self._process.poll() is None, "QEMU has ended"
            assert time.monotonic() < end
        self._link.settimeout(30)
        self._file = self._link.makefile("rw")
        self._file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while "event" in (answer := json.loads(self._file.readline())):
            pass
        return answer["return"]

    def close(self):
        self.execute("quit")
        self._process.wait(30)
        self._file.close()
        self._link.close()


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
@pytest.mark.parametrize(
    ("megabytes", "initrd", "cmdline"),
    [
        (64, bytes(range(251)) * 40, "console=ttyS0 root=/dev/none quiet"),
        (130, b"x", ""),
        (40, None, "no initrd"),
    ],
)
def test_what_qemu_hands_to_a_pvh_kernel_is_read(megabytes, initrd, cmdline, tmp_path, capsys):
    arguments = ["-m", str(megabytes), "-kernel", str(build_kernel(tmp_path)), "-append", cmdline]
    if initrd is not None:
        (tmp_path / "initrd").write_bytes(initrd)
        arguments += ["-initrd", str(tmp_path / "initrd")]
    memory, page = str(tmp_path / "memory"), str(tmp_path / "page")
    qemu = Qemu(tmp_path, *arguments)
    try:
        ebx, end = None, time.monotonic() + 60
        while ebx is None and time.monotonic() < end:
            qemu.execute("pmemsave", val=KERNEL_AT, size=4096, filename=page)
            with open(page, "rb") as file:
                ebx = noted_ebx(file.read())
        assert ebx is not None, "the kernel has not run"
        qemu.execute("pmemsave", val=0, size=megabytes << 20, filename=memory)
    finally:
        qemu.close()
    code, said = run(capsys, memory, "--at", "0", "--json")
    answer = json.loads(said.out)
    print(said.out, file=sys.stderr)
    info = answer["start_info"]
    assert code == 0, [row for row in answer["rows"] if row["verdict"] != "ok"]
    assert int(info["address"], 16) == ebx
    assert info["cmdline"] == cmdline
    assert [module["size"] for module in info["modules"]] == ([] if initrd is None else [len(initrd)])
    with open(memory, "rb") as file:
        data = file.read()
    for module in info["modules"]:
        at = int(module["address"], 16)
        assert data[at : at + module["size"]] == initrd
    ram = [(int(e["address"], 16), e["size"]) for e in info["memory_map"] if e["kind"] == "ram"]
    others = [(int(e["address"], 16), e["size"]) for e in info["memory_map"] if e["kind"] != "ram"]
    assert max(start + size for start, size in ram) <= megabytes << 20
    below = [(start, size) for start, size in (*ram, *others) if start + size <= megabytes << 20]
    hole = 0xF_0000 - 0xA_0000  # VGA and option ROMs are in nobody's map
    assert sum(size for _, size in below) + hole == megabytes << 20
