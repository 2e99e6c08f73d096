import pytest

from pcipt.host.recorder import record_machine
from pcipt.host.roles import Roles, read_roles
from pcipt.pci import parse_sbdf
from tests.trees import add

PORT, NVME, SERIAL = map(parse_sbdf, ("00:1c.0", "02:00.0", "00:16.3"))
DISK = "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1"
MOUNTS = """\
21 25 0:20 / /proc rw,nosuid shared:5 - proc proc rw
25 1 {numbers} / / rw,relatime shared:1 - {kind} {source} rw,errors=remount-ro
30 25 8:1 / /srv rw - ext4 /dev/sda1 rw
"""


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def link(root, path, target):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)


def mounted(root, numbers="259:2", source="/dev/nvme0n1p2", kind="ext4"):
    write(root, "proc/self/mountinfo", MOUNTS.format(numbers=numbers, source=source, kind=kind))


def plain(root):
    mounted(root)
    link(root, "sys/dev/block/259:2", f"../../{DISK}/nvme0n1p2")


def btrfs(root):
    mounted(root, "0:33", kind="btrfs")
    link(root, "sys/class/block/nvme0n1p2", f"../../{DISK}/nvme0n1p2")


def encrypted(root):
    """LVM on LUKS on a partition: two layers of the device mapper."""
    mounted(root, "253:1", "/dev/mapper/vg-root")
    link(root, "sys/dev/block/253:1", "../../devices/virtual/block/dm-1")
    link(root, "sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0")
    link(root, "sys/devices/virtual/block/dm-0/slaves/nvme0n1p2", f"../../../../../{DISK}/nvme0n1p2")


def encrypted_btrfs(root):
    mounted(root, "0:33", "/dev/mapper/vg-root", "btrfs")
    for number in range(2):
        link(root, f"sys/class/block/dm-{number}", f"../../devices/virtual/block/dm-{number}")
        write(root, f"sys/devices/virtual/block/dm-{number}/dm/name", ("other\n", "vg-root\n")[number])
    link(root, "sys/devices/virtual/block/dm-1/slaves/nvme0n1p2", f"../../../../../{DISK}/nvme0n1p2")


