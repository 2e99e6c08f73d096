"""Read the lines by which other tools name functions: the kernel's command line, xl's configuration files.

Source: xendomains(8): each file in /etc/xen/auto is a guest that is started at boot.
"""

import os
import re

from pcipt.errors import InputError, MalformedError
from pcipt.host.regular_file import read_regular
from pcipt.host.tree import reason
from pcipt.pci.notation.hidden import PCIBACK, QUBES, Named, hidden_by
from pcipt.pci.notation.xl_guest import parse_xl_guest
from pcipt.pci.policy.snippets import For
from pcipt.pci.policy.written import Written

COMMAND_LINE = "proc/cmdline"
GUESTS, AUTO, ENDING = "etc/xen", "etc/xen/auto", ".cfg"
MOST = 1024  # files
LIMIT = 256 * 1024
_PCI = re.compile(r"^[ \t]*pci[ \t]*\+?=", re.MULTILINE)
_IGNORED = "xl ignores it, and the guest gets no device; write pci = [ … ]"
_TOOLS = {PCIBACK: For.KERNEL, QUBES: For.QUBES}


def read_lines(root: str = "/") -> tuple[Written, ...]:
    """Return the lines that name functions on the machine below `root`: the kernel's first, then the files'.

    A file without `pci` is left out. Raises nothing: a file that cannot be read is a line with a `fault`.
    """
    return (*_of_kernel(root), *(line for path in _files(root) for line in lines_of_guest(path)))


def read_guest(path: str) -> str:
    """Return the text of a guest's file. Raises: InputError if it cannot be read."""
    try:
        return read_regular(path, LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(path, reason(error)) from error


def _of_kernel(root: str) -> list[Written]:
    """Return the options of the kernel's command line; nothing if it cannot be read."""
    try:
        text = read_regular(os.path.join(root, COMMAND_LINE), LIMIT).decode("utf-8", "replace")
    except (OSError, InputError):
        return []
    where = "{} on the kernel's command line"
    return [Written(_TOOLS[option], where.format(option), items) for option, items in hidden_by(text).items()]


def _files(root: str) -> list[str]:
    """Return the paths of the guests' files, each file once: a link in /etc/xen/auto is the file it names."""
    found: dict[str, str] = {}
    for directory, ending in ((GUESTS, ENDING), (AUTO, "")):
        place = os.path.join(root, directory)
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue  # not there
        for name in names[:MOST]:
            path = os.path.join(place, name)
            if name.endswith(ending) and name[0] != "." and os.path.isfile(path):
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def lines_of_guest(path: str) -> list[Written]:
    """Return the line `pci` of one guest's file; nothing if the file has none. Raises nothing, as above."""
    try:
        text = read_guest(path)
    except InputError as error:
        return [Written(For.XL, path, fault=str(error))]
    if _PCI.search(text) is None:
        return []
    try:
        guest = parse_xl_guest(text, path)
    except MalformedError as error:
        return [Written(For.XL, path, fault=str(error))]
    if guest.single:
        return [Written(For.XL, path, fault=f"{path}: line {guest.line}: pci is no list", effect=_IGNORED)]
    items = tuple(Named(each.text, each.slot, each.options) for each in guest.devices if each.slot)
    return [Written(For.XL, f"{path}, line {guest.line},", items, guest.name)]
