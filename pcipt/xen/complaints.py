"""Parse Xen's complaints on its console: failed maps, hidden capabilities, refused interrupts. Pure.

One row of `SORTS` is one message of Xen. All messages are warnings or errors, which release builds of Xen
print. A guest chooses the text of its own lines, so pcipt never uses these lines (`whole_lines`).
Refused DMA is in `dma_faults`.
Source: the rows; include/xen/lib.h (gprintk: "d0v1 " stands before the message; DEV_BUG_PREFIX).
"""

import enum
import os
import re
from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.hints import NamedTuple
from pcipt.pci import Frames, Gfn, Sbdf, parse_sbdf
from pcipt.xen.console import whole_lines


class Code(enum.Enum):
    """The codes of findings about complaints."""

    HIDDEN = "capability-hidden"
    NOT_HIDDEN = "capability-not-hidden"
    NO_VPCI = "vpci-missing"
    NO_SETUP = "setup-failed"
    MSIX = "msix-refused"
    MAP = "vpci-map-failed"
    MISPLACED = "bar-not-mapped"
    DROPPED = "bar-write-dropped"
    RESIZE = "resize-refused"
    INTERRUPT = "interrupt-fault"
    IOMMU = "iommu-failed"
    ASSIGN = "assign-failed"


# What lasts as long as Xen has the function; all other complaints are about a moment.
LASTING = frozenset({Code.HIDDEN, Code.NOT_HIDDEN, Code.NO_SETUP, Code.MSIX})
# What vPCI did with a BAR: of no importance when vPCI has deleted its record of the function.
OF_BARS = frozenset({Code.MAP, Code.MISPLACED, Code.DROPPED, Code.RESIZE})


class Sort(NamedTuple):
    """One message of Xen: the releases that have it, its source, its text, the code of its finding."""

    releases: str
    source: str
    pattern: re.Pattern[str]
    code: Code


_SBDF = r"(?P<sbdf>[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])"
_CPU = r"d\d{1,5}v\d{1,5} "
_OWNER = r"d(?:\d{1,5}|\[[A-Z]{1,8}\])"
_HEX = r"(?:0x)?[0-9a-f]{1,16}"
_RC = r"(?P<rc>-?\d{1,5})"


def _sort(releases: str, source: str, text: str, code: Code) -> Sort:
    """Return a row. In `text`, PP is an address, PD a domain, RC an errno, HEX a number, CPU a processor."""
    words = (("PP", _SBDF), ("PD", _OWNER), ("RC", _RC), ("HEX", _HEX), ("CPU ", _CPU))
    for word, pattern in words:
        text = text.replace(word, pattern)
    return Sort(releases, source, re.compile(text), code)


