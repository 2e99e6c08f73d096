"""Read the files of one function's sysfs directory into a `RawFunction`. Every problem becomes a finding.

A missing file is normal unless the table in `files` marks it as needed, because kernels and devices differ.
"""

import errno
import functools
import re

from pcipt.host import files
from pcipt.host.files import Contents, Depth, Entry
from pcipt.host.function.contents import NOTHING, content_of, link_of
from pcipt.host.function.resource import parse_resource
from pcipt.host.tree import list_names, reason, text_of
from pcipt.pci import Finding, Ids, RawFunction, Resource, Sbdf

HEADER_BYTES = 64
_ids = functools.lru_cache(maxsize=1024)(Ids)  # devices of the same model have equal ids

# A text with one number, by its base.
_FORMS = {16: re.compile(rb"0x([0-9a-f]{1,8})\s*"), 10: re.compile(rb"(-?[0-9]{1,9})\s*")}
_BUS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2})")
_NAME = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")

_CODES = {
    errno.EMEDIUMTYPE: "file-kind",
    errno.EINVAL: "file-kind",  # readlink of a file that is not a link
    errno.EFBIG: "file-too-long",
    errno.EXDEV: "link-outside",
}


@functools.lru_cache(maxsize=64)  # functions below one bridge are read one after another
def sbdf_from_name(name: str) -> Sbdf | None:
    """Return the address that a directory name in Linux's spelling holds, or None for any other name.

    Linux's spelling has lower-case digits, and a segment of 4 digits, or of more without leading zeros.
    """
    matched = _NAME.fullmatch(name)
    if matched is None:
        return None
    segment, bus, device, function = matched.groups()
    sbdf = Sbdf(int(segment, 16), int(bus, 16), int(device, 16), int(function))
    return sbdf if len(segment) == 4 or str(sbdf) == name else None


def files_of(depth: Depth) -> tuple[tuple[Entry, int | None], ...]:
    """Return the files that `FunctionFiles.read` reads of each function, and how many bytes of each (None:
    all).
    """
    config = (files.CONFIG, None if depth is Depth.FULL else HEADER_BYTES)
    others = _GLANCED if depth is Depth.GLANCE else (*_GLANCED, *_NUMBERS, *_OTHERS)
    return (config, *((entry, None) for entry in others))


_GLANCED = (files.VENDOR, files.DEVICE, files.CLASS)
_NUMBERS = (files.REVISION, files.SUBSYSTEM_VENDOR, files.SUBSYSTEM_DEVICE, files.NUMA_NODE)
_OTHERS = (files.RESOURCE, files.DRIVER, files.PHYSFN, files.SECONDARY_BUS)


@functools.lru_cache(maxsize=4096)  # devices of the same model have equal texts
def _parsed(data: bytes, limit: int, base: int) -> int | None:
    """Return the number in a text, or None if the text is malformed or the number above `limit`."""
    matched = _FORMS[base].fullmatch(data)
    value = int(matched[1], base) if matched is not None else limit + 1
    return value if value <= limit else None


