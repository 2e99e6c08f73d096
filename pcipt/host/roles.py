"""Find the functions that dom0 itself needs for its root file system and its consoles.

Only the text of links is used, never a device: the path of a disk or port names every function above it. A
device of device mapper, md or an NVMe subsystem is replaced by the devices that it consists of, a btrfs by
all its disks. All files and links that were read are returned too, so that a recording has exactly these.
Source: linux Documentation/filesystems/proc.rst §3.5 (mountinfo); Documentation/ABI/testing/sysfs-tty;
        fs/btrfs/sysfs.c, btrfs_sysfs_add_device.
"""

import re

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host.files import CONSOLES, MOUNTS
from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.host.tree import Tree, list_names, read_link
from pcipt.pci import Sbdf

_NUMBERS, _BLOCK, _TTY = "sys/dev/block", "sys/class/block", "sys/class/tty"
_BTRFS = "sys/fs/btrfs"
_VIRTUAL = ("sys", "devices", "virtual")
_REMOTE = r"session[0-9]{1,10}|rbd"  # iSCSI in software, Ceph: an unknown network card carries the disk
_SLAVES = 64  # the most members of one device
_DEPTH = 8
_SLAVE, _NVME = r"[A-Za-z0-9!_.-]{1,64}", r"nvme[0-9]{1,6}"
_PORT = r"[A-Za-z]{1,16}[0-9]{1,6}"
_NODE = r"/dev/([A-Za-z0-9!_.-]{1,64})"


@attrs.frozen
class Kept:
    """A file (`data`) or a link (`target`) that was read. `path` is its path below the root.

    Of mountinfo, `data` holds only the line of `/`. Its last field, the options of the file system, is left
    out because it may contain a password.
    """

    path: str
    data: bytes | None = None
    target: str | None = None


@attrs.frozen
class Roles:
    """The functions that dom0 needs. None means unknown; an empty set means that there are none.

    `root`: functions that carry the root file system. `serial`: functions of consoles on serial ports.
    `screen`: True if a virtual terminal (tty0, tty1, …) is a console, False if none is. `kept`: the files and
    links that were read.
    """

    root: frozenset[Sbdf] | None
    serial: frozenset[Sbdf] | None
    screen: bool | None
    kept: tuple[Kept, ...] = ()


def read_roles(root: str = "/") -> Roles:
    """Find the functions below `root` that dom0 needs. Raises nothing.

    If something cannot be read, its value is None. If `root` cannot be opened, all values are None.
    """
    try:
        with Tree(root) as tree:
            reader = RoleReader(tree)
            carriers = reader.root_functions()
            serial, screen = reader.consoles()
            return Roles(carriers, serial, screen, tuple(reader.kept_files.values()))
    except InputError:
        return Roles(None, None, None)


