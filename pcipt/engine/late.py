"""Follows functions of which Xen was told late, after Linux had begun to use them.

A driver that was bound before has dead interrupts: without Xen's record its MSI could not be set up (PV), or
went to hardware with numbers that mean nothing to Xen (PVH), and the record begins with MSI switched off. It
stays so until the driver is bound anew. A function without a driver may have none because its probe failed
for that reason, so Linux is asked to find one. The ledger's entry of the add remembers which it was
(`Entry.late`), and so a restart does.
Source: Xen arch/x86/irq.c (map_domain_pirq), msi.c (pci_enable_msi), drivers/vpci/msix.c (init_msix).
"""

import attrs

from pcipt.engine.performer import Performer, Rehearsal
from pcipt.engine.queue import Queue, Reason
from pcipt.engine.round import Round
from pcipt.engine.views.policy.ports import port_of_waiting
from pcipt.engine.views.views import Views
from pcipt.pci import Finding, Sbdf
from pcipt.remap.actions import AddDevice, Result


def note_bound_anew(now: Round) -> None:
    """Forget late drivers that were bound anew: a message told that the function was unbound, or its driver
    is another one. This must be called before anything is announced.
    """
    unbound = {work.key for work in now.scope.work if work.leaves}
    for sbdf, driver in _late(now, in_dom0=False).items():
        function = now.views.machine.functions.get(sbdf)
        other = function is not None and function.driver not in (None, driver)
        if driver and (sbdf in unbound or other):
            _set(now, sbdf, None)


def follow_late(now: Round, performer: Performer | Rehearsal, queue: Queue, at: float) -> None:
    """Ask Linux to find a driver for each late function of the round without one; look again at the others.

    A driver that was bound when Xen was told may still give up: its probe may be going on. `at` is the time
    (seconds of the queue's clock). If Linux cannot be asked, the outcome of the add says why.
    """
    added = {
        outcome.action.sbdf: number
        for number, outcome in enumerate(now.outcomes)
        if isinstance(outcome.action, AddDevice) and outcome.result is Result.DONE
    }
    for sbdf, driver in _late(now).items():
        function = now.views.machine.functions.get(sbdf)
        if function is None or port_of_waiting(now.views, function) is not None:
            continue
        if function.driver is None:
            _set(now, sbdf, None)
            why = performer.probe(sbdf)
            if why and sbdf in added:
                outcome = now.outcomes[added[sbdf]]
                now.outcomes[added[sbdf]] = attrs.evolve(outcome, detail=f"Linux cannot find a driver: {why}")
        elif not driver:  # bound between the plan and the add, or after a restart
            _set(now, sbdf, function.driver if sbdf in added else None)
        else:
            queue.repeat(sbdf, Reason.LATE, at, now.scope.attempts_of(sbdf))


def finding_of_late(views: Views, sbdf: Sbdf) -> Finding | None:
    """Return the finding that the driver of a function has dead interrupts, None if it has not."""
    driver = views.memory.ledger.late_at(sbdf)
    if not driver or not views.view.in_dom0(sbdf):
        return None
    return Finding(
        "late-add",
        f"its driver {driver} started before Xen knew the function, so its interrupts (MSI, MSI-X) do not "
        "work. Unbind the driver and bind the driver again; if the driver cannot be unbound, reboot",
    )


def _late(now: Round, *, in_dom0: bool = True) -> dict[Sbdf, str]:
    """Return the late functions of the round, each with its driver or "".

    If `in_dom0` is True, functions that Xen does not list as dom0's are left out.
    """
    ledger, view = now.views.memory.ledger, now.views.view
    if now.everything is not None:
        found = ledger.late()
    else:
        about = sorted(now.subjects | now.scope.functions)
        found = {sbdf: driver for sbdf in about if (driver := ledger.late_at(sbdf)) is not None}
    return {sbdf: driver for sbdf, driver in found.items() if not in_dom0 or view.in_dom0(sbdf)}


def _set(now: Round, sbdf: Sbdf, driver: str | None) -> None:
    """Record the late driver of a function, None if there is none any more."""
    now.views.memory.ledger.set_late(sbdf, driver)
    now.touched = True