class FunctionFiles:
    """A reader of one function's directory. It collects findings while it reads.

    `directory` is an open descriptor, `level` the number of directories between the root and it. `contents`
    has what was read already; what it does not have is read when it is needed.
    """

    def __init__(self, directory: int, level: int, contents: Contents = NOTHING) -> None:
        self._directory = directory
        self._level = level
        self._contents = contents
        self.findings: list[Finding] = []

    def read(
        self,
        sbdf: Sbdf,
        depth: Depth,
        parent: Sbdf | None,
        root_bus: int | None,
        instance: int | None = None,
    ) -> RawFunction:
        """Read the files of the function up to `depth`.

        Call it once. Raises nothing: a problem becomes a finding. A value that cannot be read is None in the
        result (empty for `resources`). With GLANCE only vendor, device, class and the header are read. With
        GLANCE and HEADER, `config` has at most 64 bytes. `parent` and `root_bus`, which the caller knows from
        directory names, and `instance`, the number of the directory, are copied to the result.
        """
        config = self._bytes(files.CONFIG, None if depth is Depth.FULL else HEADER_BYTES)
        vendor = self._number(files.VENDOR, 0xFFFF)
        device = self._number(files.DEVICE, 0xFFFF)
        class_code = self._number(files.CLASS, 0xFF_FFFF)
        if depth is Depth.GLANCE:
            ids = _ids(vendor, device, class_code)
            return RawFunction(
                sbdf,
                config,
                ids=ids,
                parent=parent,
                root_bus=root_bus,
                findings=tuple(self.findings),
                instance=instance,
            )
        ids = _ids(
            vendor,
            device,
            class_code,
            self._number(files.REVISION, 0xFF),
            self._number(files.SUBSYSTEM_VENDOR, 0xFFFF),
            self._number(files.SUBSYSTEM_DEVICE, 0xFFFF),
        )
        resources = self._resources()
        driver = self._link(files.DRIVER)
        node = self._number(files.NUMA_NODE, 0xFFFF, 10)
        return RawFunction(
            sbdf=sbdf,
            config=config,
            resources=resources,
            ids=ids,
            driver=text_of(driver.rpartition("/")[2]) if driver else None,
            numa_node=node,
            physfn=self._physfn(),
            parent=parent,
            root_bus=root_bus,
            secondary=self._bus_below(sbdf),
            findings=tuple(self.findings),
            instance=instance,
        )

    def _bus_below(self, sbdf: Sbdf) -> int | None:
        """Return Linux's number for the bus below the bridge `sbdf`.

        Return None if the file `secondary_bus_number` is missing (then the function is not a bridge), cannot
        be read or is malformed. The file shows what the register reads now; Linux's number may be another
        one. Linux's number is in directory names only: in a live tree in `pci_bus`, in a recorded tree in the
        names of the functions below the bridge. If these names show several buses in the bridge's segment,
        the lowest number is returned. If they show no bus, the value of the file is returned.
        Source: linux drivers/pci/pci-sysfs.c, secondary_bus_number_show.
        """
        register = self._number(files.SECONDARY_BUS, 0xFF, 10)
        if register is None:
            return None
        for directory, form in ((files.BUSES_BELOW, _BUS), (".", _NAME)):
            found = [
                matched for name in self._names(directory) if (matched := form.fullmatch(name)) is not None
            ]
            buses = [int(matched[2], 16) for matched in found if int(matched[1], 16) == sbdf.segment]
            if buses:
                return min(buses)
        return register

    def _names(self, directory: str) -> list[str]:
        """Return the names in a subdirectory, in any order. The list is empty if it cannot be listed."""
        try:
            return list_names(self._directory, files.MAX_FUNCTIONS, directory)
        except OSError:
            return []

    def find(self, code: str, why: str) -> None:
        """Add a finding to `findings`."""
        self.findings.append(Finding(code, why))

    def _bytes(self, entry: Entry, wanted: int | None = None) -> bytes | None:
        """Return the content of a file, or None if it is missing, empty or unreadable.

        An empty or unreadable file gives a finding. A missing file gives a finding only if `entry.needed`.
        `wanted` is the number of bytes to read, None for all.
        """
        try:
            data = content_of(self._directory, entry, self._contents, wanted)
        except OSError as error:
            self._add_read_error(entry, error)
            return None
        if data is None:
            if entry.needed:
                self.find("file-missing", f"there is no file {entry.name}: its content is unknown")
            return None
        if not data:
            self.find("file-empty", f"the file {entry.name} is empty")
            return None
        return data

    def _number(self, entry: Entry, limit: int, base: int = 16) -> int | None:
        """Return the number in a file, or None if there is none.

        A number above `limit` and a malformed text give None and a finding. A negative number gives None
        without a finding. For a missing or unreadable file see `_bytes`.
        """
        data = self._bytes(entry)
        if data is None:
            return None
        value = _parsed(data, limit, base)
        if value is None:
            shown = data[:24].decode("ascii", "backslashreplace").strip()
            self.find("value-malformed", f"the file {entry.name} holds {shown!r}, which is no such number")
            return None
        return None if value < 0 else value  # numa_node is -1 if there is none

    def _resources(self) -> tuple[Resource, ...]:
        """Return the lines of the file `resource`, each as a `Resource`; empty if the file cannot be read.

        A damaged line, or too many lines, add a finding to `findings` (`parse_resource`).
        """
        data = self._bytes(files.RESOURCE)
        if data is None:
            return ()
        lines, problem = parse_resource(data)
        if problem is not None:
            self.findings.append(problem)
        return lines

    def _link(self, entry: Entry) -> str | None:
        """Return the target of a link, or None if it is missing or unreadable.

        An unreadable link, and a link that leads outside the root, give a finding. A missing link gives none.
        """
        try:
            return link_of(self._directory, entry, self._level, self._contents)
        except OSError as error:
            self._add_read_error(entry, error)
            return None

    def _physfn(self) -> Sbdf | None:
        """Return the physical function that the link `physfn` names, or None if the link is missing or
        unreadable.

        If the link does not lead to a function, return None and add a finding.
        """
        target = self._link(files.PHYSFN)
        if target is None:
            return None
        physfn = sbdf_from_name(target.rpartition("/")[2])
        if physfn is None:
            self.find("value-malformed", "the link physfn does not lead to a function; its owner is unknown")
        return physfn

    def _add_read_error(self, entry: Entry, error: OSError) -> None:
        """Add a finding for a file that could not be read.

        Its code depends on the errno: file-kind, file-too-long or link-outside, else read-error.
        """
        code = _CODES.get(error.errno or 0, "read-error")
        if code == "read-error":
            why = f"the {entry.kind.value} file {entry.name} cannot be read ({reason(error)})"
        elif error.errno == errno.EINVAL:
            why = f"{entry.name} is no link"
        else:
            why = f"the file {entry.name} {reason(error)}"
        self.find(code, f"{why}: its content is unknown; the device may be leaving, or the tree is damaged")