class RoleReader:
    """Reads the roles from one tree (`tree`). `kept_files` collects the files and links that were read, by
    path.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.kept_files: dict[str, Kept] = {}

    def root_functions(self) -> frozenset[Sbdf] | None:
        """Return the functions that carry the root file system, or None if they cannot be found.

        The set is empty if no PCI function carries its disk (an SD card). If several file systems are mounted
        at `/`, the last one is used.
        """
        try:
            lines = self.tree.read(MOUNTS, 1 << 20).splitlines()
        except OSError:
            return None
        mounts = [line for line in lines if line.split()[4:5] == [b"/"]]
        if not mounts:
            return None
        before, _, after = mounts[-1].partition(b" - ")
        kind_and_source = after.split()[:2]  # the options after these two may contain a password
        self.kept_files[MOUNTS] = Kept(MOUNTS, b" ".join((before, b"-", *kind_and_source)) + b"\n")
        fields = before.decode("utf-8", "replace").split()
        source = [each.decode("utf-8", "replace") for each in kind_and_source[1:]]
        try:
            if not fields[2].startswith("0:"):
                paths = [f"{_NUMBERS}/{fields[2]}"]
            else:
                path = self.device_of_node(*source)
                paths = self.members(path) if path is not None else []
            found = [self.functions_below(path, _DEPTH) for path in paths]
        except OSError:
            return None
        return frozenset().union(*found) if found else None

    def consoles(self) -> tuple[frozenset[Sbdf] | None, bool | None]:
        """Return the functions of serial consoles, and whether a virtual terminal is a console (True or
        False).

        The bridges above these functions are returned too. Both results are None if the list of consoles
        cannot be read. A console that belongs to no device, such as Xen's hvc0, is left out.
        """
        try:
            data = self.tree.read(CONSOLES, 4096)
        except OSError:
            return None, None
        self.kept_files[CONSOLES] = Kept(CONSOLES, data)
        names = data.decode("ascii", "replace").split()
        found: set[Sbdf] = set()
        for name in (each for each in names if re.fullmatch(_PORT, each)):
            try:
                found.update(functions_in(self.follow_link(f"{_TTY}/{name}")))
            except OSError:
                continue  # Xen's hvc0, for example, has no device
        return frozenset(found), any(re.fullmatch(r"tty[0-9]+", name) for name in names)

    def device_of_node(self, source: str = "") -> str | None:
        """Return the path below the root of the block device whose node in /dev is `source`.

        `source` is the source of a file system in mountinfo. Return None if it is not such a node, or if it
        is in /dev/mapper and no mapped device has its name. Other nodes are not checked for existence. This
        method is for a file system whose device number in mountinfo is not that of a block device (btrfs).
        """
        if source.startswith("/dev/mapper/"):
            return self._mapper_device(source.removeprefix("/dev/mapper/"))
        matched = re.fullmatch(_NODE, source)
        return f"{_BLOCK}/{matched[1]}" if matched is not None else None

    def members(self, path: str) -> list[str]:
        """Return the paths of all devices of the btrfs to which the block device `path` belongs.

        The first path is `path` itself. mountinfo names only one of the devices. If no btrfs has the device,
        return only `path`.
        Raises: OSError if the devices of a btrfs cannot be listed.
        """
        wanted = path.rpartition("/")[2]
        try:
            systems = list_names(self.tree.enter(_BTRFS), 4096)
        except OSError:
            return [path]
        for system in sorted(systems):
            home = f"{_BTRFS}/{system}/devices"
            try:
                names = list_names(self.tree.enter(home), 4096)
            except FileNotFoundError:
                continue  # the directory `features`, or a btrfs that was unmounted meanwhile
            if wanted in names:
                return [path, *(f"{home}/{name}" for name in sorted(names))]
        return [path]

    def _mapper_device(self, wanted: str) -> str | None:
        """Return the path below the root of the device-mapper device with the name `wanted`.

        Return None if no device has this name or the devices cannot be listed.
        """
        try:
            names = list_names(self.tree.enter(_BLOCK), 4096)
        except OSError:
            return None
        for name in sorted(name for name in names if name.startswith("dm-")):
            path = f"sys/devices/virtual/block/{name}/dm/name"
            try:
                data = self.tree.read(path, 256)
            except OSError:
                continue  # removed meanwhile, or not in the recording
            if data.decode("utf-8", "replace").strip() == wanted:
                self.kept_files[path] = Kept(path, data)
                return f"{_BLOCK}/{name}"
        return None

    def functions_below(self, link: str, depth: int) -> set[Sbdf]:
        """Return the functions that carry a block device: all functions in its path, bridges too.

        `link` is the path of a link to the device. If the device is virtual, return the functions of the
        devices that it consists of. At most `depth` levels of virtual devices are followed. An empty set
        means that no PCI function carries the disk (an SD card), or that `depth` was not enough.
        Raises: OSError if it cannot be found which function carries the disk, for example for iSCSI.
        """
        where = self.follow_link(link)
        found = set(functions_in(where))
        if not found and any(re.fullmatch(_REMOTE, each) for each in where):
            raise OSError(f"{link}: sysfs does not show which function it is on")
        if found or where[:3] != _VIRTUAL or depth == 0:
            return found
        parts = self._parts(where)
        if not parts:
            raise OSError(f"{link}: sysfs does not show which devices it consists of")
        for part in parts:
            found |= self.functions_below(part, depth - 1)
        return found

    def _parts(self, where: tuple[str, ...]) -> list[str]:
        """Return the paths of the devices that a virtual device consists of, sorted.

        `where` is the path of the virtual device, as names. The list is empty if the device has no members,
        or if it is neither a block device nor an NVMe subsystem.
        Raises: OSError if the directory with the members cannot be listed.
        """
        if where[3:4] == ("block",):
            home, form = "/".join((*where[:5], "slaves")), _SLAVE
        elif where[3:4] == ("nvme-subsystem",):
            home, form = "/".join(where[:5]), _NVME
        else:
            return []
        names = list_names(self.tree.enter(home), _SLAVES)
        return [f"{home}/{name}" for name in sorted(names) if re.fullmatch(form, name)]

    def follow_link(self, path: str) -> tuple[str, ...]:
        """Read a link and return the path of its target below the root, as names.

        The target is not opened.
        Raises: OSError if it is not a link, cannot be read, or leads outside the root.
        """
        directory, _, name = path.rpartition("/")
        opened = self.tree.enter(directory)
        names = self.tree.names
        target = read_link(opened, name, len(names))
        real = "/".join((*names, name))
        self.kept_files.setdefault(real, Kept(real, target=target))
        where = list(names)
        for part in target.split("/"):
            if part == "..":
                where.pop()
            elif part not in {"", "."}:
                where.append(part)
        return tuple(where)


def functions_in(where: tuple[str, ...]) -> list[Sbdf]:
    """Return the addresses among the names of a path, from the root bus downward."""
    return [sbdf for part in where if (sbdf := sbdf_from_name(part)) is not None]
