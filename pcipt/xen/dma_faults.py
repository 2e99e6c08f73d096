"""Parse the lines that Xen prints when an IOMMU refuses DMA, and say whether they may be believed. Pure.

VT-d's lines are two: the first has the device and the page, the second the reason. AMD-Vi's is one; an entry
of its event log that is no page fault is printed as four numbers. The texts are the same from 4.17 to 4.22;
from 4.23 " on iommu:N" follows VT-d's reason. VT-d prints with the level of warnings about guests: by default
ten messages at once, then one in five seconds, and none with guest_loglvl=none or error. AMD-Vi prints errors
of Xen itself, which have no limit.

Xen prints such a line by one call, under the console's lock, so it is never divided. A line of a guest
begins with the guest's prefix and has no line end in it. Text of dom0 is not in the ring, except with
console_to_ring: then it is there byte by byte without a prefix, and may look like any line of Xen.
Source: Xen drivers/passthrough/vtd/iommu.c (iommu_page_fault_do_one), amd/iommu_init.c
        (parse_event_log_entry), drivers/char/console.c (guest_console_write, printk_prefix_check,
        __printk_ratelimit, parse_guest_loglvl), common/kernel.c (cmdline_parse: a built-in line comes first);
        VT-d 4.1 §7.2.3 (reasons), AMD IOMMU 3.08 §2.5 (events).
"""

import enum
import re
from collections.abc import Iterator, Mapping

from pcipt import values as attrs
from pcipt.pci import Frames, Sbdf, parse_sbdf, sbdf_from_devfn
from pcipt.xen.command_line import flag_in, value_in
from pcipt.xen.console import whole_lines


class Cause(enum.Enum):
    """Why the IOMMU refused the access; the value says it in words. UNTOLD: Xen did not print why."""

    PAGE = "the page is not mapped for this device, or not for this kind of access"
    ENTRY = "the IOMMU has no valid entry for the device"
    LIMIT = "the address is higher than the IOMMU can translate"
    TABLES = "the IOMMU could not read its own tables, or found an error in them"
    UNTOLD = "Xen did not print the reason"


class There(enum.Enum):
    """What lies where a device tried to access memory; the value is the word in metrics and events."""

    WITHDRAWN = "withdrawn-region"
    REGION = "reserved-region"
    BAR = "bar"
    RAM = "ram"
    PLATFORM = "platform"
    NOTHING = "nothing"
    GUEST = "guest"
    QUARANTINE = "quarantine"
    NO_ENTRY = "no-entry"


@attrs.frozen
class Fault:
    """One refused access. `device` is the address that the IOMMU saw; `access` is "read", "write" or "".

    `at` is the address of the access in bytes; VT-d tells the page only. A bridge's address, or a phantom
    function's, may stand for a device behind it.
    """

    device: Sbdf
    access: str
    at: int
    cause: Cause = Cause.UNTOLD


@attrs.frozen
class DmaFault:
    """Refused accesses of one device that are alike. `count` is how many since everything was compared last.

    `sbdf` is Linux's address of the device, or what the IOMMU saw if Linux has no such function. `owner` is
    the owner of the device in words. `at` is the first address. `there` and `what` say what lies
    there, `region` are the pages of the reserved region if it is one. `when` is the time of the reading of
    Xen's console (UTC, RFC 3339), which may be later than the access.
    """

    sbdf: Sbdf
    owner: str
    access: str
    at: int
    cause: Cause
    there: There
    what: str
    count: int
    when: str
    region: Frames | None = None

    @property
    def key(self) -> "FaultKey":
        """Refused accesses of one device with the same key are alike."""
        return self.access, self.there, self.what


FaultKey = tuple[str, There, str]


@attrs.frozen
class Hearing:
    """What may be heard on Xen's console. `believed`: only Xen can have printed a line that begins with its
    prefix. `vtd`: Xen prints what VT-d refuses. `why` says in words why not, empty if both are True.
    """

    believed: bool
    vtd: bool
    why: str = ""


