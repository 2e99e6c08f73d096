"""JSON objects of the control socket: status, mappings, explanation, and one action. Plain values only."""

from collections.abc import Iterable, Iterator
from typing import Any

from pcipt.engine.engine import Engine
from pcipt.engine.views.protection import root_windows
from pcipt.engine.views.views import Views
from pcipt.errors import NoSuchDeviceError
from pcipt.firmware.passthrough.host_view import host_to_json
from pcipt.pci import Finding, Sbdf
from pcipt.pci.space.shortage import CODES, helpful_findings, lacks_addresses
from pcipt.pci.space.windows import NO_ROOTS
from pcipt.remap.actions import Outcome
from pcipt.remap.explain import json_from_explanation
from pcipt.remap.guard.next_steps import next_step
from pcipt.remap.kinds.domains import CutOrphans, domains
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.writes.json_view import json_from_action
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.releases import Version, basis, uncertain

LAST_ACTIONS = 10
NO_MAP = (
    "There are no mappings: dom0 is PV. Linux maps device memory itself there, and Xen keeps no 1:1 map "
    "for it."
)
UNSETTLED = Finding(
    "unsettled", "something has changed, and pcipt has not compared it yet; ask again in a moment"
)


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return an action and its outcome as a JSON object: the action, result, guard's rule and detail.

    "rule" and "detail" are None if there is none. "next" is what can be done about a refusal, else None.
    """
    action = outcome.action
    step = next_step(action.word, outcome.rule, str(action.sbdf)) or None
    told = {"result": outcome.result.value, "rule": outcome.rule or None, "detail": outcome.detail or None}
    return {**json_from_action(action), **told, "next": step}


def actions_to_json(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return the JSON objects of the actions in `outcomes`, in their order.

    An action that is not applicable is left out: this kind of dom0 has nothing that the action could change.
    """
    return [outcome_to_json(outcome) for outcome in outcomes if outcome.is_applicable]


def health_of(engine: Engine, *, besides_requests: bool = False) -> str:
    """Return "degraded" if there is a finding, work is due, messages were lost, or Xen could not be asked.

    Return "healthy" otherwise. If `besides_requests` is True, due work is ignored if all its reasons are a
    timer or a user's request.
    """
    unsettled = engine.unsettled(besides_requests=besides_requests)
    return "degraded" if engine.finding_count or unsettled else "healthy"


def cut_to_json(cut: CutOrphans) -> dict[str, Any]:
    """Return the orphans that Linux made of one segment as a JSON object."""
    return {
        "controller": str(cut.controller) if cut.controller is not None else None,
        "sbdf": str(cut.subject),
        "text": cut.text,
        "panics": cut.panics,
        "functions": [{"sbdf": str(sbdf), "listed_as": str(listed)} for sbdf, listed in cut.functions],
    }


def mappings_to_json(engine: Engine, identity: XenIdentity) -> dict[str, Any]:
    """Return the object of `pcipt mappings --json`: every range that is or may be mapped, with its BAR.

    The ranges are in order of their address, then of the function's place and the BAR. A PV dom0 has none:
    "why" says so there, and is None on a PVH dom0.
    """
    held = sorted(_held(engine, identity), key=lambda each: (each.frames, each.place, each.bar))
    inside: dict[Sbdf | None, list[str]] = {}
    for domain in domains(engine.machine, engine.views.state.bars):
        inside.setdefault(domain.controller, []).append(f"{domain.segment:x}")
    mappings = [_mapping(each, engine) | {"segments": inside.get(each.sbdf, [])} for each in held]
    why = NO_MAP if identity.dom0 is Dom0Kind.PV else None
    return {"version": 1, "dom0": identity.dom0.value, "why": why, "mappings": mappings}


def _held(engine: Engine, identity: XenIdentity) -> list[MappedRun]:
    """Return the ranges of the 1:1 map that the ledger holds; none on a PV dom0.

    The ledger of a PV dom0 has the ranges that were planned, so that each plan is made once. Nothing is
    mapped there.
    """
    return [] if identity.dom0 is Dom0Kind.PV else list(engine.ledger.mapped)


