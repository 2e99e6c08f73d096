import shutil

import pytest

from pcipt.host.recorder import record_machine
from pcipt.host.uses import read_uses
from pcipt.pci import parse_sbdf
from tests.trees import add

SATA, NVME, NIC, PORT = map(parse_sbdf, ("00:17.0", "02:00.0", "03:00.0", "00:1c.0"))
DISK = "devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
NS = "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1"
CARD = "devices/pci0000:00/0000:00:1d.0/0000:03:00.0/net"
ROUTE_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue\n"


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def link(root, path, target):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)


@pytest.fixture
def root(tmp_path):
    """A SATA disk with two partitions, an NVMe disk, a network card, nothing mounted, no routes."""
    for home in (
        "0000:00:17.0",
        "0000:00:1c.0",
        "0000:00:1c.0/0000:02:00.0",
        "0000:00:1d.0",
        "0000:00:1d.0/0000:03:00.0",
    ):
        add(tmp_path, f"pci0000:00/{home}")
    for name, place in {"sda": DISK, "sda1": f"{DISK}/sda1", "sda2": f"{DISK}/sda2", "nvme0n1": NS}.items():
        link(tmp_path, f"sys/class/block/{name}", f"../../{place}")
    link(tmp_path, "sys/dev/block/8:1", f"../../{DISK}/sda1")
    link(tmp_path, "sys/dev/block/259:0", f"../../{NS}")
    link(tmp_path, "sys/class/net/eth0", f"../../{CARD}/eth0")
    link(tmp_path, "sys/class/net/lo", "../../devices/virtual/net/lo")
    return tmp_path


def uses(root, sbdf, **more):
    found = read_uses(str(root), **more).found
    return sorted((use.kind.value, use.name, use.through) for use in found.get(sbdf, ()))


def mounts(root, *lines):
    write(root, "proc/self/mountinfo", "".join(f"{line}\n" for line in lines))


def test_disks_and_interfaces(root):
    assert uses(root, SATA) == [("disk", "sda", "")]  # partitions are parts of it
    assert uses(root, NVME) == [("disk", "nvme0n1", "")]
    assert uses(root, PORT) == [("disk", "nvme0n1", "")]  # the port above, too
    assert uses(root, NIC) == [("interface", "eth0", "")]


