"""Record a machine: the closed list of files beneath a root, copied so that the copy reads like the original.

Links stay links with the text they have in sysfs; one that names a place outside the tree is left out, as is
what cannot be read or vanishes meanwhile. The copy is built beside its place and renamed at the end: what is
there is whole.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Collection

import attrs

from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.files import Entry, Kind
from pcipt.host.roles import read_roles
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import Tree, read_file, read_link, reason
from pcipt.pci import Sbdf

README = """\
# A recorded machine

Recorded by `pcipt record`: PCI functions from sysfs, ACPI tables where they could be read, and a few facts
about Xen, the memory map, and which functions carry dom0's root file system and consoles. `pcipt list
--root DIR` reads it like the machine itself.

- What it is: (name the machine, its firmware, the versions of Linux and Xen)
- What it shows: (why it was recorded)
- What was masked: (nothing; serial numbers of devices may stand in their config space, capability 0003)
- Read without CAP_SYS_ADMIN, `config` ends after 64 bytes and `proc/iomem` shows zeros.
"""


@attrs.frozen
class Recorded:
    """What was recorded: functions, files and links, and what stayed out (path and why)."""

    functions: int
    files: int
    left_out: tuple[tuple[str, str], ...]


def record_machine(
    root: str, target: str, tell: Callable[[int, int], None] = lambda _done, _all: None
) -> Recorded:
    """Record the machine beneath `root` into the directory `target`, which is made or must be empty.

    `tell` hears before each function how many are recorded, and of how many.
    Raises: InputError where the target holds something or cannot be written, or the root is no machine.
    """
    target = os.path.abspath(target)
    _refuse_full(target)
    with SysfsReader(root) as reader:
        everything = reader.addresses()
    try:
        aside = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
    except OSError as error:
        raise InputError(os.path.dirname(target), reason(error)) from error
    try:
        recorder = _Recorder(root, aside)
        recorder.functions(everything, tell)
        recorder.machine()
        recorder.write("README.md", README.encode())
        os.chmod(aside, 0o755)  # noqa: S103 - as mkdir makes it; mkdtemp's are for the owner alone
        os.rename(aside, target)  # takes the place of an empty directory, and of nothing else
    except OSError as error:
        raise InputError(error.filename or target, reason(error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Recorded(recorder.recorded, recorder.written, tuple(recorder.left_out))


def _refuse_full(target: str) -> None:
    try:
        with os.scandir(target) as entries:
            if next(entries, None) is not None:
                raise InputError(target, "is not empty; a machine is recorded into a new directory")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(target, reason(error)) from error


class _Recorder:
    def __init__(self, root: str, target: str) -> None:
        self._root = root
        self._target = target
        self._groups: set[str] = set()
        self._homes: set[str] = set()
        self.recorded = 0
        self.written = 0
        self.left_out: list[tuple[str, str]] = []

    def functions(self, sbdfs: Collection[Sbdf], tell: Callable[[int, int], None]) -> None:
        os.makedirs(os.path.join(self._target, files.DEVICES))
        with SysfsReader(self._root) as reader:
            for number, sbdf in enumerate(sorted(sbdfs, key=lambda sbdf: reader.place(sbdf) or "")):
                tell(number, len(sbdfs))
                self._function(reader, sbdf)

    def machine(self) -> None:
        groups = [
            attrs.evolve(entry, name=f"{files.GROUPS}/{group}/{entry.name}")
            for group in sorted(self._groups)
            for entry in files.GROUP_FILES
        ]
        with Tree(self._root) as tree:
            for entry in (*files.MACHINE_FILES, *groups):
                try:
                    data = tree.read(entry.name, entry.limit)
                except OSError as error:
                    self._leave_out(entry.name, error)
                    continue
                self.write(entry.name, data)
        for kept in read_roles(self._root).kept:
            if kept.data is not None:
                self.write(kept.path, kept.data)
            elif kept.target is not None:
                os.makedirs(os.path.dirname(os.path.join(self._target, kept.path)), exist_ok=True)
                self._link(kept.path, kept.target)

    def write(self, path: str, data: bytes) -> None:
        place = os.path.join(self._target, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "xb") as out:
            out.write(data)
        self.written += 1

    def _function(self, reader: SysfsReader, sbdf: Sbdf) -> None:
        listed = f"{files.DEVICES}/{sbdf}"
        place = reader.place(sbdf)
        if place is None:
            return  # vanished meanwhile
        try:
            directory = reader.enter(sbdf)
        except OSError as error:
            self._leave_out(listed, error)
            if isinstance(error, FileNotFoundError) and not place.startswith(".."):
                self._link(listed, os.path.relpath(place, files.DEVICES))  # dangling there, dangling here
            return
        home = reader.names
        path = "/".join(home)
        if not home:
            self._leave_out(listed, OSError(errno.EXDEV, "leads to the root of the tree"))
            return
        self.recorded += 1
        if path not in self._homes:
            self._homes.add(path)
            os.makedirs(os.path.join(self._target, path), exist_ok=True)
            for entry in files.FUNCTION_FILES:
                self._file(directory, path, len(home), entry)
        if path != listed:
            self._link(listed, os.path.relpath(path, files.DEVICES))

    def _file(self, directory: int, home: str, level: int, entry: Entry) -> None:
        path = f"{home}/{entry.name}"
        data, target = b"", ""
        try:
            if entry.kind is Kind.LINK:
                target = read_link(directory, entry.name, level)
            else:
                data = read_file(directory, entry.name, entry.limit)
        except OSError as error:
            self._leave_out(path, error)
            return
        if entry.kind is not Kind.LINK:
            self.write(path, data)
            return
        self._link(path, target)
        group = target.rpartition("/")[2]
        if entry is files.IOMMU_GROUP and group.isascii() and group.isdigit():
            self._groups.add(group)

    def _link(self, path: str, target: str) -> None:
        place = os.path.join(self._target, path)
        os.symlink(target, place)
        self.written += 1

    def _leave_out(self, path: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self.left_out.append((path, reason(error)))
