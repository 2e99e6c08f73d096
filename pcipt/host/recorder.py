"""Record a machine: copy the closed list of files, so that pcipt reads the copy like the original.

A link stays a link with the same text. A link that leads outside the tree, and a file that cannot be read or
vanishes meanwhile, is left out. The copy is built in a temporary directory and renamed at the end, so a copy
in its final place is always complete. What identifies the machine or its users is masked on the way
(report/masks.py).
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.files import Entry, Kind
from pcipt.host.policy.places import host_bridge_files
from pcipt.host.report.masks import KINDS, Masks
from pcipt.host.roles import read_roles
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import Tree, list_names, read_file, read_link, reason
from pcipt.host.uses import read_uses
from pcipt.pci import Sbdf

NO_ANSWERS: Mapping[str, bytes] = {}
README = """\
# A recorded machine

Recorded by `pcipt record`: PCI functions from sysfs, ACPI tables where they could be read, and a few facts
about Xen (xen/: what xl told), the memory map, and which functions carry dom0's disks, mounts, network
interfaces, default route and consoles. `pcipt list --root DIR` reads it like the machine itself.

- What it is: (name the machine, its firmware, the versions of Linux and Xen)
- What it shows: (why it was recorded)
- What was masked: {masked}
- Read without CAP_SYS_ADMIN, `config` ends after 64 bytes and `proc/iomem` shows zeros.
"""


@attrs.frozen
class Recorded:
    """The result of recording: the number of functions, the number of files and links, and omissions.

    `left_out` has (path, reason) for each file or link that exists and could not be recorded. Files that do
    not exist are not listed.
    """

    functions: int
    files: int
    left_out: tuple[tuple[str, str], ...]


def record_machine(
    root: str,
    target: str,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
    answers: Mapping[str, bytes] = NO_ANSWERS,
    masks: Masks | None = None,
) -> Recorded:
    """Record the machine below `root` into the directory `target`, which must be empty or not exist.

    `tell(done, all)` is called before each function: `done` is the number of functions before it, `all` the
    number of all functions. A file that cannot be read is left out and named in the result. `answers` are the
    contents of files that the machine itself does not have (`files.XEN_INFO`), by path. With `masks` the
    secrets that it knows are masked in files, links and names. After an error `target` is as it was before.
    Raises: InputError if `target` is not empty or cannot be written, or if `root` has no sys/bus/pci/devices.
    """
    target = os.path.abspath(target)
    _require_empty(target)
    with SysfsReader(root) as reader:
        everything = reader.addresses()
    try:
        aside = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
    except OSError as error:
        raise InputError(os.path.dirname(target), reason(error)) from error
    try:
        masks = masks or Masks(keep=[kind.name for kind in KINDS])
        recorder = _Recorder(root, aside, masks)
        recorder.functions(everything, tell)
        recorder.machine(answers)
        masked = ", ".join(f"{row.kind.name} ({row.values})" for row in masks.table() if not row.kept)
        recorder.write("README.md", README.format(masked=masked or "nothing").encode())
        os.chmod(aside, 0o755)  # noqa: S103 - the usual mode of a directory; mkdtemp allows the owner only
        os.rename(aside, target)  # replaces an empty directory; anything else is an error
    except OSError as error:
        raise InputError(error.filename or target, reason(error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Recorded(recorder.recorded, recorder.written, tuple(recorder.left_out))


def _require_empty(target: str) -> None:
    """Raise InputError if the directory exists and is not empty, or cannot be listed.

    A missing directory is accepted.
    """
    try:
        with os.scandir(target) as entries:
            if next(entries, None) is not None:
                raise InputError(target, "is not empty; a machine is recorded into a new directory")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(target, reason(error)) from error


class _Recorder:
    """Copies the files of the machine below `root` to the directory `target`, masked by `masks`.

    It counts functions (`recorded`), files and links (`written`), and lists what was left out (`left_out`).
    """

    def __init__(self, root: str, target: str, masks: Masks) -> None:
        self._root = root
        self._masks = masks
        self._target = target
        self._groups: set[str] = set()
        self._homes: set[str] = set()
        self.recorded = 0
        self.written = 0
        self.left_out: list[tuple[str, str]] = []

    def functions(self, sbdfs: Collection[Sbdf], tell: Callable[[int, int], None]) -> None:
        """Record the files of all functions, in the order of their directory paths.

        `tell(done, all)` is called before each function: `done` is the number of functions before it, `all`
        the number of all functions.
        Raises: InputError if the root has no sys/bus/pci/devices; OSError if the copy cannot be written.
        """
        os.makedirs(os.path.join(self._target, files.DEVICES))
        with SysfsReader(self._root) as reader:
            for number, sbdf in enumerate(sorted(sbdfs, key=lambda sbdf: reader.place(sbdf) or "")):
                tell(number, len(sbdfs))
                self._function(reader, sbdf)

    def machine(self, answers: Mapping[str, bytes]) -> None:
        """Record the files of the machine, of IOMMU groups, slots and host bridges, the files that
        `read_roles` and `read_uses` read, and those in `answers`.

        Links that these follow are recorded as links. Call it after `functions`, which finds the
        groups.
        Raises: OSError if the copy cannot be written.
        """
        groups = [
            attrs.evolve(entry, name=f"{files.GROUPS}/{group}/{entry.name}")
            for group in sorted(self._groups)
            for entry in files.GROUP_FILES
        ]
        with Tree(self._root) as tree:
            for entry in (*files.MACHINE_FILES, *groups, *self._slots(tree), *host_bridge_files(tree)):
                try:
                    told = answers.get(entry.name)
                    data = tree.read(entry.name, entry.limit) if told is None else told[: entry.limit]
                except OSError as error:
                    self._leave_out(entry.name, error)
                    continue
                self.write(entry.name, data)
        roles = {kept.path: kept for kept in read_roles(self._root).kept}
        uses = {kept.path: kept for kept in read_uses(self._root).kept}
        for kept in (roles | uses).values():
            if kept.data is not None:
                self.write(kept.path, kept.data)
            elif kept.target is not None:
                self._link(kept.path, kept.target)

    @staticmethod
    def _slots(tree: Tree) -> list[Entry]:
        """Return the files of the physical slots; none if there are no slots."""
        try:
            names = list_names(tree.enter(files.SLOTS), files.MAX_SLOTS)
        except OSError:
            return []
        address = files.SLOT_ADDRESS
        return [attrs.evolve(address, name=f"{files.SLOTS}/{name}/{address.name}") for name in sorted(names)]

    def write(self, path: str, data: bytes) -> None:
        """Write one file of the copy. Raises: OSError if that fails, FileExistsError if the file exists."""
        with open(self._place(path), "xb") as out:
            out.write(self._masks.file(path, data))
        self.written += 1

    def _function(self, reader: SysfsReader, sbdf: Sbdf) -> None:
        """Record the files of one function, and its entry in sys/bus/pci/devices.

        A function that Linux does not list any more is skipped. If the directory of the function is missing,
        only the link to it is recorded. If the directory cannot be opened for another reason, the entry is
        added to `left_out`.
        """
        listed = f"{files.DEVICES}/{sbdf}"
        place = reader.place(sbdf)
        if place is None:
            return  # removed meanwhile
        try:
            directory = reader.enter(sbdf)
        except OSError as error:
            self._leave_out(listed, error)
            if isinstance(error, FileNotFoundError) and not place.startswith(".."):
                self._link(listed, os.path.relpath(place, files.DEVICES))  # a dangling link stays one
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
        """Record one file or link of the directory `home` of a function.

        `directory` is the open directory, `level` the number of directories between the root and it. The
        number in the link `iommu_group` is kept for `machine`. A file that cannot be read is added to
        `left_out`.
        """
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
        """Create one link of the copy, with the text `target`. Raises: OSError if that fails."""
        os.symlink(self._masks.name(target), self._place(path))
        self.written += 1

    def _place(self, path: str) -> str:
        """Return where a file or link of the copy belongs; its directory is made."""
        place = os.path.join(self._target, self._masks.name(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place

    def _leave_out(self, path: str, error: OSError) -> None:
        """Add `path` and the reason to `left_out`, unless the error is that the file does not exist."""
        if not isinstance(error, FileNotFoundError):
            self.left_out.append((path, reason(error)))
