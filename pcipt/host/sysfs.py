"""Read PCI functions from sysfs, live or recorded: from `sys/bus/pci/devices` below a root.

This module interprets nothing. A file that is missing, malformed or of the wrong kind, and a device that
vanishes during reading, gives a finding on that function, never an exception. Only a root without
`sys/bus/pci/devices` is an error. A function's bridge or root bus is taken from the names of the directories
above it.

Source: linux Documentation/ABI/testing/sysfs-bus-pci; drivers/pci/probe.c (names of root buses).
"""

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.hints import Self
from pcipt.host import files
from pcipt.host.files import Contents, Depth, Entry
from pcipt.host.function.contents import NOTHING
from pcipt.host.function.raw_function import FunctionFiles, files_of, sbdf_from_name
from pcipt.host.tree import Tree, link_text, list_names, reason, text_of
from pcipt.pci import Finding, RawFunction, Sbdf

# The directory of a root bus, also of a segment of its own (VMD): pci0000:00, pci10000:e0.
_ROOT_BUS = re.compile(r"pci[0-9a-f]{4,8}:([0-9a-f]{2})")

# From so many functions on, a call for all files of a function is faster than loading what makes the call.
AT_ONCE_FROM = 32

_UNREACHABLE = {
    errno.ENOENT: ("link-dangling", "leads to a directory that does not exist"),
    errno.EXDEV: ("link-outside", "leads out of the tree"),
    errno.ELOOP: ("link-loop", "leads back to itself"),
}


def read_machine(
    root: str = "/", depth: Depth = Depth.FULL, wanted: Callable[[Sbdf], bool] | None = None
) -> list[RawFunction]:
    """Read all functions, or only the functions for which `wanted` returns True.

    A function that cannot be read is in the result with a finding.
    Shape:  in the order of their directory paths. With `wanted`, the wanted functions come first; the bridges
            above them and their physical functions, which decoding needs, follow. If the tree does not show
            which bridges these are, the result contains all functions.
    Raises: InputError if `sys/bus/pci/devices` is missing, cannot be listed or has too many entries.
    """
    with SysfsReader(root) as reader:
        everything = reader.addresses()
        if wanted is None:
            return reader.read(everything, depth)
        return _read_with_related(reader, everything, depth, wanted)


def read_function(root: str, sbdf: Sbdf, depth: Depth = Depth.FULL) -> RawFunction | None:
    """Read one function. Return None if Linux does not list it (any more).

    If its directory cannot be opened, the result has only its address and a finding.
    Raises: InputError if `sys/bus/pci/devices` is missing.
    """
    with SysfsReader(root) as reader:
        return next(iter(reader.read([sbdf], depth)), None)


def read_addresses(root: str = "/") -> list[Sbdf]:
    """Return the addresses of all functions, sorted by address. No file of a function is read.

    Raises: InputError if `sys/bus/pci/devices` is missing, cannot be listed or has too many entries.
    """
    with SysfsReader(root) as reader:
        return reader.addresses()


def _read_with_related(
    reader: "SysfsReader", everything: list[Sbdf], depth: Depth, wanted: Callable[[Sbdf], bool]
) -> list[RawFunction]:
    """Read the functions for which `wanted` returns True, their bridges and their physical functions.

    The bridges are all those above a function that is read. If a function that is read has neither a bridge
    nor a root bus in its path, read `everything` instead.
    """
    found: dict[Sbdf, RawFunction] = {}
    missing = [sbdf for sbdf in everything if wanted(sbdf)]
    while missing:
        read = reader.read(missing, depth)
        found.update((raw.sbdf, raw) for raw in read)
        if any(raw.parent is None and raw.root_bus is None for raw in read):
            return reader.read(everything, depth)
        related = {sbdf for raw in read for sbdf in (raw.parent, raw.physfn) if sbdf is not None}
        missing = [sbdf for sbdf in related if sbdf not in found]
    return list(found.values())


class SysfsReader:
    """An open sysfs below a root, for reading functions. It is a context manager.

    `limit` is the highest number of entries in `sys/bus/pci/devices` that `addresses` accepts.
    Raises: InputError if the root cannot be opened or `sys/bus/pci/devices` is missing.
    """

    def __init__(self, root: str = "/", limit: int = files.MAX_FUNCTIONS) -> None:
        self._limit = limit
        self.is_live = root == "/"  # the numbers of its directories mean something
        self._path = os.path.join(root, files.DEVICES)
        self._tree = Tree(root)
        try:
            self._listing = os.dup(self._tree.enter(files.DEVICES))
        except OSError as error:
            self._tree.close()
            raise InputError(self._path, reason(error)) from error
        self._base = self._tree.names

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._listing)
        self._tree.close()

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions, sorted by address.

        Names that are not addresses are ignored.
        Raises: InputError if the directory cannot be listed or has more entries than `limit`.
        """
        try:
            names = list_names(self._listing, self._limit)
        except OSError as error:
            raise InputError(self._path, reason(error)) from error
        names.sort(key=lambda name: (len(name), name))
        return [sbdf for name in names if (sbdf := sbdf_from_name(name)) is not None]

    def place(self, sbdf: Sbdf) -> str | None:
        """Return the path of a function's directory below the root, or None if Linux does not list the
        function.

        The path is computed from the text of the link in `sys/bus/pci/devices`. If there is a directory in
        place of the link, its own path is returned. Neither the directory nor links on the way are looked at.
        A path that begins with `..` leads outside the tree; `Tree.enter` refuses it.
        """
        name = str(sbdf)
        try:
            target = link_text(name, self._listing)
        except FileNotFoundError:
            return None
        except OSError:
            return "/".join((*self._base, name))  # not a link: this is the directory itself
        return _joined(self._base, target)

    def enter(self, sbdf: Sbdf) -> int:
        """Open a function's directory and return its descriptor.

        The descriptor is valid until the next call of `enter` or `read`; the caller must not close it.
        Raises: FileNotFoundError if Linux does not list the function or its directory is missing; another
                OSError if the directory cannot be opened.
        """
        place = self.place(sbdf)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, "no such function", str(sbdf))
        return self._tree.enter(place)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the path of the directory that was entered last, as names from the root down.

        Links are resolved.
        """
        return self._tree.names

    def read(self, sbdfs: Iterable[Sbdf], depth: Depth) -> list[RawFunction]:
        """Read functions. A function that Linux does not list (any more) is left out. Raises nothing.

        If the directory of a function cannot be opened, the function has only its address and a finding.
        Shape:  in the order of their directory paths, so that few directories must be opened.
        """
        places = [(place, sbdf) for sbdf in sbdfs if (place := self.place(sbdf)) is not None]
        places.sort(key=lambda pair: pair[0])
        contents = reader_of(files_of(depth), len(places))
        found: list[RawFunction] = []
        homes: dict[Sbdf, tuple[str, ...]] = {}
        for place, sbdf in places:
            try:
                directory = self._tree.enter(place)
            except OSError as error:
                if self.place(sbdf) is not None:  # otherwise the function was removed meanwhile
                    found.append(_unreachable(sbdf, error))
                continue
            homes[sbdf] = names = self._tree.names
            instance = instance_of(directory) if self.is_live else None
            found.append(_read_in(directory, names, sbdf, depth, contents(directory), instance))
        return [_check_bridge_directory(raw, homes) for raw in found]


