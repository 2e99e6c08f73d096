"""What --dump takes, says and refuses, as a user sees it."""

import gzip
import io
import json
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.host.paste.lspci_samples import BRIDGE, BYTES, CARD, WORDS, rows

PLAIN = "00:00.0 Host bridge: Example Bridge (rev 02)\n00:1f.2 SATA controller: Example 8 Series\n"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


@pytest.fixture
def dump(tmp_path):
    def write(text):
        path = tmp_path / "dump"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_words_are_listed_shown_and_drawn(dump, capsys):
    path = dump(WORDS)
    code, out = run("list", "-n", "--dump", path)
    assert (code, out.splitlines()) == (
        0, ["0000:00:1c.0 0604: 1b36:000c (rev 02)", "0000:01:00.0 0106: 8086:9c03"]
    )  # fmt: skip
    told = f"pcipt: {path}: 2 functions, with ids and words but no config space\n"
    assert capsys.readouterr().err == told
    code, out = run("show", "-n", "01:00.0", "--dump", path)
    assert code == 0
    rows_of = [" ".join(line.split()) for line in out.splitlines()]
    assert "BAR 5: 0xf063d000 size 2K memory 32-bit decoding" in rows_of
    assert "Driver: ahci" in rows_of
    assert "Header: unknown" in rows_of
    assert "Capabilities:" not in rows_of
    assert run("tree", "-n", "--dump", path)[1] == "-[0000:00]---1c.0-[01]----00.0  8086:9c03\n"
    code, out = run("check", "01:00.0", "--dump", path)
    assert code == 4
    assert "no-config" in out


def test_what_words_do_not_tell_is_null_in_json(dump):
    device = json.loads(run("show", "01:00.0", "--dump", dump(WORDS), "--json")[1])["device"]
    assert (device["sbdf"], device["driver"], device["path"]) == ("0000:01:00.0", "ahci", "00_1c.0-00_00.0")
    assert device["capabilities"] == []
    assert [finding["code"] for finding in device["findings"]] == ["no-config", "bar-unassigned"]


def test_names_without_ids_are_shown_as_they_are(dump):
    text = WORDS.replace(" [8086:9c03]", "").replace(" [0106]", "").replace(" [1b36:000c]", "")
    path = dump(text)
    code, out = run("list", "--dump", path)
    assert code == 0
    assert "????" not in out
    assert out.splitlines()[1].startswith(
        "0000:01:00.0 SATA controller: Example Corporation 8 Series [AHCI mode]"
    )
    assert "SATA controller: Example Corporation" in run("show", "01:00.0", "--dump", path)[1]
    assert "Example Corporation 8 Series" in run("tree", "--dump", path)[1]


def test_names_beside_bytes_are_shown_as_they_are(dump):
    code, out = run("list", "-n", "--dump", dump(f"{PLAIN}\n00:1f.2 x\n{rows(CARD)}"))
    assert (code, "????" in out) == (0, False)
    assert out.splitlines()[0] == "0000:00:00.0 Host bridge: Example Bridge (rev 02)"


