"""Events as `pcipt monitor` and `pcipt history` show them: JSON objects with version, when and kind."""

from typing import Any

from pcipt.daemon.control.status import outcome_to_json
from pcipt.pci import Finding, Sbdf
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import Outcome
from pcipt.remap.writes.changes import Change
from pcipt.remap.writes.json_view import json_from_change
from pcipt.xen.dma_faults import DmaFault

Event = dict[str, Any]


def event_from_change(change: Change, when: str, *, read_back: bool) -> Event:
    """Return the event for a change of registers.

    "source" is "read-back" if reading back found the change, "write" if a write made it. "who" is the writer
    of the last write of the change; None if it is unknown. For a `RereadWanted` (a write that could not be
    applied) the event does not have the members that describe a change.
    """
    body = json_from_change(change) or {}
    body.pop("type", None)
    body.pop("n", None)
    writers = [cause.who for cause in change.causes if isinstance(cause, ConfigWrite)]
    who = str(writers[-1]) if writers and writers[-1] is not None else None
    return {**_head(when, "change"), **body, "who": who, "source": "read-back" if read_back else "write"}


def event_from_outcome(outcome: Outcome, when: str) -> Event:
    """Return the event for an action and its outcome, of kind "action"."""
    return {**_head(when, "action"), **outcome_to_json(outcome)}


def event_from_hotplug(sbdf: Sbdf, action: str, when: str) -> Event:
    """Return the event for a hot-plug message about a function, of kind "hotplug".

    `action` is the kernel's word: add, remove, bind, unbind, change, move, online or offline. The word
    "owner" is pcipt's own: a guest was started or stopped, so Xen is asked again who owns the function.
    """
    return {**_head(when, "hotplug"), "sbdf": str(sbdf), "action": action}


def event_from_finding(sbdf: Sbdf | None, finding: Finding, when: str, *, gone: bool) -> Event:
    """Return the event for a finding: with "state": "gone" if `gone` is True, else "new".

    `sbdf` is None if the finding is not about one function.
    """
    where = str(sbdf) if sbdf is not None else None
    body = {"sbdf": where, **finding.to_json(sbdf), "state": "gone" if gone else "new"}
    return {**_head(when, "finding"), **body}


def event_from_fault(fault: DmaFault) -> Event:
    """Return the event for refused DMA of one device, of kind "dma-fault". "text" says what lies there."""
    body = {
        "sbdf": str(fault.sbdf),
        "owner": fault.owner,
        "access": fault.access or None,
        "address": f"{fault.at:#x}",
        "cause": fault.cause.name.lower(),
        "there": fault.there.value,
        "text": fault.what,
        "count": fault.count,
    }
    return {**_head(fault.when, "dma-fault"), **body}


def event_from_loss(when: str, count: int | None, what: str) -> Event:
    """Return the event for lost events, of kind "lost".

    `what` says which events were lost; a `count` of None is an unknown number.
    """
    return {**_head(when, "lost"), "count": count, "text": what}


def _head(when: str, kind: str) -> Event:
    return {"version": 1, "when": when, "kind": kind}
