"""What a release of Xen does: one row a fact. No other module compares versions of Xen.

Versions have three numbers, because Xen's stable branches differ: a fault that is mended in 4.21.0 may be
mended in 4.20.2, too, and never in 4.18. A version whose third number is not known (a vendor's build) has for
each fact the answer that is safer, unless all versions of its branch have the same answer. Pure.
Source: Xen's git; `make oracle` finds each row's commits in it and compares the versions.
"""

import functools
import re

from pcipt.hints import NamedTuple

NEWEST = {"4.17": 7, "4.18": 6, "4.19": 6, "4.20": 4, "4.21": 2, "4.22": 0}  # branch: the last version read

_BEFORE_FIRST = ("-unstable", "-rc")
_TEXT = r"(\d+)\.(\d+)(?:\.(\d+))?(.*)"


class Version(NamedTuple):
    """A version of Xen. `patch` is the third number, None if it is not known.

    A build between two releases ("4.20.5-pre", "4.22-unstable") has no `patch`; `before` is the third number
    of the release that follows.
    """

    major: int
    minor: int
    patch: int | None
    before: int | None = None

    @property
    def branch(self) -> str:
        """Return the name of the stable branch, for example "4.17"."""
        return f"{self.major}.{self.minor}"

    @property
    def is_read(self) -> bool:
        """Return True if the source of exactly this version was read for the rows of this table."""
        return self.patch is not None and self.patch <= NEWEST.get(self.branch, -1)

    def __str__(self) -> str:
        if self.before is not None:
            return f"{self.branch}.{self.before}-pre"
        return f"{self.branch}.{'x' if self.patch is None else self.patch}"


@functools.lru_cache(maxsize=256)
def parse_version(text: str) -> Version:
    """Return the version in a text such as "4.17.7".

    The third number is None if it is missing or if anything follows it ("4.17.4-qubes", "4.18.3.9"): such a
    build may have more or less than the release has. "4.20.5-pre" is what Xen's stable branch calls itself
    after 4.20.4: Debian builds such versions. "4.22-unstable" is what Xen's master branch calls itself until
    "4.22.0-rc", and that until 4.22.0: it may have no more than 4.21 has.
    Raises: ValueError if the text does not begin with two numbers.
    """
    match = re.match(_TEXT, text, re.DOTALL)
    if match is None:
        raise ValueError(f"version {text!r} is not like 4.17.7")
    major, minor, patch, more = match.groups()
    third = int(patch) if patch is not None else None
    if more == "-pre" and third:
        return Version(int(major), int(minor), None, before=third)
    if not third and more.startswith(_BEFORE_FIRST):
        return Version(int(major), int(minor), None, before=0)
    return Version(int(major), int(minor), None if more else third)


class Fact(NamedTuple):
    """One thing that some versions of Xen do.

    `since` and `until` are the first versions that do it and that do it no more, one for each branch. A
    branch that is newer than all of them is like the newest of them; a branch that is older has no such
    version. `safer` is the answer for a version whose third number is not known. `commits` are in Xen's
    master branch. `source` names the file and the function.
    """

    name: str
    since: tuple[str, ...]
    until: tuple[str, ...]
    safer: bool
    commits: tuple[str, ...]
    source: str

    def of(self, version: Version | None) -> bool:
        """Return True if a version of Xen does it, `safer` if that or the version is not known."""
        known = self.known_of(version) if version is not None else None
        return self.safer if known is None else known

    def known_of(self, version: Version) -> bool | None:
        """Return True if a version of Xen does it, None if the answer depends on the unknown third number."""
        if version.patch is not None:
            return self._holds(version)
        answers = {self._holds(each) for each in self._possible(version)}
        return answers.pop() if len(answers) == 1 else None

    @property
    def begins(self) -> str:
        """The first versions that do it, in words: "4.19.5, 4.20.3, 4.21.1 and 4.22.0"."""
        return _in_words(self.since)

    @property
    def ends(self) -> str:
        """The first versions that do it no more, in words."""
        return _in_words(self.until)

    def _holds(self, version: Version) -> bool:
        begun = not self.since or _reached(self.since, version)
        return begun and not (self.until and _reached(self.until, version))

    def _possible(self, version: Version) -> list[Version]:
        """Return versions that have every answer that a build whose third number is not known may have.

        A build before the first release of its branch may be like any version of the branch before.
        """
        major, minor, _, before = version
        if before:
            return [Version(major, minor, patch) for patch in (before - 1, before)]
        minors = [minor, minor - 1] if before == 0 else [minor]
        named = [parse_version(text) for text in (*self.since, *self.until)]
        ends = [each for each in named if each.major == major and each.minor in minors]
        return [*(Version(major, each, 0) for each in minors), *ends]