_SBDF = r"(?P<sbdf>[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])"
_AT = r"(?P<at>[0-9a-f]{1,16})"
_VTD = re.compile(
    rf"\[VT-D\](?:DMAR:\[DMA (?P<kind>Read|Write)\]|UNKNOWN:) Request device \[{_SBDF}\] fault addr {_AT}"
)
_VTD_REASON = re.compile(r"\[VT-D\](?:DMAR|UNKNOWN): reason ([0-9a-f]{2}) - .{1,100}")
_AMD = re.compile(
    rf"AMD-Vi: IO_PAGE_FAULT: {_SBDF} d\d{{1,5}} addr {_AT} flags (?:0x)?(?P<flags>[0-9a-f]{{1,4}})[ A-Z?]*"
)
_RW, _INTERRUPT = 0x20, 0x08  # of IO_PAGE_FAULT's flags
#  VT-d's reasons: 01h to 03h are about root and context entries, 05h and 06h about permissions of a page
_REASONS: Mapping[int, Cause] = {
    **dict.fromkeys((1, 2, 3), Cause.ENTRY),
    4: Cause.LIMIT,
    **dict.fromkeys((5, 6), Cause.PAGE),
    **dict.fromkeys((7, 8, 9, 10, 11, 12, 13), Cause.TABLES),
}
#  events of AMD-Vi that have a device's id in their first word and an address in their last two
_EVENTS: Mapping[str, Cause] = {
    "ILLEGAL_DEV_TABLE_ENTRY": Cause.ENTRY,
    "INVALID_DEV_REQUEST": Cause.ENTRY,
    "DEV_TABLE_HW_ERROR": Cause.TABLES,
    "PAGE_TABLE_HW_ERROR": Cause.TABLES,
}
_NAMES = "|".join(_EVENTS)
_AMD_EVENT = re.compile(rf"(?P<name>{_NAMES}) (?P<words>[0-9a-f]{{8}}(?: [0-9a-f]{{8}}){{3}})")
_STARTS = re.compile(rf"\[VT-D\]|AMD-Vi: IO_PAGE_FAULT|(?:{_NAMES}) ")
_HINTS = re.compile(rf"Request device|IO_PAGE_FAULT|{_NAMES}")
_LEVELS = {"none": 0, "error": 1, "warning": 2, "info": 3, "debug": 4, "all": 4}
_WARNING = 1  # is printed if its number is less than a threshold


def parse_faults(text: str) -> Iterator[Fault]:
    """Yield the refused accesses in a text of Xen's console that begins and ends with a whole line, in order.

    Refused interrupts are left out. A reason belongs to the access right before it; if Xen has suppressed
    messages between the two, nobody knows whose it is, and it is left out. The segment is not in AMD-Vi's
    events other than page faults: it is taken for 0.
    """
    if _HINTS.search(text) is None:
        return
    waiting: Fault | None = None  # an access of VT-d, whose reason may follow
    for line in map(str.rstrip, whole_lines(text.split("\n"), _STARTS)):
        if waiting is not None:
            reason = _VTD_REASON.fullmatch(line)
            cause = _REASONS.get(int(reason[1], 16), Cause.UNTOLD) if reason else waiting.cause
            yield attrs.evolve(waiting, cause=cause)
            waiting = None
        if match := _VTD.fullmatch(line):
            waiting = Fault(parse_sbdf(match["sbdf"]), (match["kind"] or "").lower(), int(match["at"], 16))
        elif match := _AMD.fullmatch(line):
            flags = int(match["flags"], 16)
            if not flags & _INTERRUPT:
                access = "write" if flags & _RW else "read"
                yield Fault(parse_sbdf(match["sbdf"]), access, int(match["at"], 16), Cause.PAGE)
        elif match := _AMD_EVENT.fullmatch(line):
            words = [int(word, 16) for word in match["words"].split()]
            device, at = words[0] & 0xFFFF, words[3] << 32 | words[2]
            sbdf = sbdf_from_devfn(0, device >> 8, device & 0xFF)
            yield Fault(sbdf, "", at, _EVENTS[match["name"]])
    if waiting is not None:
        yield waiting


_BUILT_IN = re.compile(r"^\(XEN\) (?:\[[^\]\n]*\] )?Built-in command line: (.*)$", re.MULTILINE)


def hearing_of(command_line: str | None, first_text: str = "") -> Hearing:
    """Return what may be heard on the console of a Xen with this command line; None if it is not known.

    `first_text` is what the ring held first: Xen prints there the command line that was built into it.
    A level that was changed later (`xl set-parameters`, a debug key) is not seen.
    """
    if command_line is None:
        return Hearing(believed=False, vtd=True, why="Xen does not tell its command line")
    built_in = _BUILT_IN.search(first_text)
    line = f"{built_in[1]} {command_line}" if built_in is not None else command_line
    if flag_in(line, "console_to_ring"):
        return Hearing(believed=False, vtd=True, why="console_to_ring is on Xen's command line")
    levels = value_in(line, "guest_loglvl")
    if levels is not None and max(_level(word) for word in levels.split("/")) <= _WARNING:
        return Hearing(believed=True, vtd=False, why=f"guest_loglvl={levels} is on Xen's command line")
    return Hearing(believed=True, vtd=True)


def _level(word: str) -> int:
    """Return the threshold that a word of guest_loglvl sets: messages of lower numbers are printed."""
    return next((number for name, number in _LEVELS.items() if word.startswith(name)), _LEVELS["warning"])