def subsystem(root):
    """NVMe with native multipath: the disk belongs to a subsystem, its controllers to functions."""
    mounted(root)
    link(root, "sys/dev/block/259:2", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p2")
    home = "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    link(root, f"{home}/nvme0", "../../../pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0")
    write(root, f"{home}/model", "")


CARRIED = frozenset({PORT, NVME})
SATA = parse_sbdf("00:17.0")


@pytest.mark.parametrize("below", [btrfs, encrypted_btrfs], ids=["plain", "encrypted"])
def test_all_disks_of_a_btrfs_carry_it(tmp_path, below):
    """Only one of them stands in mountinfo."""
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:03.0")
    below(root)
    write(root, "sys/class/tty/console/active", "tty0\n")
    first = ("../../../../devices/virtual/block", "dm-1")
    if below is btrfs:
        first = (f"../../../../{DISK}", "nvme0n1p2")
    home = "sys/fs/btrfs/7cb2f2d0-0000-4000-8000-000000000000/devices"
    link(root, f"{home}/{first[1]}", "/".join(first))
    link(root, f"{home}/sda2", "../../../../devices/pci0000:00/0000:00:17.0/ata1/block/sda/sda2")
    link(root, "sys/fs/btrfs/0/devices/sdb", "../../../../devices/pci0000:00/0000:00:18.0/ata9/block/sdb")
    write(root, "sys/fs/btrfs/features/raid56", "0\n")
    record_machine(str(root), str(tmp_path / "copy"))
    for each in (root, tmp_path / "copy"):
        assert read_roles(str(each)).root == CARRIED | {SATA}


@pytest.mark.parametrize("build", [plain, btrfs, encrypted, encrypted_btrfs, subsystem])
def test_what_carries_the_root_file_system(tmp_path, build):
    build(tmp_path)
    assert read_roles(str(tmp_path)).root == CARRIED


@pytest.mark.parametrize("build", [plain, btrfs, encrypted, encrypted_btrfs, subsystem])
def test_a_recording_keeps_just_what_is_needed(tmp_path, build):
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:03.0")
    build(root)
    write(root, "sys/class/tty/console/active", "tty0\n")
    record_machine(str(root), str(tmp_path / "copy"))
    copy = read_roles(str(tmp_path / "copy"))
    assert (copy.root, copy.serial, copy.screen) == (CARRIED, frozenset(), True)
    assert "/srv" not in (tmp_path / "copy/proc/self/mountinfo").read_text()


def in_memory(root):
    mounted(root, "0:2", "rootfs", "tmpfs")


def missing_link(root):
    mounted(root)


def endless(root):
    mounted(root, "253:1")
    link(root, "sys/dev/block/253:1", "../../devices/virtual/block/dm-1")
    link(root, "sys/devices/virtual/block/dm-1/slaves/dm-1", "../../dm-1")


def no_slaves(root):
    mounted(root, "253:1")
    link(root, "sys/dev/block/253:1", "../../devices/virtual/block/dm-1")
    (root / "sys/devices/virtual/block/dm-1/slaves").mkdir(parents=True)


def other_virtual(root):
    mounted(root, "7:0")
    link(root, "sys/dev/block/7:0", "../../devices/virtual/other/x")


def over_iscsi(root):
    mounted(root, "8:1", "/dev/sda1")
    session = "platform/host3/session1/target3:0:0/3:0:0:1"
    link(root, "sys/dev/block/8:1", f"../../devices/{session}/block/sda/sda1")


def over_ceph(root):
    mounted(root, "252:0", "/dev/rbd0")
    link(root, "sys/dev/block/252:0", "../../devices/rbd/0/block/rbd0")


def leads_outside(root):
    mounted(root)
    link(root, "sys/dev/block/259:2", "../../../../../etc/0000:02:00.0")


def no_root_mount(root):
    write(root, "proc/self/mountinfo", "21 25 0:20 / /proc rw - proc proc rw\n\n")


def unknown_mapping(root):
    mounted(root, "0:33", "/dev/mapper/gone", "btrfs")
    (root / "sys/class/block").mkdir(parents=True)


def no_block_class(root):
    mounted(root, "0:33", "/dev/mapper/gone", "btrfs")


@pytest.mark.parametrize(
    "build",
    [
        in_memory, missing_link, no_slaves, other_virtual, over_iscsi, over_ceph, leads_outside,
        no_root_mount, unknown_mapping, no_block_class, lambda _root: None,
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_unknown(tmp_path, build):
    build(tmp_path)
    assert read_roles(str(tmp_path)).root is None


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (endless, frozenset()),  # ends all the same
        (
            lambda root: (mounted(root), link(root, "sys/dev/block/259:2", "../../devices/vbd-1/block/xvda")),
            frozenset(),
        ),
    ],
)
def test_a_disk_without_a_function(tmp_path, build, expected):
    build(tmp_path)
    assert read_roles(str(tmp_path)).root == expected


def test_consoles(tmp_path):
    write(tmp_path, "sys/class/tty/console/active", "hvc0 ttyS4 tty1 ../x\n")
    link(tmp_path, "sys/class/tty/ttyS4", "../../devices/pci0000:00/0000:00:16.3/tty/ttyS4")
    roles = read_roles(str(tmp_path))
    assert (roles.serial, roles.screen) == (frozenset({SERIAL}), True)
    assert [kept.path for kept in roles.kept] == ["sys/class/tty/console/active", "sys/class/tty/ttyS4"]


def test_no_screen(tmp_path):
    write(tmp_path, "sys/class/tty/console/active", "hvc0\n")
    roles = read_roles(str(tmp_path))
    assert (roles.serial, roles.screen) == (frozenset(), False)


def test_nothing_is_known_of_a_root_that_is_not_there(tmp_path):
    assert read_roles(str(tmp_path / "nowhere")) == Roles(None, None, None)