def _in_words(versions: tuple[str, ...]) -> str:
    *before, last = versions
    return f"{', '.join(before)} and {last}" if before else last


@functools.lru_cache(maxsize=1024)  # asked for each function, of few versions
def _reached(firsts: tuple[str, ...], version: Version) -> bool:
    """Return True if a version is not older than the one of its branch in `firsts`."""
    by_branch = {(first.major, first.minor): first.patch or 0 for first in map(parse_version, firsts)}
    branch = (version.major, version.minor)
    if branch in by_branch:
        return (version.patch or 0) >= by_branch[branch]
    return branch > max(by_branch)


def _fact(name: str, commits: str, source: str, *, since: str = "", until: str = "", safer: bool) -> Fact:
    """Return a row; versions and commits are separated by spaces."""
    return Fact(name, tuple(since.split()), tuple(until.split()), safer, tuple(commits.split()), source)


# fmt: off
# Xen's list of devices.
ORPHAN_REMOVAL_PANICS = _fact(  # vpci_remove_device reads through the owner, which is NULL
    "removing a function without an owner panics", "635dd1120a",
    "drivers/passthrough/pci.c pci_remove_device", until="4.19.0", safer=True)
UNFINISHED_MAP_PANICS = _fact(
    "a failed add of a function that decodes memory panics (PVH)", "4f78438b45",
    "drivers/vpci/header.c vpci_process_pending", until="4.19.0", safer=True)
IO_VF_BAR_HANGS = _fact(
    "adding a function with a VF BAR for I/O ports never returns", "f7091c0e1f",
    "drivers/passthrough/pci.c pci_add_device", until="4.19.4 4.20.2 4.21.0", safer=True)
VF_NEEDS_PF_ADDED = _fact(
    "a virtual function is added only if its physical function can be added", "f67d770d86",
    "drivers/passthrough/pci.c pci_add_device", since="4.19.1", until="4.20.0", safer=True)
VF_WITHOUT_PF_REFUSED = _fact(
    "a virtual function whose physical function is not listed is refused", "8fe330a4da",
    "drivers/passthrough/pci.c pci_add_device", since="4.20.0", safer=True)
PF_WITH_VFS_STAYS = _fact(
    "a physical function with listed virtual functions is not removed, and broken", "4e18a39056",
    "drivers/passthrough/pci.c pci_remove_device", since="4.19.1 4.20.0", safer=True)
DEVICE_RESET = _fact(
    "PHYSDEVOP_pci_device_reset sets vPCI up anew (PVH); of an orphan it panics", "9a2d7b5bb6",
    "drivers/pci/physdev.c pci_physdev_op", since="4.20.0", safer=True)

# vPCI of a PVH dom0.
WITHOUT_VPCI_PANICS = _fact(
    "any switch of decode panics while dom0 has a function without vPCI (PVH)", "ee045f3a4a",
    "drivers/vpci/header.c modify_bars", until="4.17.2 4.18.0", safer=True)
VPCI_CHECKS_PERMISSION = _fact(
    "vPCI does not map pages that dom0 may not access", "baa6ea7003",
    "drivers/vpci/header.c map_range", since="4.18.0", safer=True)
