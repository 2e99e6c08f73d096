"""What is masked, how it looks then, and that nothing of it is left in 1,000 random machines."""

import json
import random
import re
import uuid

import pytest

from pcipt.cli.options import KINDS_OF_SECRETS
from pcipt.host.report.masks import BOOT_ID, IOMEM, KINDS, Masks
from tests.pci.spaces import space, standard_list

MACHINES = 1000
CONFIG = "sys/devices/pci0000:00/0000:00:03.0/config"
MAC, ID, BOOT = (
    "00:1b:21:aa:bb:cc",
    "5f0c1a2b-1111-2222-3333-444455556666",
    "b007b007-0000-1111-2222-333344445555",
)


def with_serial(serial):
    data = bytearray(space(size=4096))
    data[0x100:0x104] = (0x0003 | 1 << 16).to_bytes(4, "little")
    data[0x104:0x10C] = serial
    return bytes(data)


def test_the_names_of_the_option_are_those_of_the_kinds():
    assert tuple(kind.name for kind in KINDS) == KINDS_OF_SECRETS


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"br-{MAC}: up", "br-02:00:00:00:00:01: up"),
        ("EUI-64 00-1b-21-ff-fe-aa-bb-cc", "EUI-64 02-00-00-00-00-00-00-01"),
        (f"luks-{ID}-part", "luks-00000000-0000-4000-9000-000000000001-part"),
        (f"eth0: {MAC}", "eth0: 02:00:00:00:00:01"),
        ("00-1B-21-AA-BB-CC", "02-00-00-00-00-01"),
        ("ff:ff:ff:ff:ff:ff 00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00"),
        ("enx001b21aabbcc: renamed", "enx020000000001: renamed"),
        (f"luks-{ID}", "luks-00000000-0000-4000-9000-000000000001"),
        (BOOT, "00000000-0000-4000-8000-000000000001"),
        ("Alpha kernel: /dev/mapper/alpha--vg-root", "host-1 kernel: /dev/mapper/alpha--vg-root"),
        ("alpha.example.org up", "host-1 up"),
        ("alphabet", "alphabet"),
        ("/home/alice/x /run/media/bob/STICK", "/home/user-1/x /run/media/user-2/STICK"),
        ("usb: SerialNumber: 4C530001", "usb: SerialNumber: serial-1"),
        ("serial8250: ttyS0 at I/O 0x3f8", "serial8250: ttyS0 at I/O 0x3f8"),
        ("at ffffffff81000000 and 0xffff888012345678", "at ffff000000000001 and 0xffff000000000002"),
        ("0xffffffffffffffff 0x00000000fe000000", "0xffffffffffffffff 0x00000000fe000000"),
        ("0000:03:00.0 BAR 0 0xfe000000-0xfe01ffff", "0000:03:00.0 BAR 0 0xfe000000-0xfe01ffff"),
    ],
)  # fmt: skip
def test_texts(text, masked):
    expected = masked.replace("alpha--vg", "host-1--vg")
    assert Masks("alpha.example.org", BOOT).text(text) == expected


def test_the_same_value_has_the_same_pseudonym_wherever_it_stands():
    masks = Masks()
    first = masks.text(f"enx001b21aabbcc {MAC} {ID} {ID.upper()}")
    assert first == "enx020000000001 02:00:00:00:00:01 " + " ".join(
        ["00000000-0000-4000-9000-000000000001"] * 2
    )
    assert masks.name("sys/class/net/enx001b21aabbcc") == "sys/class/net/enx020000000001"
    assert masks.text("02:00:00:00:00:0a") == "02:00:00:00:00:02"
    assert [(row.kind.name, row.values, row.times) for row in masks.table()] == [
        ("mac", 2, 4),
        ("uuid", 1, 2),
    ]


@pytest.mark.parametrize("name", ["", "dom0", "localhost", "xen", "(none)"])
def test_a_name_that_many_have_is_left(name):
    text = "dom0 localhost xen"
    assert Masks(name).text(text) == text


def test_the_serial_number_of_a_device_keeps_its_form():
    masks, serial = Masks(), bytes.fromhex("ccbbaaffff211b00")
    data = with_serial(serial)
    masked = masks.file(CONFIG, data)
    assert masked == data.replace(serial, (1).to_bytes(8, "little"))
    assert masks.file(CONFIG.replace("03.0", "03.1"), data) == masked
    assert Masks(keep=["serial"]).file(CONFIG, data) == data


def test_a_serial_number_that_is_cut_or_zero():
    assert Masks().file(CONFIG, with_serial(bytes(8))) == with_serial(bytes(8))
    assert len(Masks().file(CONFIG, with_serial(b"12345678")[:0x108])) == 0x108
    assert Masks().file(CONFIG, b"") == b""


def test_the_data_of_vpd_is_cleared():
    data = bytearray(space(standard_list((0x40, 0x03, {})), size=256))
    data[0x44:0x48] = b"S3CR"
    masked = Masks().file(CONFIG, bytes(data))
    assert masked[0x44:0x48] == bytes(4)
    assert masked[:0x44] == bytes(data[:0x44])


def test_where_the_kernel_lies_is_left_out_of_the_memory_map():
    text = "00100000-7fffffff : System RAM\n  1e000000-1f0031d0 : Kernel code\n80000000-8fffffff : Reserved\n"
    assert b"Kernel" not in Masks().file(IOMEM, text.encode())
    assert len(Masks().file(IOMEM, text.encode()).splitlines()) == 2
    assert Masks(keep=["kernel-address"]).file(IOMEM, text.encode()) == text.encode()


