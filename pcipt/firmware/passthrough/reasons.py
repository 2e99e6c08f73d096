"""The parts of a verdict: how grave it is, the kinds of guest, the reasons, and facts that are not known."""

import enum
from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.pci.notation.next_steps import next_step


class Guest(enum.Enum):
    """A kind of guest, by the word that xl's option `type` has for it."""

    PV = "pv"
    HVM = "hvm"
    PVH = "pvh"


EVERY_GUEST = frozenset(Guest)

# What can be done about a reason for which its rule has no cure. Codes of findings have their steps in
# pcipt.pci.notation.next_steps.
STEPS: Mapping[str, str] = {
    "platform": "nothing can be done: the machine does not run without it; leave it in dom0",
    "dma-alias": "nothing can be done with this device in a guest; use another one, or leave it in dom0",
    "vmd-orphans": "`reboot`, with VMD off in the firmware's setup or with Linux 6.15 or newer in dom0",
    "reserved-shared": "`pcipt rmrr` lists the devices of the region: give all of them to one guest",
    "root-filesystem-unknown": (
        "`findmnt /` shows the disk of /; leave the function in dom0 if this disk is on it"
    ),
    "policy-mismatch": "`pcipt policy list` shows what was expected there",
    "reset-specific": "`cat /sys/bus/pci/devices/{sbdf}/reset_method` must have device_specific",
}


class Verdict(enum.Enum):
    """How grave a reason is, or the whole report. A reason that only informs has the verdict OK.

    Only a whole report is UNKNOWN: what could not be looked at may speak against it.
    """

    OK = "ok"
    WARN = "warn"
    UNKNOWN = "unknown"
    REFUSE = "refuse"


GRAVEST_FIRST = (Verdict.REFUSE, Verdict.UNKNOWN, Verdict.WARN, Verdict.OK)


@attrs.frozen
class Reason:
    """One reason for the verdict.

    `code` is a stable word for programs. `cure` is text that says how to remove the cause of the reason;
    empty if there is no way. `guests` are the kinds of guest for which it holds. `place` says where the cause
    stands, for example a table, an offset and an entry. `vendor` is a line to send to the vendor of the
    machine. `xen` and `xl` are what the cure needs on Xen's command line, and in the guest's xl.cfg beside
    pci=. These four are empty if there is nothing to say.
    """

    code: str
    verdict: Verdict
    text: str
    cure: str = ""
    guests: frozenset[Guest] = EVERY_GUEST
    place: str = ""
    vendor: str = ""
    xen: str = ""
    xl: str = ""


def with_step(reason: Reason, sbdf: Sbdf) -> Reason:
    """Return a reason that speaks against a function with what can be done; unchanged if it has a cure."""
    if reason.verdict is Verdict.OK or reason.cure:
        return reason
    step = STEPS.get(reason.code, "").replace("{sbdf}", str(sbdf)) or next_step(reason.code, str(sbdf))
    return attrs.evolve(reason, cure=step)


@attrs.frozen
class Unknown:
    """A fact that a rule needs and the evidence does not contain.

    `hides` is the gravest verdict that counts while it is not known. REFUSE: the report is UNKNOWN unless
    something else refuses. WARN: it is UNKNOWN where it would be OK. OK: the fact is named, and nothing more.
    """

    what: str
    hides: Verdict = Verdict.WARN


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the gravest of some verdicts; OK if there are none."""
    return min(verdicts, key=GRAVEST_FIRST.index, default=Verdict.OK)


def by_guest(reasons: Iterable[Reason], unknown: Iterable[Unknown]) -> Mapping[Guest, Verdict]:
    """Return the verdict for each kind of guest: that of its gravest reason, or UNKNOWN (`Unknown`)."""
    missing = {each.hides for each in unknown}
    found: dict[Guest, Verdict] = {}
    for guest in Guest:
        verdict = gravest(reason.verdict for reason in reasons if guest in reason.guests)
        if verdict is not Verdict.REFUSE and Verdict.REFUSE in missing:
            verdict = Verdict.UNKNOWN
        if verdict is Verdict.OK and Verdict.WARN in missing:
            verdict = Verdict.UNKNOWN
        found[guest] = verdict
    return found
