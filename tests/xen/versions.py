"""Versions of Xen for tests: a branch stands for its newest version."""

from pcipt.xen import releases
from pcipt.xen.releases import NEWEST, Fact, Version, parse_version

# the releases that a rule about vPCI is held for: first and last ones of each branch
EACH_RELEASE = [
    (4, 17, 7), (4, 18, 6), (4, 19, 0), (4, 19, 6), (4, 20, 0), (4, 20, 4), (4, 21, 0), (4, 21, 2),
    (4, 22, 0),
]  # fmt: skip
# vendors' builds: their third number is not known
BUILDS = [(4, 17, "4-qubes"), (4, 18, "3.9"), (4, 19, "4-1"), (4, 20, "2.1"), (4, 21, "0-next")]


def full_version(version):
    """Give the text of a version: of (4, 17) the newest of its branch, of (4, 17, 2) that one."""
    branch = ".".join(map(str, version[:2]))
    return f"{branch}.{version[2] if len(version) > 2 else NEWEST.get(branch, 0)}"


def version_of(*numbers: int) -> Version:
    return parse_version(full_version(numbers))


def _all_versions():
    """Give each version at which a fact begins or ends, and the first and the newest of each branch."""
    facts = [value for value in vars(releases).values() if isinstance(value, Fact)]
    texts = {text for fact in facts for text in (*fact.since, *fact.until)}
    texts |= {full_version((*map(int, branch.split(".")), 0)) for branch in NEWEST}
    texts |= {f"{branch}.{patch}" for branch, patch in NEWEST.items()}
    found = {tuple(parse_version(text)[:3]) for text in texts}
    return sorted(version for version in found if ".".join(map(str, version[:2])) in NEWEST)


#: Versions that differ from one another, as (4, 17, 7): for tests that hold on every release.
VERSIONS = _all_versions()