VPCI_SURVIVES_FAILURE = _fact(  # decode goes off in each version
    "vPCI keeps its handlers after a failed map or unmap", "622bdd9628",
    "drivers/vpci/header.c vpci_process_pending", since="4.19.0", safer=False)
VPCI_GOES_BAR_BY_BAR = _fact(
    "vPCI maps BAR by BAR, not all pages by address; an own ROM takes pages of an own BAR", "622bdd9628",
    "drivers/vpci/header.c modify_bars", since="4.19.0", safer=True)
RANGESET_GROWS = _fact(
    "taking pages out of a set that lie in a gap extends the run before it", "e118fc98e7",
    "common/rangeset.c rangeset_remove_range", until="4.19.3 4.20.1 4.21.0", safer=True)
E820_CUTS_BARS = _fact(
    "of a BAR over an entry of the memory map the rest is mapped and the BAR counts as mapped", "4acab25a93",
    "arch/x86/pci.c pci_sanitize_bar_memory", since="4.19.3 4.20.1 4.21.0", safer=True)
VPCI_BUILT_AT_ASSIGN = _fact(
    "vPCI forgets a function that leaves dom0 and is built anew when it returns", "f20dde9259",
    "drivers/passthrough/pci.c assign_device", since="4.19.0", safer=True)
MSIX_CHECKED = _fact(
    "MSI-X tables are checked when a function is added", "53859596c0d3",
    "drivers/vpci/msix.c init_msix", since="4.19.4 4.20.2 4.21.0", safer=True)
FAULTY_CAPABILITY_HIDDEN = _fact(  # before: the add fails
    "a capability that vPCI cannot set up is hidden from dom0", "4bd1ee8534 0ba439b942",
    "drivers/vpci/vpci.c vpci_init_capabilities", since="4.21.0", safer=False)
HIDDEN_MSIX_LOCKED = _fact(
    "Message Control of a hidden MSI-X structure cannot be written", "5a733e438f",
    "drivers/vpci/msix.c cleanup_msix", since="4.22.0", safer=True)
MSIX_HOLE_NEEDS_MAPPED_BAR = _fact(
    "MSI-X tables are taken out of the map only while their BAR is mapped; a failure keeps BARs as mapped",
    "7c24d58a6e", "drivers/vpci/msix.c vpci_make_msix_hole", since="4.21.1 4.22.0", safer=True)
RESIZABLE_BARS = _fact(
    "vPCI knows Resizable BARs", "6ce1066599", "drivers/vpci/rebar.c init_rebar", since="4.21.0", safer=False)
EXTENDED_CAPABILITIES_REBUILT = _fact(
    "vPCI builds extended capabilities anew when MMCFG becomes usable", "d734babf8b",
    "drivers/vpci/vpci.c vpci_reinit_ext_capabilities", since="4.22.0", safer=True)

# Memory and IOMMU.
PF_FIXUP = _fact(
    "dom0=pf-fixup exists: dom0's first access to a hole maps the page (PVH)", "104591f5dd",
    "arch/x86/hvm/emulate.c hwdom_fixup_p2m", since="4.19.2 4.20.1 4.21.0", safer=True)
PF_FIXUP_BY_DEFAULT = _fact(
    "dom0=pf-fixup is on by default (PVH)", "fa8687810a",
    "arch/x86/hvm/emulate.c opt_dom0_pf_fixup", since="4.22.0", safer=True)
PF_FIXUP_OF_RESERVED = _fact(
    "dom0=pf-fixup maps reserved memory as well", "45a2378599",
    "arch/x86/hvm/emulate.c hwdom_fixup_p2m", since="4.21.0", safer=True)
RESERVED_MAPPED_ANYWHERE = _fact(  # before: below 4 GiB or the last RAM
    "reserved memory is mapped 1:1 at boot wherever it lies, unless dom0-iommu=no-map-reserved", "0e1bd15a1d",
    "drivers/passthrough/x86/iommu.c arch_iommu_hwdom_init", since="4.19.0", safer=False)
