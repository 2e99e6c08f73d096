"""Rules of passthrough about addresses: bridge windows, places of BARs, shared pages, reserved regions.

Source: PCI-to-PCI Bridge 1.2 §3.2.5.8; XSA-461 (shared pages); xl.cfg(5), rdm_policy.
"""

from collections.abc import Iterator

from pcipt.firmware.memory_map import MESSAGES, MemoryType, overlapping
from pcipt.firmware.passthrough.index import SMALLEST_BAR
from pcipt.firmware.passthrough.verdict import (
    Evidence,
    FixedRange,
    Reason,
    Rule,
    Said,
    Unknown,
    Verdict,
    names,
)
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Address, Bar, BarKind, Function, HeaderType, Range, Window, WindowKind
from pcipt.pci.space.windows import is_subtractive

if TYPE_CHECKING:
    from pcipt.firmware.regions.regions import Region, Regions

_MESSAGES = FixedRange(MESSAGES, "interrupt messages")
_RESCAN = (
    "let Linux give it another address: remove it in sysfs and rescan its bus; or boot dom0's Linux with "
    "pci=realloc"
)


def windows(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for each BAR outside the windows of a bridge above: REFUSE if it decodes, else WARN.

    The reason names the nearest such bridge. The bridges are looked at from the nearest upwards. If the
    windows of a bridge are not known, yield `Unknown` and do not look at this bridge and those above it. A
    bridge with subtractive decode (it forwards everything that no other device decodes) or with enhanced
    allocation is skipped. Yield another `Unknown` if it is not known which BARs decode. Yield nothing for a
    function on a root bus.
    """
    waiting = [*_decoding(function), *_asleep(function)]
    if function.parent is not None and any(_decoding_unknown(function)):
        yield Unknown("which BARs decode")
    for bridge in evidence.machine.above(function):
        if bridge.bridge is None:
            yield Unknown("windows of the bridge above")
            return
        if is_subtractive(bridge) or bridge.allocations:
            continue  # subtractive decode, or other registers define what it forwards
        for bar, span in tuple(waiting):
            if not any(_passes(window, bar, span) for window in bridge.bridge.windows):
                waiting.remove((bar, span))
                text = f"{_title(bar)} at {span} lies outside of the windows of the bridge {bridge.sbdf}"
                answers = "it does not answer there" if bar.decoding else "it will not answer there"
                verdict = Verdict.REFUSE if bar.decoding else Verdict.WARN
                yield Reason("bar-outside-window", verdict, f"{text} above it: {answers}", _RESCAN)


def _passes(window: Window, bar: Bar, span: Range) -> bool:
    """Return True if the window forwards all addresses `span` of the BAR.

    An I/O BAR needs an I/O window. A memory BAR needs a memory window, prefetchable or not.
    """
    same = (window.kind is WindowKind.IO) == (bar.kind is BarKind.IO)
    return same and window.base <= span.start and span.last <= window.limit


def places(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for each memory BAR that overlaps RAM, interrupt messages, an IO-APIC, or MMCFG.

    One BAR can give several reasons. A reason is REFUSE if the BAR decodes, WARN if it does not decode now. A
    BAR that does not decode is left out if it is a ROM or its size is unknown. Addresses are those of the
    processor, which a host bridge may add something to. Yield `Unknown` too for each
    fact that is not known: the memory map, the places of IO-APICs and MMCFG, which memory BARs decode.
    """
    if evidence.memory is None:
        yield Unknown("memory map")
    if evidence.fixed is None:
        yield Unknown("IO-APICs and MMCFG")
    if any(bar.kind is not BarKind.IO for bar in _decoding_unknown(function)):
        yield Unknown("which BARs decode")
    for bar, held in (*_decoding(function), *_asleep(function)):
        if bar.kind is BarKind.IO:
            continue
        span = Range(Address(held.start + function.shift.memory), held.size)
        for fixed in (_MESSAGES, *(evidence.fixed or ())):
            if fixed.range.overlaps(span):
                text = f"{_title(bar)} at {span} lies over {fixed.what} ({fixed.range})"
                yield _misplaced("bar-over-fixed", bar, text)
        over = overlapping(evidence.memory or (), span)
        ram = next((entry for entry in over if entry.type is MemoryType.RAM), None)
        if ram is not None:
            text = f"{_title(bar)} at {span} lies over RAM ({ram.range}): mapping it would lose that memory"
            yield _misplaced("bar-over-ram", bar, text)


def pages(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if a page of the function's BARs also holds BARs of functions that stay in dom0.

    Cause: a guest that gets the page gets access to the BARs of all these functions (XSA-461). Yield
    `Unknown` too if the size of a memory BAR is not known.
    """
    others = evidence.index.pages.get(function.sbdf, {})
    staying = evidence.remains(function, others)
    if staying:
        text = f"a page of its BARs, {others[staying[0]]}, also holds BARs of {names(staying)}"
        cure = "pass them together, or let Linux align BARs to pages (pci=resource_alignment=)"
        yield Reason(
            "page-shared",
            Verdict.WARN,
            f"{text}: its guest can access these BARs, too (XSA-461)",
            cure,
        )
    if any(bar.size is None and bar.kind is not BarKind.IO for bar in function.bars):
        yield Unknown("sizes of BARs")


def reserved(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for each reserved region of the function: WARN if it needs rdm_policy=relaxed (REFUSE if
    the guest's file says otherwise), else OK.

    An empty region gets no such reason, nor does one that Xen does not have for the function. Each finding of
    a region gives one more WARN reason, whether or not the region is empty; notes (`Finding.is_note`) give
    none, except that Xen has dropped the region. If the regions are not known, yield only `Unknown`.
    """
    if evidence.regions is None:
        yield Unknown("reserved regions")
        return
    from pcipt.firmware.regions.regions import DROPPED  # only root may read the tables

    for region in evidence.regions.of(function.sbdf):
        title = f"{region.kind.title} region {region}"
        dropped = [finding for finding in region.findings if finding.code == DROPPED]
        if region.range is not None and not dropped and function.sbdf not in region.misread:
            yield _reserved(function, region, evidence.regions, evidence)
        for finding in dropped:
            text = (
                f"{title}: {finding.text}; a guest does not get it, and DMA of the function there is refused"
            )
            yield Reason(finding.code, Verdict.WARN, text)
        for finding in region.findings:
            if not finding.is_note:
                yield Reason(finding.code, Verdict.WARN, f"{title}: {finding.text}")


def _reserved(function: Function, region: "Region", regions: "Regions", evidence: Evidence) -> Reason:
    """Return the reason for one reserved region: WARN if it needs rdm_policy=relaxed, else OK.

    If the guest's file is known and has not relaxed there, xl does not start the guest: REFUSE.
    """
    title = f"{region.kind.title} region {region}"
    others = [sbdf for sbdf in regions.sharers(region) if sbdf != function.sbdf]
    with_whom = f" with {names(others)}" if others else ""
    staying = evidence.remains(function, (sbdf for sbdf in others if sbdf in evidence.machine.functions))
    keeps = f"; dom0 keeps it mapped for {names(staying)}" if staying else ""
    if region.needs_relaxed:
        relaxed = evidence.relaxed(function.sbdf)
        if relaxed:
            text = f"it shares the {title}{with_whom}; rdm_policy=relaxed lets xl do that{keeps}"
            return Reason("reserved-shared", Verdict.WARN, text)
        verdict = Verdict.WARN if relaxed is None else Verdict.REFUSE
        text = f"it shares the {title}{with_whom}: xl's rdm_policy=strict (the default) refuses it{keeps}"
        return Reason("reserved-shared", verdict, text, "write rdm_policy=relaxed for it in pci= of xl.cfg")
    if others:
        return Reason("reserved-region", Verdict.OK, f"it shares the {title}{with_whom}{keeps}")
    return Reason(
        "reserved-region", Verdict.OK, f"the {title} is reserved for it alone and leaves dom0 with it"
    )


def _decoding(function: Function) -> Iterator[tuple[Bar, Range]]:
    """Yield the BARs that have an address and decode now, each with its range.

    If the size of a BAR is unknown, its range is the smallest that the specification allows (4 ports or 16
    bytes). Yield nothing for a function whose header type is unknown.
    """
    if function.header is HeaderType.UNKNOWN:
        return
    for bar in function.bars:
        if bar.address and bar.decoding:
            least = 4 if bar.kind is BarKind.IO else SMALLEST_BAR
            yield bar, bar.range or Range(bar.address, least)


def _decoding_unknown(function: Function) -> Iterator[Bar]:
    """Yield the BARs that have an address and about which it is not known whether they decode.

    These BARs are known from Linux only: the function's config space, or the physical function of a virtual
    one, cannot be read.
    """
    for bar in function.bars:
        if bar.address and bar.decoding is None:
            yield bar


def _asleep(function: Function) -> Iterator[tuple[Bar, Range]]:
    """Yield the BARs that have an address and a known size but do not decode now, each with its range.

    They decode as soon as a driver enables them. A ROM is left out, because no driver enables it by itself.
    Yield nothing for a function whose header type is unknown.
    """
    if function.header is HeaderType.UNKNOWN:
        return
    for bar in function.bars:
        if bar.address and bar.decoding is False and bar.range is not None and bar.kind is not BarKind.ROM:
            yield bar, bar.range


def _misplaced(code: str, bar: Bar, text: str) -> Reason:
    """Return the reason for a BAR at a wrong address: REFUSE if the BAR decodes, else WARN."""
    if bar.decoding:
        return Reason(code, Verdict.REFUSE, text, _RESCAN)
    return Reason(code, Verdict.WARN, f"{text}, as soon as it decodes", _RESCAN)


def _title(bar: Bar) -> str:
    """Return the name of a BAR in a sentence: "its ROM" or "BAR N"."""
    return "its ROM" if bar.kind is BarKind.ROM else f"BAR {bar.index}"


RULES: tuple[Rule, ...] = (reserved, windows, places, pages)