# fmt: off
SORTS: tuple[Sort, ...] = (
    _sort("4.21.0 on", "vpci/vpci.c and cap.c vpci_init_capabilities",
          r"PD PP: init (?P<kind>legacy|extended) cap (?P<cap>\d{1,5}) fail rc=RC, mask it", Code.HIDDEN),
    _sort("4.21.0 on", "vpci/vpci.c and cap.c vpci_init_capabilities",
          r"PD PP: hide (?P<kind>legacy|extended) cap (?P<cap>\d{1,5}) fail rc=RC", Code.NOT_HIDDEN),
    # "Setup of vPCI failed" (pci_add_device) names no function: the orphan that it leaves tells it.
    _sort("all", "passthrough/pci.c setup_one_hwdom_device",
          r"setup of vPCI for d\d{1,5} failed: RC", Code.NO_VPCI),
    _sort("all", "passthrough/pci.c setup_one_hwdom_device",
          r"setup PP for d\d{1,5} failed \(RC\)", Code.NO_SETUP),
    _sort("all; a blank before 'type' from 4.21.0", "vpci/msix.c vpci_make_msix_hole",
          r"CPU PP: existing mapping \(mfn: [0-9a-f]{1,16} ?type: \d{1,3}\) at 0x(?P<at>[0-9a-f]{1,16})"
          r" clobbers MSIX MMIO area", Code.MSIX),
    _sort("4.19.4 on, 4.20.2 on", "vpci/msix.c init_msix",
          r"DEVICE BUG: PP: MSI-X (?:vector|PBA) table (?:with out of range BIR \d{1,3}"
          r"|at invalid BAR\d{1,3} with type \d{1,3}|offset HEX size HEX outside of BAR\d{1,3} size HEX)",
          Code.MSIX),
    _sort("4.17, 4.18", "vpci/header.c map_range",
          r"Failed to identity (?P<kind>un)?map \[(?P<first>[0-9a-f]{1,16}), (?P<last>[0-9a-f]{1,16})\]"
          r" for d\d{1,5}: RC", Code.MAP),
    _sort("4.19.0 on", "vpci/header.c map_range",
          r"Failed to (?P<kind>un)?map \[(?P<first>[0-9a-f]{1,16}) (?P<last>[0-9a-f]{1,16})\] -> "
          r"\[[0-9a-f]{1,16} [0-9a-f]{1,16}\] for PD: RC", Code.MAP),
    _sort("4.18.0 on", "vpci/header.c map_range",
          r"PD (?:XSM )?denied access to MMIO range \[(?:0x)?(?P<first>[0-9a-f]{1,16}), "
          r"(?:0x)?(?P<last>[0-9a-f]{1,16})\](?:: RC)?", Code.MAP),
    _sort("4.19.3 on, 4.20.1 on", "vpci/header.c modify_bars",
          r"CPU PP: failed to sanitize BAR#(?P<bar>\d) memory: RC", Code.MAP),
    _sort("all", "vpci/header.c modify_bars",
          r"PP: not mapping BAR \[(?P<first>[0-9a-f]{1,16}), (?P<last>[0-9a-f]{1,16})\] invalid position",
          Code.MISPLACED),
    _sort("all", "vpci/header.c bar_write",
          r"CPU PP: ignored BAR (?P<bar>\d{1,2}) write while mapped", Code.DROPPED),
    _sort("all", "vpci/header.c rom_write",
          r"CPU PP: ignored (?P<kind>ROM) BAR write while mapped", Code.DROPPED),
    _sort("4.21.0 on", "vpci/rebar.c rebar_ctrl_write",
          r"CPU PP: refuse to resize BAR#(?P<bar>\d) with memory decoding enabled", Code.RESIZE),
    _sort("all", "passthrough/vtd/iommu.c iommu_page_fault_do_one",
          r"\[VT-D\]INTR-REMAP: Request device \[PP\] fault index (?P<at>[0-9a-f]{1,16})",
          Code.INTERRUPT),
    _sort("all", "passthrough/amd/iommu_init.c parse_event_log_entry",
          r"AMD-Vi: IO_PAGE_FAULT: PP d\d{1,5} addr (?P<at>[0-9a-f]{1,16}) flags HEX"
          r"(?:(?: [A-Z]{2}| \?\?)* I(?: [A-Z]{2})*)", Code.INTERRUPT),
    _sort("all", "passthrough/pci.c iommu_enable_device, iommu_remove_device",
          r"IOMMU: (?P<kind>add|remove) PP failed \(RC\)", Code.IOMMU),
    _sort("all", "passthrough/pci.c assign_device, deassign_device",
          r"PD: (?P<kind>assign|deassign) (?:phantom function )?\(PP\) failed \(RC\)", Code.ASSIGN),
)
# fmt: on

