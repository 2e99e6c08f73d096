"""Read PCI functions out of sysfs, live or recorded: `sys/bus/pci/devices` beneath a root.

Nothing is interpreted here, and nothing that a tree holds raises: what is missing, garbled or of the wrong
kind, and a device that vanishes while it is read, become findings on that function. Only a root without
`sys/bus/pci/devices` is an error. The names of the directories above a function tell its bridge or root bus.

Source: linux Documentation/ABI/testing/sysfs-bus-pci; drivers/pci/probe.c (names of root buses).
"""

import errno
import os
import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import attrs

from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.files import Depth
from pcipt.host.function_files import FunctionFiles, sbdf_from_name
from pcipt.host.tree import Tree, list_names, reason, text_of
from pcipt.pci import Finding, RawFunction, Sbdf

# Below an own segment, as VMD has it, or below anything that is no PCI: pci10000:e0, pci0000:00.
_ROOT_BUS = re.compile(r"pci[0-9a-f]{4,8}:([0-9a-f]{2})")

_UNREACHABLE = {
    errno.ENOENT: ("link-dangling", "leads to a directory that is not there"),
    errno.EXDEV: ("link-outside", "leads out of the tree"),
    errno.ELOOP: ("link-loop", "goes round in circles"),
}


def read_machine(
    root: str = "/", depth: Depth = Depth.FULL, wanted: Callable[[Sbdf], bool] | None = None
) -> list[RawFunction]:
    """Read all functions, or those `wanted` and what is needed to decode them.

    Shape:  with `wanted`, also the bridges above and the physical functions; all of them where the tree does
            not tell which bridges those are.
    Raises: InputError where `sys/bus/pci/devices` is not there or holds too much.
    """
    with SysfsReader(root) as reader:
        everything = reader.addresses()
        if wanted is None:
            return reader.read(everything, depth)
        return _with_lineage(reader, everything, depth, wanted)


def read_function(root: str, sbdf: Sbdf, depth: Depth = Depth.FULL) -> RawFunction | None:
    """Read one function; None where it is not listed (any more)."""
    with SysfsReader(root) as reader:
        return next(iter(reader.read([sbdf], depth)), None)


def read_addresses(root: str = "/") -> list[Sbdf]:
    """List the functions in address order without touching any of them."""
    with SysfsReader(root) as reader:
        return reader.addresses()


def _with_lineage(
    reader: "SysfsReader", everything: list[Sbdf], depth: Depth, wanted: Callable[[Sbdf], bool]
) -> list[RawFunction]:
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
    """A machine's sysfs, opened beneath a root; a context manager."""

    def __init__(self, root: str = "/", limit: int = files.MAX_FUNCTIONS) -> None:
        self._limit = limit
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
        """List the functions in address order; a name that is no address is no function."""
        try:
            names = list_names(self._listing, self._limit)
        except OSError as error:
            raise InputError(self._path, reason(error)) from error
        names.sort(key=lambda name: (len(name), name))
        return [sbdf for name in names if (sbdf := sbdf_from_name(name)) is not None]

    def place(self, sbdf: Sbdf) -> str | None:
        """Tell a function's directory as a path from the root; None where it is not listed.

        A path that begins with `..` leads out of the tree; `Tree.enter` refuses it.
        """
        name = str(sbdf)
        try:
            target = os.readlink(name, dir_fd=self._listing)
        except FileNotFoundError:
            return None
        except OSError:
            return "/".join((*self._base, name))  # a tree without links: the directory stands right here
        return _joined(self._base, target)

    def enter(self, sbdf: Sbdf) -> int:
        """Go to a function's directory and give its descriptor, valid until the next call.

        Raises: OSError; FileNotFoundError also where it is not listed.
        """
        place = self.place(sbdf)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, "no such function", str(sbdf))
        return self._tree.enter(place)

    @property
    def names(self) -> tuple[str, ...]:
        """The real directories down to the function entered last."""
        return self._tree.names

    def read(self, sbdfs: Iterable[Sbdf], depth: Depth) -> list[RawFunction]:
        """Read functions; one that is not listed (any more) is left out.

        Shape:  in the order of their directories, which is the way of the fewest steps.
        """
        places = [(place, sbdf) for sbdf in sbdfs if (place := self.place(sbdf)) is not None]
        places.sort(key=lambda pair: pair[0])
        found: list[RawFunction] = []
        homes: dict[Sbdf, tuple[str, ...]] = {}
        for place, sbdf in places:
            try:
                directory = self._tree.enter(place)
            except OSError as error:
                if self.place(sbdf) is not None:  # else it vanished just now
                    found.append(_unreachable(sbdf, error))
                continue
            homes[sbdf] = names = self._tree.names
            found.append(_read_in(directory, names, sbdf, depth))
        return [_at_home(raw, homes) for raw in found]


def _read_in(directory: int, names: tuple[str, ...], sbdf: Sbdf, depth: Depth) -> RawFunction:
    reading = FunctionFiles(directory, len(names))
    above = names[-2] if len(names) > 1 else ""
    parent = sbdf_from_name(above)
    root = _ROOT_BUS.fullmatch(above) if parent is None else None
    if parent is not None and parent.segment != sbdf.segment:
        parent = None
    if names[-1:] != (str(sbdf),):
        elsewhere = text_of("/".join(names))
        reading.find("link-mismatch", f"its entry leads to /{elsewhere}, which is not its own directory")
    return reading.read(sbdf, depth, parent, int(root[1], 16) if root is not None else None)


def _unreachable(sbdf: Sbdf, error: OSError) -> RawFunction:
    code, what = _UNREACHABLE.get(error.errno or 0, ("link-broken", f"cannot be followed ({reason(error)})"))
    why = f"its entry in {files.DEVICES} {what}: nothing is known of it; the device may have vanished"
    return RawFunction(sbdf, findings=(Finding(code, why),))


def _at_home(raw: RawFunction, homes: dict[Sbdf, tuple[str, ...]]) -> RawFunction:
    """Check that the directory above a function is the one that its bridge's own entry leads to."""
    above = homes.get(raw.parent) if raw.parent is not None else None
    if above is None or above == homes[raw.sbdf][:-1]:
        return raw
    why = (
        f"it lies below /{text_of('/'.join(homes[raw.sbdf][:-1]))}, but the bridge {raw.parent} "
        f"lies at /{text_of('/'.join(above))}: one address has two directories; rescan that bus"
    )
    return attrs.evolve(raw, findings=(*raw.findings, Finding("two-places", why)))


def _joined(base: tuple[str, ...], target: str) -> str:
    """Join a link's text to the real directory it stands in, taking its leading `..` off."""
    if target.startswith("/"):
        return ".." + target
    level = len(base)
    while target.startswith("../"):
        target = target[3:].lstrip("/")
        level -= 1
    if level < 0:
        return "../" + target
    return "/".join((*base[:level], target))
