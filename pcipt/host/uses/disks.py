"""Find which functions carry dom0's disks, file systems and swap."""

import re
from collections.abc import Iterable
from contextlib import suppress

from pcipt.host.files import MOUNTS
from pcipt.host.roles import Kept, RoleReader, functions_in
from pcipt.host.tree import list_names
from pcipt.pci import Sbdf
from pcipt.pci.raw import Use, UseKind

BLOCK, NUMBERS, SWAPS = "sys/class/block", "sys/dev/block", "proc/swaps"
_DEPTH = 8
_LIMIT = 4096
_ESCAPE = r"\\([0-7]{3})"
Found = list[tuple[Sbdf, Use]]


def read_disks(reader: RoleReader) -> Found | None:
    """Return the uses of disks, mounts and swap, each with its function.

    None is returned if neither disks nor mounts can be listed.

    A bridge above a disk's function has the use too. File systems without a disk (tmpfs, NFS) have none, and
    neither have those whose disk cannot be followed to a function.
    """
    try:
        names: list[str] | None = sorted(list_names(reader.tree.enter(BLOCK), _LIMIT))
    except OSError:
        names = None
    mounts = _mounts(reader)
    if names is None and mounts is None:
        return None
    return [*_disks(reader, names or []), *(mounts or ()), *_swaps(reader)]


def _disks(reader: RoleReader, names: list[str]) -> Found:
    """Return the whole disks that lie below a function. Partitions and virtual devices are left out."""
    found: Found = []
    for name in names:
        try:
            where = reader.follow_link(f"{BLOCK}/{name}")
        except OSError:
            continue  # unplugged meanwhile
        if where[-2:-1] and where[-2] in names:
            continue  # a partition: its directory lies in that of its disk
        functions: Iterable[Sbdf] = functions_in(where)
        if "nvme-subsystem" in where:  # an NVMe disk with several controllers
            with suppress(OSError):
                functions = sorted(reader.functions_below(f"{BLOCK}/{name}", _DEPTH))
        found += [(sbdf, Use(UseKind.DISK, name)) for sbdf in functions]
    return found


def _mounts(reader: RoleReader) -> Found | None:
    """Return the mounts whose file system is on a disk below a function; None if mounts cannot be listed.

    Only the lines of these mounts are kept, without the options of the file system: they may have passwords.
    """
    try:
        lines = reader.tree.read(MOUNTS, 1 << 20).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    found: Found = []
    kept: list[str] = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) < 5 or len(source) < 2:
            continue
        functions = _carriers(reader, fields[2], source[1])
        device = source[1].removeprefix("/dev/")
        where = re.sub(_ESCAPE, lambda octal: chr(int(octal[1], 8)), fields[4])
        found += [(sbdf, Use(UseKind.MOUNT, where, device)) for sbdf in sorted(functions)]
        if functions or fields[4] == "/":
            kept.append(f"{before} - {source[0]} {source[1]}\n")
    reader.kept_files[MOUNTS] = Kept(MOUNTS, "".join(kept).encode("utf-8", "surrogateescape"))
    return found


def _carriers(reader: RoleReader, number: str, source: str) -> set[Sbdf]:
    """Return the functions that carry the file system on the block device `number` ("major:minor").

    `source` is the source of the mount, used where the number is not that of a block device (btrfs). The set
    is empty if there is no such device or it cannot be followed.
    """
    try:
        if not number.startswith("0:"):
            return reader.functions_below(f"{NUMBERS}/{number}", _DEPTH)
        path = reader.device_of_node(source)
        paths = reader.members(path) if path is not None else []
        return {sbdf for each in paths for sbdf in reader.functions_below(each, _DEPTH)}
    except OSError:
        return set()


def _swaps(reader: RoleReader) -> Found:
    """Return the block devices that dom0 swaps to. Swap files are left out: their file system is mounted."""
    try:
        data = reader.tree.read(SWAPS, 1 << 16)
    except OSError:
        return []
    reader.kept_files[SWAPS] = Kept(SWAPS, data)
    found: Found = []
    for line in data.decode("utf-8", "replace").splitlines()[1:]:
        device = line.split()[0] if line.split()[1:2] == ["partition"] else ""
        path = reader.device_of_node(device)
        if path is not None:
            with suppress(OSError):
                functions = reader.functions_below(path, _DEPTH)
                name = device.removeprefix("/dev/")
                found += [(sbdf, Use(UseKind.SWAP, name)) for sbdf in sorted(functions)]
    return found
