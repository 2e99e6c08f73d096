"""Read the lines by which other tools name functions: the kernel's command line, files of modprobe and of xl.

Sources: xendomains(8): each file in /etc/xen/auto is a guest that is started at boot; modprobe.d(5): of files
         with one name, the file in the first directory counts; kmod libkmod/libkmod-config.c
         (kmod_config_new: options on the kernel's command line come last).
"""

import os
import re

from pcipt.errors import InputError, MalformedError
from pcipt.host.regular_file import read_regular
from pcipt.host.tree import reason
from pcipt.pci.notation.hidden import PCIBACK, QUBES, Named, hidden_by, hidden_by_module
from pcipt.pci.notation.xl_guest import parse_xl_guest
from pcipt.pci.policy.snippets import For
from pcipt.pci.policy.written import Written

COMMAND_LINE = "proc/cmdline"
MODPROBE = ("etc", "run", "usr/local/lib", "usr/lib", "lib")  # in this order
GUESTS, AUTO, ENDING = "etc/xen", "etc/xen/auto", ".cfg"
MOST = 1024  # files
LIMIT = 256 * 1024
_PCI = re.compile(r"^[ \t]*pci[ \t]*\+?=", re.MULTILINE)
_IGNORED = "xl ignores it, and the guest gets no device; write pci = [ … ]"
_TOOLS = {PCIBACK: For.KERNEL, QUBES: For.QUBES}


def read_lines(root: str = "/") -> tuple[Written, ...]:
    """Return the lines that name functions on the machine below `root`: kernel, modprobe, guests.

    A file without such a line is left out. Raises nothing: a guest's file that cannot be read is a line with
    a `fault`.
    """
    return (*_of_kernel(root), *(line for path in _files(root) for line in lines_of_guest(path)))


def read_text(path: str) -> str:
    """Return the text of a file with such lines. Raises: InputError if it cannot be read."""
    try:
        return read_regular(path, LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(path, reason(error)) from error


def _of_kernel(root: str) -> list[Written]:
    """Return the options of the kernel's command line; without xen-pciback's there, that of modprobe."""
    options = hidden_by(_text(os.path.join(root, COMMAND_LINE)))
    where = "{} on the kernel's command line"
    found = [Written(_TOOLS[option], where.format(option), items) for option, items in options.items()]
    return found if PCIBACK in options else [*found, *_of_modprobe(root)]


def _of_modprobe(root: str) -> list[Written]:
    """Return the line `options xen-pciback hide=` that counts: the last one of modprobe's files, by name."""
    files: dict[str, str] = {}
    for directory in MODPROBE:
        place = os.path.join(root, directory, "modprobe.d")
        for name in _names(place):
            if name.endswith(".conf"):
                files.setdefault(name, os.path.join(place, name))
    found = []
    for _, path in sorted(files.items())[:MOST]:
        hidden = hidden_by_module(_text(path))
        if hidden is not None:
            line, items = hidden
            found = [Written(For.MODPROBE, f"{path}, line {line},", items)]
    return found


def _text(path: str) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return read_text(path)
    except InputError:
        return ""


def _names(directory: str) -> list[str]:
    """Return the names in a directory, sorted; an empty list if it cannot be read."""
    try:
        return sorted(os.listdir(directory))[:MOST]
    except OSError:
        return []


def _files(root: str) -> list[str]:
    """Return the paths of the guests' files, each file once: a link in /etc/xen/auto is the file it names."""
    found: dict[str, str] = {}
    for directory, ending in ((GUESTS, ENDING), (AUTO, "")):
        place = os.path.join(root, directory)
        for name in _names(place):
            path = os.path.join(place, name)
            if name.endswith(ending) and name[0] != "." and os.path.isfile(path):
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def lines_of_guest(path: str) -> list[Written]:
    """Return the line `pci` of one guest's file; nothing if the file has none. Raises nothing, as above."""
    try:
        text = read_text(path)
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
