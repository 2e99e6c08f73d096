"""Which functions dom0 itself cannot spare: those that carry its root file system, and those of its console.

Read from the names in a few links, never from the devices: a link's text names every function on the way to
a disk or a port. Device mapper, md and NVMe subsystems are followed to what they are made of, btrfs to all
its disks. Whatever was read is handed back too, so that a recording keeps exactly that.
Source: linux Documentation/filesystems/proc.rst §3.5 (mountinfo); Documentation/ABI/testing/sysfs-tty;
fs/btrfs/sysfs.c, btrfs_sysfs_add_device.
"""

import re

import attrs

from pcipt.errors import InputError
from pcipt.host.files import CONSOLES, MOUNTS
from pcipt.host.function_files import sbdf_from_name
from pcipt.host.tree import Tree, list_names, read_link
from pcipt.pci import Sbdf

_NUMBERS, _BLOCK, _TTY = "sys/dev/block", "sys/class/block", "sys/class/tty"
_BTRFS = "sys/fs/btrfs"
_VIRTUAL = ("sys", "devices", "virtual")
_REMOTE = re.compile(r"session[0-9]{1,10}|rbd")  # iSCSI by software, Ceph: some NIC carries them
_SLAVES = 64  # of one device; more is no array anybody boots from
_DEPTH = 8
_NVME = re.compile(r"nvme[0-9]{1,6}")
_PORT = re.compile(r"[A-Za-z]{1,16}[0-9]{1,6}")
_NODE = re.compile(r"/dev/([A-Za-z0-9!_.-]{1,64})")


@attrs.frozen
class Kept:
    """A file or link that was read, by its path beneath the root."""

    path: str
    data: bytes | None = None
    target: str | None = None


@attrs.frozen
class Roles:
    """What is None cannot be told; `screen` tells whether a virtual terminal is a console."""

    root: frozenset[Sbdf] | None
    serial: frozenset[Sbdf] | None
    screen: bool | None
    kept: tuple[Kept, ...] = ()


def read_roles(root: str = "/") -> Roles:
    """Read them beneath a root; what cannot be read is unknown."""
    try:
        with Tree(root) as tree:
            reader = _Reader(tree)
            carriers = reader.root_functions()
            serial, screen = reader.consoles()
            return Roles(carriers, serial, screen, tuple(reader.hold_reason.values()))
    except InputError:
        return Roles(None, None, None)


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.hold_reason: dict[str, Kept] = {}

    def root_functions(self) -> frozenset[Sbdf] | None:
        try:
            lines = self._tree.read(MOUNTS, 1 << 20).splitlines()
        except OSError:
            return None
        mounts = [line for line in lines if line.split()[4:5] == [b"/"]]
        if not mounts:
            return None
        before, _, after = mounts[-1].partition(b" - ")
        kind_and_source = after.split()[:2]  # behind them stand options, which may hold a password
        self.hold_reason[MOUNTS] = Kept(MOUNTS, b" ".join((before, b"-", *kind_and_source)) + b"\n")
        fields = before.decode("utf-8", "replace").split()
        source = [each.decode("utf-8", "replace") for each in kind_and_source[1:]]
        try:
            if not fields[2].startswith("0:"):
                paths = [f"{_NUMBERS}/{fields[2]}"]
            else:
                path = self._by_name(*source)
                paths = self._members(path) if path is not None else []
            found = [self._below(path, _DEPTH) for path in paths]
        except OSError:
            return None
        return frozenset().union(*found) if found else None

    def consoles(self) -> tuple[frozenset[Sbdf] | None, bool | None]:
        try:
            data = self._tree.read(CONSOLES, 4096)
        except OSError:
            return None, None
        self.hold_reason[CONSOLES] = Kept(CONSOLES, data)
        names = data.decode("ascii", "replace").split()
        found: set[Sbdf] = set()
        for name in filter(_PORT.fullmatch, names):
            try:
                found.update(_functions_in(self._link(f"{_TTY}/{name}")))
            except OSError:
                continue  # hvc0 of Xen and the like have no device
        return frozenset(found), any(re.fullmatch(r"tty[0-9]+", name) for name in names)

    def _by_name(self, source: str = "") -> str | None:
        """Find the block device of a file system without numbers of its own (btrfs) by its node."""
        if source.startswith("/dev/mapper/"):
            return self._mapped(source.removeprefix("/dev/mapper/"))
        matched = _NODE.fullmatch(source)
        return f"{_BLOCK}/{matched[1]}" if matched is not None else None

    def _members(self, path: str) -> list[str]:
        """List a block device, and those of the btrfs that it is part of: mountinfo names one of them."""
        wanted = path.rpartition("/")[2]
        try:
            systems = list_names(self._tree.enter(_BTRFS), 4096)
        except OSError:
            return [path]
        for system in sorted(systems):
            home = f"{_BTRFS}/{system}/devices"
            try:
                names = list_names(self._tree.enter(home), 4096)
            except FileNotFoundError:
                continue  # `features`, or unmounted just now
            if wanted in names:
                return [path, *(f"{home}/{name}" for name in sorted(names))]
        return [path]

    def _mapped(self, wanted: str) -> str | None:
        try:
            names = list_names(self._tree.enter(_BLOCK), 4096)
        except OSError:
            return None
        for name in sorted(name for name in names if name.startswith("dm-")):
            path = f"sys/devices/virtual/block/{name}/dm/name"
            try:
                data = self._tree.read(path, 256)
            except OSError:
                continue  # gone just now, or not of those that a recording keeps
            if data.decode("utf-8", "replace").strip() == wanted:
                self.hold_reason[path] = Kept(path, data)
                return f"{_BLOCK}/{name}"
        return None

    def _below(self, link: str, depth: int) -> set[Sbdf]:
        """Follow a block device down to functions; an empty set is a disk without any (an SD card)."""
        where = self._link(link)
        found = set(_functions_in(where))
        if not found and any(map(_REMOTE.fullmatch, where)):
            raise OSError(f"{link}: which function leads to it is not told")
        if found or where[:3] != _VIRTUAL or depth == 0:
            return found
        parts = self._parts(where)
        if not parts:
            raise OSError(f"{link}: what it is made of is not told")
        for part in parts:
            found |= self._below(part, depth - 1)
        return found

    def _parts(self, where: tuple[str, ...]) -> list[str]:
        if where[3:4] == ("block",):
            home, form = "/".join((*where[:5], "slaves")), re.compile(r"[A-Za-z0-9!_.-]{1,64}")
        elif where[3:4] == ("nvme-subsystem",):
            home, form = "/".join(where[:5]), _NVME
        else:
            return []
        names = list_names(self._tree.enter(home), _SLAVES)
        return [f"{home}/{name}" for name in sorted(names) if form.fullmatch(name)]

    def _link(self, path: str) -> tuple[str, ...]:
        """Read a link and give the place it names, from the root down, without going there."""
        directory, _, name = path.rpartition("/")
        opened = self._tree.enter(directory)
        names = self._tree.names
        target = read_link(opened, name, len(names))
        real = "/".join((*names, name))
        self.hold_reason.setdefault(real, Kept(real, target=target))
        where = list(names)
        for part in target.split("/"):
            if part == "..":
                where.pop()
            elif part not in {"", "."}:
                where.append(part)
        return tuple(where)


def _functions_in(where: tuple[str, ...]) -> list[Sbdf]:
    return [sbdf for part in where if (sbdf := sbdf_from_name(part)) is not None]