def reader_of(wanted: Sequence[tuple[Entry, int | None]], functions: int) -> Callable[[int], Contents]:
    """Return what reads the files `wanted` of an open directory, as `FunctionFiles` takes them.

    They are those of `FilesAtOnce`. For few functions nothing is read: files are read one by one then.
    """
    if functions < AT_ONCE_FROM:
        return lambda _directory: NOTHING
    from pcipt.host.function.at_once import FilesAtOnce  # it loads cffi, which takes longer than a few files

    return FilesAtOnce(wanted).read


def _read_in(
    directory: int,
    names: tuple[str, ...],
    sbdf: Sbdf,
    depth: Depth,
    contents: Contents,
    instance: int | None,
) -> RawFunction:
    """Read the function `sbdf` in the open `directory`, whose path from the root is `names`; `contents` as in
    `FunctionFiles`, `instance` the number of the directory.

    The last but one name gives its bridge or its root bus. If the bridge is in another segment, the function
    has neither a bridge nor a root bus. The name above a root bus can be that of a function in another
    segment (VMD), which is its `controller`. If the last name is not the address `sbdf`, the function gets a
    finding.
    """
    reading = FunctionFiles(directory, len(names), contents)
    above = names[-2] if len(names) > 1 else ""
    parent = sbdf_from_name(above)
    root = _ROOT_BUS.fullmatch(above) if parent is None else None
    if parent is not None and parent.segment != sbdf.segment:
        parent = None
    if not names or names[-1] != str(sbdf):
        elsewhere = text_of("/".join(names))
        reading.find("link-mismatch", f"its entry leads to /{elsewhere}, which is not its own directory")
    raw = reading.read(sbdf, depth, parent, int(root[1], 16) if root is not None else None, instance)
    controller = sbdf_from_name(names[-3]) if root is not None and len(names) > 2 else None
    return raw if controller is None else attrs.evolve(raw, controller=controller)


def instance_of(directory: int) -> int:
    """Return the number of an open directory of sysfs. No other directory of this boot has had it.

    Source: linux fs/kernfs/dir.c (__kernfs_new_node: numbers are given in order and are used again only after
            2**31 others, then with another upper half), fs/kernfs/inode.c (kernfs_get_inode).
    """
    return os.fstat(directory).st_ino


def _unreachable(sbdf: Sbdf, error: OSError) -> RawFunction:
    """Return a function that has only its address and a finding.

    The finding says why its directory could not be opened.
    """
    code, what = _UNREACHABLE.get(error.errno or 0, ("link-broken", f"cannot be followed ({reason(error)})"))
    why = f"its entry in {files.DEVICES} {what}: pcipt knows nothing about the device, which may have left"
    return RawFunction(sbdf, findings=(Finding(code, why),))


def _check_bridge_directory(raw: RawFunction, homes: dict[Sbdf, tuple[str, ...]]) -> RawFunction:
    """Return `raw`, with a finding if its directory is not directly below the directory of its parent bridge.

    `homes` maps each function that was read to its directory, a tuple of names from the root down. There is
    no finding if `raw` has no parent bridge, or if `homes` does not have the bridge.
    """
    above = homes.get(raw.parent) if raw.parent is not None else None
    if above is None or above == homes[raw.sbdf][:-1]:
        return raw
    why = (
        f"it lies below /{text_of('/'.join(homes[raw.sbdf][:-1]))}, but the bridge {raw.parent} "
        f"lies at /{text_of('/'.join(above))}: one address has two directories; rescan that bus"
    )
    return attrs.evolve(raw, findings=(*raw.findings, Finding("two-places", why)))


def _joined(base: tuple[str, ...], target: str) -> str:
    """Return the path below the root to which a link leads.

    `target` is the text of the link, `base` the directory (without links) where the link stands. A path that
    begins with `..` leads outside the tree.
    """
    if target.startswith("/"):
        return ".." + target
    level = len(base)
    while target.startswith("../"):
        target = target[3:].lstrip("/")
        level -= 1
    if level < 0:
        return "../" + target
    return "/".join((*base[:level], target))