REFUSED = [
    # what is given, what is said
    (PLAIN, "is plain lspci: 2 functions by name, without any number; run `lspci -Dnnvv -xxxx` as root"),
    (PLAIN.replace("\n", "\r\n").encode("utf-16"), "is plain lspci"),
    ("> " + PLAIN.replace("\n", "\n> "), "is plain lspci"),
    (PLAIN + "00:01.0 VGA compatible controller: Device 1234:1111 (rev 02)\n", "is plain lspci: 3 functions"),
    ("$ qvm-pci\ndom0:00_14.0    USB controller: Example  sys-usb\n", "is the output of qvm-pci"),
    ("uuid ( RO)  : 0a5e\n     pci-id ( RO): 0000:01:00.0\n", "is the output of xe pci-list"),
    ("│ 0x010601 │ 0xa102 │ 0000:00:17.0 │          5 │ 0x8086 │ Q170 │\n", "is a table of Proxmox's pvesh"),
    ("/sys/kernel/iommu_groups/7/devices/0000:00:1c.0\n", "has names of functions and tells nothing"),
    ("pci_0000_00_00_0\npci_0000_00_02_0\n", "has names of functions and tells nothing"),
    ("# xl pci-assignable-list\n0000:01:00.0\n", "has addresses and no more"),
    ("0100\t10de1b81\tb\t        f6000000\n", "is /proc/bus/pci/devices"),
    ("(XEN) PCI add device 0000:00:00.0\n", "is a log of Xen"),
    ("", "is empty"),
    ("-[0000:00]-+-00.0  Example\n           \\-1f.2  Example\n", "is the output of lspci -t"),
    (
        "[    0.000000] Linux version 6.1.0\n[    0.1] pci 0000:00:1f.2: [8086:9c03] type 00\n",
        "pci=earlydump",
    ),
    ("IVRS @ 0x0000000000000000\n    0000: 49 56 52 53  IVRS\n", "`pcipt rmrr --table` reads such a file"),
    (
        "<hostdev><source><address domain='0x0' bus='0x1' slot='0x0' function='0x0'/></source></hostdev>",
        "XML",
    ),
    ("  *-pci\n       bus info: pci@0000:00:00.0\n", "lshw"),
    ("ahci0@pci0:0:31:2:\tclass=0x010601 rev=0x00 vendor=0x8086\n", "is the output of FreeBSD's pciconf"),
    ("PCI\\VEN_8086&DEV_3A22&SUBSYS_82771043&REV_00\n", "is a list of devices by Windows"),
    ("  Device-1: Intel ICH10 driver: ahci bus-ID: 00:1f.2\n", "is the output of inxi"),
    ("21: PCI 1f.2: 0106 SATA controller (AHCI 1.0)\n", "is the output of hwinfo"),
    ("0000:00:1f.2\n   Address: 0000:00:1f.2\n   VMkernel Name: vmhba0\n", "is a list of devices by ESXi"),
    (gzip.compress(BYTES.encode()), "is compressed: unpack it first"),
    (CARD, "is the config space of one function without its address"),
    ("00000000: 8680 039c 0700 0000\n", "is a hexdump that names no function"),
    (b"\x7fELF\x02\x01" + bytes(range(256)) * 20, "holds no function"),
    ("Dear list,\n00:1f.2 does not work.\n", "holds no function"),
]


@pytest.mark.parametrize(("content", "said"), REFUSED)
@pytest.mark.parametrize("command", [["list"], ["tree"], ["show", "00:1f.2"], ["check"]])
def test_what_does_not_help_is_one_line_that_says_what_to_run(dump, capsys, command, content, said):
    path = dump(content)
    assert main([*command, "--dump", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pcipt: {path}: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_other_machines_are_named_on_stderr(dump, capsys):
    other = BYTES.replace("36 1b", "37 1b").replace("86 80", "87 80")
    code, out = run("list", "-n", "--dump", dump(f"{BYTES}\nuser@second:~$ lspci -xxx\n{other}"))
    assert (code, len(out.splitlines())) == (0, 2)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert 'leaves out "user@second:~$ lspci -xxx" (line' in err[1]


@pytest.mark.parametrize(("text", "code"), [
    (BYTES.replace("30: ", "lost ", 1).replace("30: ", "lost ", 1), "dump-malformed"),
    (f"{BYTES}\n00:1c.0 x\n{rows(CARD)}\n01:00.0 x\n{rows(BRIDGE)}", "duplicate-address"),
])  # fmt: skip
def test_a_dump_that_is_damaged_or_mixed_is_never_ok(dump, text, code):
    text = text.replace("lost ", "38: ")
    answer = json.loads(run("check", "01:00.0", "--dump", dump(text), "--json")[1])
    (function,) = answer["functions"]
    assert function["verdict"] != "ok"
    assert code in [reason["code"] for reason in function["reasons"]]