def test_gateways():
    line = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    assert Masks().file("proc/net/route", line.encode()) == line.replace("0102A8C0", "00000001").encode()
    assert Masks(keep=["gateway"]).file("proc/net/route", line.encode()) == line.encode()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_can_be_kept_and_the_table_says_so(kind):
    masks = Masks("alpha", BOOT, keep=[kind.name])
    masks.file(CONFIG, with_serial(b"12345678"))
    masks.text(f"{MAC} {BOOT} {ID} alpha /home/alice ffffffff81000000")
    masks.file("proc/net/route", b"eth0 00000000 0102A8C0 3\n")
    assert {row.kind.name: row.kept for row in masks.table()} == {k.name: k is kind for k in KINDS}


def test_json_is_masked_by_value_and_keys_stay():
    told = {"when": "x", "alpha": [MAC, 7, None, True, {"text": "on alpha"}]}
    assert Masks("alpha").json(told) == {
        "when": "x", "alpha": ["02:00:00:00:00:01", 7, None, True, {"text": "on host-1"}]
    }  # fmt: skip


def planted(random_one):
    """Give secrets of one machine, each with the form in which it stands in files."""
    digits = "0123456789abcdef"
    mac = "".join(random_one.choices(digits, k=11)) + "b"
    name = "".join(random_one.choices("bcdfghjkqvwz", k=random_one.randrange(5, 12)))
    return {
        "mac": mac,
        "serial": random_one.randbytes(8),
        "boot": str(uuid.UUID(int=random_one.getrandbits(128))),
        "disk": str(uuid.UUID(int=random_one.getrandbits(128))),
        "host": f"{name}-{random_one.randrange(100, 999)}",
        "user": "u" + "".join(random_one.choices("bcdfghjkqvwz", k=9)),
        "gateway": f"{random_one.randrange(1 << 28, 1 << 32):08X}",
        "kernel": f"ffffffff{random_one.randrange(1 << 28, 1 << 31):08x}",
        "text_serial": "".join(random_one.choices("ABCDEFGH12345", k=11)) + "7",
    }


def files_of(secret, random_one):
    """Give the files and texts of a machine with these secrets in them, in random order and number."""
    colons = ":".join(re.findall("..", secret["mac"]))
    lvm = secret["host"].replace("-", "--")
    code = int(secret["kernel"], 16) & 0xFFFF_FFFF
    files = [
        (CONFIG, with_serial(secret["serial"])),
        (CONFIG.replace("03.0", "04.0"), with_serial(secret["serial"])),
        (BOOT_ID, f"{secret['boot']}\n".encode()),
        ("proc/self/mountinfo", f"25 1 253:0 / /home/{secret['user']} rw - ext4 /dev/mapper/{lvm}-root rw\n"
         f"26 1 8:1 / /x rw - ext4 {random_one.choice(('luks-', 'abc-', ''))}{secret['disk']} rw\n".encode()),
        ("proc/net/route", f"enx{secret['mac']}\t00000000\t{secret['gateway']}\t0003\t0\n".encode()),
        (IOMEM, f"00100000-7fffffff : System RAM\n  {code:08x}-{code + 1:08x} : Kernel code\n".encode()),
        ("sys/block/dm-0/dm/name", f"{secret['host']}-swap\n".encode()),
    ]  # fmt: skip
    logs = [
        f"[    1.0] e1000e 0000:00:03.0 eth0: (PCI Express:2.5GT/s:Width x1) {colons}",
        f"usb 1-1: SerialNumber: {secret['text_serial']}",
        f"pci {secret['kernel']} mapped for {secret['host'].upper()}",
        f"Device Serial Number {'-'.join(f'{byte:02x}' for byte in reversed(secret['serial']))}",
    ]
    random_one.shuffle(files)
    random_one.shuffle(logs)
    return files, logs, [f"sys/class/net/enx{secret['mac']}", f"sys/fs/btrfs/{secret['disk']}"]


def traces_of(secret):
    """Give everything by which a secret could be recognised."""
    text = [secret[key] for key in ("mac", "boot", "disk", "host", "user", "kernel", "text_serial")]
    text += [secret["gateway"], ":".join(re.findall("..", secret["mac"])), secret["host"].replace("-", "--")]
    text += [secret["serial"].hex(), "-".join(f"{byte:02x}" for byte in reversed(secret["serial"]))]
    return [each.lower().encode() for each in text]


def test_nothing_of_a_thousand_random_machines_leaks():
    for seed in range(MACHINES):
        random_one = random.Random(seed)
        secret = planted(random_one)
        files, logs, names = files_of(secret, random_one)
        masks = Masks(secret["host"], secret["boot"])
        out = b"\n".join(masks.file(path, data) for path, data in files)
        out += masks.text("\n".join(logs)).encode() + json.dumps(masks.json({"text": logs})).encode()
        out += " ".join(map(masks.name, names)).encode()
        assert secret["serial"] not in out, seed
        assert [trace for trace in traces_of(secret) if trace in out.lower()] == [], seed
        assert {row.kind.name for row in masks.table()} == set(KINDS_OF_SECRETS), seed


def test_what_is_not_masked_would_leak():
    """The list of traces finds what it looks for: each kind that is kept leaves something."""
    random_one = random.Random(1)
    secret = planted(random_one)
    files, logs, names = files_of(secret, random_one)
    for kind in KINDS_OF_SECRETS:
        masks = Masks(secret["host"], secret["boot"], keep=[kind])
        out = b"\n".join(masks.file(path, data) for path, data in files)
        out += masks.text("\n".join(logs)).encode() + " ".join(map(masks.name, names)).encode()
        found = [trace for trace in traces_of(secret) if trace in out.lower()]
        assert found or secret["serial"] in out, kind