ONLY_ACCESSIBLE_MAPPED = _fact(
    "memory that dom0 may not access, such as HyperTransport's, is not mapped 1:1 at boot", "62f3fc5296",
    "drivers/passthrough/x86/iommu.c arch_iommu_hwdom_init", since="4.19.2 4.20.1 4.21.0", safer=True)
RMRR_OVER_RAM_ENDS_VTD = _fact(  # before: a warning
    "VT-d is not used if a reserved region (RMRR) lies over RAM", "a185f88e98",
    "drivers/passthrough/vtd/dmar.c register_one_rmrr", since="4.19.0", safer=True)
IVMD_WITHOUT_UNIT_ENDS_AMD_VI = _fact(  # after: the region is passed over
    "AMD-Vi is not used if reserved memory (IVMD) is for a function that no unit serves", "2defb54490",
    "drivers/passthrough/amd/iommu_acpi.c register_range_for_device",
    until="4.18.4 4.19.1 4.20.0", safer=True)
IVMD_MEMORY_CHECK_INVERTED = _fact(
    "reserved memory (IVMD) must not be reserved, ACPI or NVS in the memory map, and may be RAM",
    "83afa31358", "drivers/passthrough/amd/iommu_acpi.c parse_ivmd_block",
    until="4.17.4 4.18.1 4.19.0", safer=True)
SATC_READ = _fact(
    "VT-d reads the entries SATC of the table, and is not used if one is wrong", "b5996ab284",
    "drivers/passthrough/vtd/dmar.c acpi_parse_one_satc", since="4.19.0", safer=True)
SEGMENTS_READ_FOR_IOMMU = _fact(  # before: all registers of the other segments read as ones
    "registers of functions in segments above 0 can be read, by MMCFG, while Xen reads the IOMMU tables",
    "c292772b49", "arch/x86/setup.c __start_xen", since="4.19.4 4.20.2 4.21.0", safer=False)
MMCFG_IN_HOLE = _fact(  # before: only what the memory map reserves, until dom0 says otherwise
    "Xen uses MMCFG that lies in a hole of the memory map, with firmware of 2016 and later", "87279cafc0",
    "arch/x86/x86_64/mmconfig-shared.c pci_mmcfg_reject_broken", since="4.20.4 4.21.2 4.22.0", safer=False)
EXTRA_REGIONS_TOO_LONG = _fact(
    "regions that Xen adds itself for VT-d (not those of rmrr=) are one page too long in Xen's answer",
    "d41501fcf6", "drivers/passthrough/vtd/dmar.c add_one_extra_rmrr",
    until="4.19.5 4.20.3 4.21.1 4.22.0", safer=True)
MAPPINGS_INTERLEAVE = _fact(  # XSA-492
    "mapping calls of two programs interleave, because Xen holds no lock for them", "5a81fb873c",
    "common/domctl.c do_domctl", since="4.17.7 4.18.6 4.19.6 4.20.4 4.21.2 4.22.0", safer=True)
UNMAP_CHECKS_CALLER_ONLY = _fact(
    "removing a mapping needs the permission of the caller alone", "6df6f24251",
    "common/domctl.c memory_mapping", since="4.22.0", safer=False)

# Guests and tables.
PVH_DOM0_GIVES_DEVICES = _fact(  # HVM guests only, and not without LINUX_TELLS_GSI
    "a PVH dom0 can give devices to HVM guests", "f97f885c71 43a1f8b38e d6e9a2aab3 035baa203b",
    "arch/x86/hvm/hypercall.c, tools/libs/light/libxl_pci.c", since="4.20.0", safer=False)
DISPLAY_COUNTS_AS_IGD = _fact(
    "libxl takes a display controller for an integrated graphics device", "4191619e08",
    "tools/libs/light/libxl_pci.c", since="4.20.0", safer=True)
