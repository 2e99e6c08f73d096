"""What the service tells: the `status` object and one action as JSON. Plain values only."""

from typing import Any

from pcipt.remap.actions import Outcome
from pcipt.service.engine import Engine
from pcipt.xen.interface import XenIdentity

LAST_ACTIONS = 10


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "action": outcome.action.word,
        "sbdf": str(outcome.action.sbdf),
        "reason": outcome.action.reason,
        "result": outcome.result.value,
        "rule": outcome.rule or None,
        "detail": outcome.detail or None,
    }


def health_of(engine: Engine) -> str:
    return "degraded" if engine.findings else "healthy"


def status_to_json(
    engine: Engine, identity: XenIdentity, hotplug: dict[str, int], watch: dict[str, Any]
) -> dict[str, Any]:
    """Make the object of `pcipt status --json`; `hotplug` and `watch` tell of the two sources of events."""
    findings = engine.findings
    functions = engine.machine.functions
    return {
        "version": 1,
        "health": health_of(engine),
        "since": engine.since,
        "dom0": identity.dom0.value,
        "xen": identity.full,
        "mode": engine.settings.mode,
        "counts": {
            "functions": len(functions),
            "known_to_xen": sum(sbdf in engine.view.known for sbdf in functions),
            "added_by_us": len(engine.added),
            "ghosts": len(engine.ghosts),
            "orphans": len(engine.view.orphans),
            "findings": len(findings),
        },
        "findings": [
            {"sbdf": str(sbdf) if sbdf is not None else None, "code": f.code, "text": f.text}
            for sbdf, f in findings
        ],
        "actions": [
            {"when": record.when, **outcome_to_json(record.outcome)}
            for record in list(engine.records)[-LAST_ACTIONS:]
        ],
        "hotplug": hotplug,
        "watch": watch,
    }