_NUMBERS = ("capability", "bar", "at", "rc")
_SAID = re.compile(
    rf"(?P<code>[a-z-]+) {_SBDF} (?P<kind>[a-zA-Z]+|-)"
    + "".join(rf" (?P<{name}>\d{{1,20}}|-)" for name in _NUMBERS)
)
# Words of which each message has one: a text without them, such as a long list of owners, is not parsed.
_WORDS = re.compile(
    r"[Ff]ail|MSIX|MSI-X|not mapping BAR|denied|ignored|refuse to resize|Request device|_FAULT"
)
_STARTS = re.compile(
    rf"(?:{_CPU})?(?:{_OWNER}:? )?(?:[0-9a-f]{{4}}:[0-9a-f]{{2}}:|assign |deassign |XSM |denied )"
    r"|Setup of |setup |Failed to |DEVICE BUG: |\[VT-D\]|AMD-Vi: |IOMMU: "
)


@attrs.frozen
class Complaint:
    """One complaint of Xen: the parts of the message that Xen printed.

    `function` is the address in the message, None if it has none. `pages` are the pages in the message.
    `kind` is a word of the message: "un" of an unmap, "legacy" or "extended" of a capability. `capability` is
    the id of a capability, `bar` the number of a BAR, `at` an address. `rc`
    is a positive errno. A field that the message does not have is None; `kind` is then empty.
    """

    code: Code
    function: Sbdf | None = None
    pages: Frames | None = None
    kind: str = ""
    capability: int | None = None
    bar: int | None = None
    at: int | None = None
    rc: int | None = None

    @property
    def error(self) -> str:
        """Return the errno in words, or "no reason given"."""
        return os.strerror(self.rc) if self.rc else "no reason given"


def words_of(complaint: Complaint) -> str:
    """Return a lasting complaint about a function as a text for `complaint_from`; its pages are left out."""
    said = (complaint.kind or None, complaint.capability, complaint.bar, complaint.at, complaint.rc)
    words = ("-" if each is None else str(each) for each in said)
    return " ".join([complaint.code.value, str(complaint.function), *words])


def complaint_from(words: str) -> Complaint | None:
    """Return the complaint of `words_of`; None if the text is not such a one."""
    match = _SAID.fullmatch(words)
    if match is None or match["code"] not in {code.value for code in LASTING}:
        return None
    capability, bar, at, rc = (None if match[name] == "-" else int(match[name]) for name in _NUMBERS)
    kind = "" if match["kind"] == "-" else match["kind"]
    return Complaint(Code(match["code"]), parse_sbdf(match["sbdf"]), None, kind, capability, bar, at, rc)


def drop_words(kept: set[str], function: Sbdf) -> None:
    """Delete the texts of `words_of` that are about a function."""
    kept -= {words for words in kept if f" {function} " in words}


def parse_complaints(text: str) -> Iterator[Complaint]:
    """Yield the complaints in a text of Xen's console, in order; lines that cannot be parsed are left out."""
    if _WORDS.search(text) is None:
        return
    for line in whole_lines(text.split("\n"), _STARTS):
        if _WORDS.search(line) is None:
            continue
        for sort in SORTS:
            if match := sort.pattern.fullmatch(line.rstrip()):
                yield _complaint(sort.code, match.groupdict())
                break


def _complaint(code: Code, said: dict[str, str | None]) -> Complaint:
    """Return the complaint from the named parts of a message."""
    first, last = _number(said.get("first"), 16), _number(said.get("last"), 16)
    in_order = first is not None and last is not None and first <= last
    rc = _number(said.get("rc"), 10)
    return Complaint(
        code,
        function=parse_sbdf(named) if (named := said.get("sbdf")) else None,
        pages=Frames(Gfn(first), last - first + 1)
        if in_order and first is not None and last is not None
        else None,
        kind=(said.get("kind") or "").strip(),
        capability=_number(said.get("cap"), 10),
        bar=_number(said.get("bar"), 10),
        at=_number(said.get("at"), 16),
        rc=-rc if rc is not None and rc < 0 else None,
    )


def _number(digits: str | None, base: int) -> int | None:
    return int(digits, base) if digits else None