HVM_DETACH_REVOKES = _fact(
    "libxl revokes permissions when a device leaves an HVM guest", "39113a8a23",
    "tools/libs/light/libxl_pci.c", since="4.18.0", safer=False)
DETACH_CUTS_ADDRESSES = _fact(  # XSA-476; the guest keeps the permission for the BAR
    "libxl revokes too little when a device with a BAR above 4 GiB leaves a guest", "421432b822",
    "tools/libs/light/libxl_pci.c do_pci_remove",
    until="4.17.6 4.18.6 4.19.4 4.20.2 4.21.0", safer=True)
DOMAIN_STATE = _fact(
    "XEN_DOMCTL_get_domain_state tells who died", "3ad3df1bd0",
    "common/domctl.c do_domctl", since="4.21.0", safer=False)
VFCT_GIVEN = _fact(
    "a PVH dom0 gets the table VFCT", "f69c599159",
    "arch/x86/hvm/dom0_build.c pvh_acpi_table_allowed", since="4.18.0", safer=False)
TPM_TABLES_GIVEN = _fact(
    "a PVH dom0 gets the tables TCPA and TPM2", "46f3ed0d53",
    "arch/x86/hvm/dom0_build.c pvh_acpi_table_allowed", since="4.19.5 4.20.3 4.21.1 4.22.0", safer=False)
OEM_TABLES_GIVEN = _fact(
    "a PVH dom0 gets tables whose name begins with OEM", "6378909b41",
    "arch/x86/hvm/dom0_build.c pvh_acpi_table_allowed", since="4.18.5 4.19.2 4.20.1 4.21.0", safer=False)

# Linux in dom0, by its own versions and commits.
LINUX_TELLS_GSI = _fact(
    "dom0's Linux tells the toolstack the interrupt of a device (PVH)", "0fd2a743301b",
    "linux drivers/xen/privcmd.c privcmd_ioctl_pcidev_get_gsi", since="6.12.0", safer=False)
PCIBACK_NEEDS_GSI = _fact(
    "Linux's xen-pciback needs the interrupt of each function on a PVH dom0", "b166b8ab4189",
    "linux drivers/xen/xen-pciback/pci_stub.c pcistub_init_device", since="6.12.0", safer=True)
# fmt: on

LINUX_FACTS = (LINUX_TELLS_GSI, PCIBACK_NEEDS_GSI)
FACTS: tuple[Fact, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Fact) and value not in LINUX_FACTS
)


def basis(version: Version) -> str:
    """Return what a version is to this table: "read", "build", "newer" or "older".

    read: its source was read. build: its branch was read, and its third number is not known (a vendor's
    build). newer, older: it is outside of what was read, and is taken to do what the nearest version in the
    table does.
    """
    if version.branch not in NEWEST:
        oldest = parse_version(next(iter(NEWEST)))
        return "newer" if version[:2] > oldest[:2] else "older"
    if version.patch is None:
        return "build"
    return "read" if version.is_read else "newer"


def uncertain(version: Version) -> list[Fact]:
    """Return the facts whose answer for this version is only the safer one; none if its numbers are known."""
    return [fact for fact in FACTS if fact.known_of(version) is None]


def common_interfaces(one: str, other: str) -> int | None:
    """Return how many of the interfaces sysctl and domctl are the same in two branches: 0, 1 or 2.

    Return None if one of the branches is not in `INTERFACES`. A library of one branch can use these
    interfaces of the other's Xen.
    """
    if one not in INTERFACES or other not in INTERFACES:
        return None
    return sum(left == right for left, right in zip(INTERFACES[one], INTERFACES[other], strict=True))


# branch: interface versions of sysctl and domctl (public/sysctl.h, public/domctl.h)
INTERFACES = {
    "4.17": (0x15, 0x15), "4.18": (0x15, 0x16), "4.19": (0x15, 0x17),
    "4.20": (0x15, 0x17), "4.21": (0x16, 0x17), "4.22": (0x16, 0x18),
}  # fmt: skip