def test_a_machine_of_which_nothing_is_known(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        told = read_uses(str(place))
        assert (told.found, told.unknown) == ({}, ("disks and mounts", "network interfaces"))


def test_what_was_not_looked_for_is_named(root):
    assert read_uses(str(root)).unknown == ()
    shutil.rmtree(root / "sys/class/net")
    assert read_uses(str(root)).unknown == ("network interfaces",)
    shutil.rmtree(root / "sys/class/block")
    assert read_uses(str(root)).unknown == ("disks and mounts", "network interfaces")
    mounts(root, "30 21 8:1 / /home rw - ext4 /dev/sda1 rw")
    assert read_uses(str(root)).unknown == ("network interfaces",)
    assert uses(root, SATA) == [("mount", "/home", "sda1")]


def test_mounts_other_than_the_root(root):
    mounts(
        root,
        "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw",
        r"30 21 259:0 / /srv/my\040files rw - xfs /dev/nvme0n1 rw,secret=x",
        "31 21 0:20 / /proc rw - proc proc rw",
        "32 21 0:21 / /net rw - nfs4 server:/x rw",
        "damaged",
    )
    assert ("mount", "/srv/my files", "nvme0n1") in uses(root, NVME)
    assert ("mount", "/", "sda1") in uses(root, SATA)
    (kept,) = [each for each in read_uses(str(root)).kept if each.path == "proc/self/mountinfo"]
    assert kept.data == (
        b"21 1 8:1 / / rw,relatime - ext4 /dev/sda1\n"
        rb"30 21 259:0 / /srv/my\040files rw - xfs /dev/nvme0n1" + b"\n"
    )


def test_a_mount_on_volumes_of_two_disks(root):
    """LVM on a SATA and an NVMe disk: both carry it."""
    link(root, "sys/dev/block/253:0", "../../devices/virtual/block/dm-0")
    link(root, "sys/devices/virtual/block/dm-0/slaves/sda2", f"../../../../../{DISK}/sda2")
    link(root, "sys/devices/virtual/block/dm-0/slaves/nvme0n1", f"../../../../../{NS}")
    mounts(root, "30 21 253:0 / /home rw - ext4 /dev/mapper/vg-home rw")
    assert ("mount", "/home", "mapper/vg-home") in uses(root, SATA)
    assert ("mount", "/home", "mapper/vg-home") in uses(root, NVME)


def test_swap(root):
    write(
        root,
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/swap file 1 0 -3\n",
    )
    assert ("swap", "sda2", "") in uses(root, SATA)


def routes(root, *lines):
    write(root, "proc/net/route", ROUTE_HEAD + "".join(f"{line}\n" for line in lines))


DEFAULT = "{}\t00000000\t0101A8C0\t{}\t0\t0\t0\t00000000\t0\t0\t0"
LOCAL = "{}\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"


def bridged(root, *, lower):
    """A bridge xenbr0 with eth0 in it: told by a link lower_eth0, or by the directory brif."""
    link(root, "sys/class/net/xenbr0", "../../devices/virtual/net/xenbr0")
    home = "sys/devices/virtual/net/xenbr0"
    if lower:
        link(root, f"{home}/lower_eth0", f"../../../../{CARD}/eth0")
    else:
        link(root, f"{home}/brif/eth0", f"../../../../../{CARD}/eth0/brport")


def test_the_default_route(root):
    routes(root, DEFAULT.format("eth0", "0003"), LOCAL.format("eth0"))
    assert uses(root, NIC) == [("default-route", "eth0", ""), ("interface", "eth0", "")]
    routes(root, DEFAULT.format("eth0", "0000"))  # it is down
    assert uses(root, NIC) == [("interface", "eth0", "")]


@pytest.mark.parametrize("lower", [True, False])
def test_the_default_route_by_a_bridge(root, lower):
    bridged(root, lower=lower)
    routes(root, DEFAULT.format("xenbr0", "0003"))
    assert ("default-route", "eth0", "xenbr0") in uses(root, NIC)


def switched(root, mac):
    """Open vSwitch, as XCP-ng has it: eth0 and eth1 belong to ovs-system, xenbr0 is a port of dom0."""
    for name in ("xenbr0", "ovs-system"):
        link(root, f"sys/class/net/{name}", f"../../devices/virtual/net/{name}")
    link(root, "sys/class/net/eth1", f"../../{CARD}1/eth1")
    for name, home, address in (
        ("eth0", f"{CARD}/eth0", "02:00:00:00:00:0a"),
        ("eth1", f"{CARD}1/eth1", "02:00:00:00:00:0b"),
    ):
        link(root, f"sys/devices/virtual/net/ovs-system/lower_{name}", f"../../../../{home}")
        write(root, f"sys/{home}/address", f"{address}\n")
    write(root, "sys/devices/virtual/net/xenbr0/address", f"{mac}\n")


@pytest.mark.parametrize(
    ("mac", "cards"),
    [("02:00:00:00:00:0a", ["eth0"]), ("02:00:00:00:00:0c", ["eth0", "eth1"]), ("", [])],
    ids=["that of a card", "another", "a tunnel's"],
)
def test_the_default_route_by_open_vswitch(root, tmp_path, mac, cards):
    switched(root, mac)
    routes(root, DEFAULT.format("xenbr0", "0003"))
    expected = [("default-route", card, "xenbr0") for card in cards]
    assert [use for use in uses(root, NIC) if use[0] == "default-route"] == expected
    record_machine(str(root), str(tmp_path / "copy"))
    assert [use for use in uses(tmp_path / "copy", NIC) if use[0] == "default-route"] == expected


def test_the_default_route_of_ipv6(root):
    zero, nowhere = "0" * 32, "0" * 32
    line = f"{zero} {{length}} {nowhere} 00 fe80{'0' * 28} 00000400 00000001 00000000 {{flags}} {{name}}\n"
    write(
        root,
        "proc/net/ipv6_route",
        line.format(length="00", flags="00000003", name="eth0")
        + line.format(length="00", flags="00200200", name="lo"),
    )
    assert ("default-route", "eth0", "") in uses(root, NIC)
    write(root, "proc/net/ipv6_route", line.format(length="40", flags="00000001", name="eth0"))
    assert uses(root, NIC) == [("interface", "eth0", "")]


def tcp(root, *lines, name="tcp"):
    write(root, f"proc/net/{name}", TCP_HEAD + "".join(f"   0: {line} 00000000:00000000\n" for line in lines))


SSH = [
    # local address and port, the other end, state -> whether eth0 carries an ssh connection
    ("0201A8C0:0016 0901A8C0:C350 01", True),  # 192.168.1.2:22 with 192.168.1.9
    ("0201A8C0:0016 00000000:0000 0A", False),  # only listens
    ("0201A8C0:C350 0901A8C0:0016 01", False),  # from here to another host
    ("0100007F:0016 0100007F:C350 01", False),  # no route leads there by eth0
]


@pytest.mark.parametrize(("line", "carries"), SSH)
def test_ssh_connections_to_this_host(root, line, carries):
    routes(root, LOCAL.format("eth0"))
    tcp(root, line)
    assert (("ssh", "eth0", "") in uses(root, NIC)) == carries


def test_ssh_at_another_port_and_by_the_default_route(root):
    bridged(root, lower=True)
    routes(root, LOCAL.format("lo"), DEFAULT.format("xenbr0", "0003"))
    tcp(root, "0201A8C0:08AE 09090909:C350 01")
    assert not any(kind == "ssh" for kind, *_ in uses(root, NIC))
    assert ("ssh", "eth0", "xenbr0") in uses(root, NIC, ports=(22, 2222))


def test_ssh_by_ipv6(root):
    fe80 = "fe80" + "0" * 28
    write(root, "proc/net/ipv6_route", f"{fe80} 40 {'0' * 32} 00 {'0' * 32} 0 0 0 00000001 eth0\n")
    there = "000080FE000000000000000009000000"
    tcp(root, f"{there}:0016 {there}:C350 01", name="tcp6")
    assert ("ssh", "eth0", "") in uses(root, NIC)


def test_ssh_by_ipv4_in_the_table_of_ipv6(root):
    routes(root, LOCAL.format("eth0"))
    mapped = "0000000000000000FFFF0000"
    tcp(root, f"{mapped}0201A8C0:0016 {mapped}0901A8C0:C350 01", name="tcp6")
    assert ("ssh", "eth0", "") in uses(root, NIC)


def test_damaged_tables_tell_nothing(root):
    write(root, "proc/net/route", "Iface\neth0\neth0 x y z 1 2 3 4\n")
    write(root, "proc/net/ipv6_route", "0 0\nxyz\n")
    write(root, "proc/net/tcp", "head\n 0:\n 0: A:0016 B:1 01\n")
    write(root, "proc/swaps", "head\n\n")
    assert uses(root, NIC) == [("interface", "eth0", "")]


def test_a_recording_tells_the_same_without_connections(root, tmp_path):
    bridged(root, lower=True)
    routes(root, LOCAL.format("eth0"), DEFAULT.format("xenbr0", "0003"))
    tcp(root, "0201A8C0:0016 0901A8C0:C350 01")
    mounts(root, "30 21 8:1 / /home rw - ext4 /dev/sda1 rw")
    before = read_uses(str(root)).found
    record_machine(str(root), str(tmp_path / "copy"))
    after = read_uses(str(tmp_path / "copy")).found
    kept = {sbdf: [use for use in found if use.kind.value != "ssh"] for sbdf, found in before.items()}
    assert {sbdf: list(found) for sbdf, found in after.items()} == kept
    assert not (tmp_path / "copy/proc/net/tcp").exists()
    assert "0001A8C0" not in (tmp_path / "copy/proc/net/route").read_text()  # only the default route
