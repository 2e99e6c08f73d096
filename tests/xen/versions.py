"""Versions of Xen for tests: a branch stands for its newest version."""

from pcipt.xen.releases import NEWEST, Version, parse_version


def full_version(version):
    """Give the text of a version: of (4, 17) the newest of its branch, of (4, 17, 2) that one."""
    branch = ".".join(map(str, version[:2]))
    return f"{branch}.{version[2] if len(version) > 2 else NEWEST.get(branch, 0)}"


def version_of(*numbers: int) -> Version:
    return parse_version(full_version(numbers))
