"""What `pcipt monitor` and `pcipt history` show: one JSON object an event, with version, when and kind."""

from typing import Any

from pcipt.daemon.control.status import outcome_to_json
from pcipt.pci import Finding, Sbdf
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import Outcome
from pcipt.remap.writes.changes import Change
from pcipt.remap.writes.json_view import json_from_change

Event = dict[str, Any]


def event_from_change(change: Change, when: str, *, read_back: bool) -> Event:
    """Tell a change: `source` is the write that meant it, or the read-back that found it."""
    body = json_from_change(change) or {}
    body.pop("type", None)
    body.pop("n", None)
    writers = [cause.who for cause in change.causes if isinstance(cause, ConfigWrite)]
    who = str(writers[-1]) if writers and writers[-1] is not None else None
    return {**_head(when, "change"), **body, "who": who, "source": "read-back" if read_back else "write"}


def event_from_outcome(outcome: Outcome, when: str) -> Event:
    return {**_head(when, "action"), **outcome_to_json(outcome)}


def event_from_hotplug(sbdf: Sbdf, action: str, when: str) -> Event:
    """Tell what the kernel said: add, remove, bind, unbind, change, move, online, offline.

    `owner` is no word of the kernel's: a guest came or went, and who has the function is asked again.
    """
    return {**_head(when, "hotplug"), "sbdf": str(sbdf), "action": action}


def event_from_finding(sbdf: Sbdf | None, finding: Finding, when: str, *, gone: bool) -> Event:
    where = str(sbdf) if sbdf is not None else None
    body = {"sbdf": where, "code": finding.code, "text": finding.text, "state": "gone" if gone else "new"}
    return {**_head(when, "finding"), **body}


def event_from_loss(when: str, count: int | None, what: str) -> Event:
    return {**_head(when, "lost"), "count": count, "text": what}


def _head(when: str, kind: str) -> Event:
    return {"version": 1, "when": when, "kind": kind}