def explanation_to_json(engine: Engine, sbdf: Sbdf, *, as_pvh: bool = False) -> dict[str, Any]:
    """Return the object of `pcipt explain --json` for one function, which is read again now.

    With `as_pvh` the desired state is that of a PVH dom0, whatever this dom0 is.

    Raises: NoSuchDeviceError if the machine does not have the function.
    """
    try:
        return {"version": 1, **json_from_explanation(engine.explain(sbdf, as_pvh=as_pvh))}
    except KeyError as error:
        raise NoSuchDeviceError(str(sbdf)) from error


def _mapping(held: MappedRun, engine: Engine) -> dict[str, Any]:
    """Return one mapped range as a JSON object.

    If the range is stale (no BAR decodes there), "by" is "stale". "path" is None if the function has no known
    PCI path.
    """
    stale = engine.views.state.is_stale(held)
    return {
        "start": hex(held.frames.range.start),
        "size": held.frames.range.size,
        "sbdf": str(held.sbdf),
        "path": held.place if held.place != str(held.sbdf) else None,
        "bar": held.bar,
        "by": "stale" if stale else held.by.value,
        "since": held.since,
        "state": held.state.value,
    }


def release_to_json(version: Version) -> dict[str, Any]:
    """Return what is known of this version of Xen: its numbers, its basis, what is assumed of it.

    "safer" lists the facts whose answer depends on the unknown third number, each with the answer that is
    taken because it is the safer one.
    """
    return {
        "version": str(version),
        "basis": basis(version),
        "safer": [{"fact": fact.name, "taken": fact.safer} for fact in uncertain(version)],
    }


def _unassigned(views: Views) -> Iterator[tuple[Sbdf, Finding]]:
    """Yield the notes about BARs without an address, each with its function, in address order."""
    lacking = [each for each in views.machine.functions.values() if lacks_addresses(each)]
    roots = root_windows(views.host) if lacking else NO_ROOTS
    for function in lacking:
        for finding in helpful_findings(views.machine, function, roots):
            if finding.code in CODES and finding.is_note:
                yield function.sbdf, finding


def status_to_json(
    engine: Engine, identity: XenIdentity, mode: str, hotplug: dict[str, int], watch: dict[str, Any]
) -> dict[str, Any]:
    """Return the object of `pcipt status --json` without the number of monitors.

    `mode` is the mode of the settings. `hotplug` and `watch` are the counters of the hot-plug source and of
    the source of writes. The findings are those about no function, then the others by address. "unassigned"
    are the notes about BARs without an address that the function itself can do without. The actions
    are the last LAST_ACTIONS, oldest first. "reserved" counts the reserved regions and those that several
    functions share.
    """
    findings = [*engine.findings, *([(None, UNSETTLED)] if engine.unsettled() else [])]
    functions, held = engine.machine.functions, _held(engine, identity)
    regions = engine.views.reserved.scopes
    return {
        "version": 1,
        "health": health_of(engine),
        "since": engine.since,
        "dom0": identity.dom0.value,
        "xen": identity.full,
        "xen_release": release_to_json(identity.version),
        "host": host_to_json(engine.host) if engine.host is not None else None,
        "pf_fixup": engine.views.pf_fixup.word,
        "mode": mode,
        "counts": {
            "functions": len(functions),
            "known_to_xen": sum(sbdf in engine.view.known for sbdf in functions),
            "added_by_us": len(engine.added),
            "ghosts": len(engine.ghosts),
            "orphans": len(engine.view.orphans),
            "findings": len(findings),
            "mappings": len(held),
            "stale": sum(map(engine.views.state.is_stale, held)),
            "reserved": len(regions),
            "reserved_shared": sum(len(functions) > 1 for functions in regions.values()),
        },
        "findings": [
            {"sbdf": str(sbdf) if sbdf is not None else None, **f.to_json(sbdf)} for sbdf, f in findings
        ],
        "unassigned": [{"sbdf": str(sbdf), **f.to_json(sbdf)} for sbdf, f in _unassigned(engine.views)],
        "given_away": [
            {"sbdf": str(sbdf), "owner": engine.view.owner(sbdf)}
            for sbdf in sorted({*engine.given_away, *engine.view.elsewhere})
        ],
        "cut_segments": [cut_to_json(each) for each in engine.views.cut_orphans()],
        "actions": [
            {"when": record.when, **outcome_to_json(record.outcome)}
            for record in list(engine.records)[-LAST_ACTIONS:]
        ],
        "hotplug": hotplug,
        "watch": watch,
    }
