"""What is done when it has become quiet: daemon, replay and tests act on changes by the same few lines."""

from collections.abc import Collection, Iterable, Mapping

from pcipt.daemon.watcher import Watch
from pcipt.engine.engine import Engine
from pcipt.pci import Sbdf
from pcipt.remap.actions import Outcome

LEAVING = 0.5  # seconds in which the kernel's message of a removal follows that of the driver's unbinding


def quiet_time(settle: float, changed: Mapping[Sbdf, Iterable[str]]) -> float:
    """Tell how long it must be quiet, in seconds; `changed` holds what the kernel told, in order.

    A function that lost its driver may be about to leave: Xen has been told then, but sysfs still has it. One
    that is announced in between would stay in Xen as a ghost.
    Source: linux drivers/pci/remove.c (pci_stop_dev unbinds, pci_destroy_dev notifies Xen and then sysfs).
    """
    last = [actions[-1] for told in changed.values() if (actions := list(told))]
    return max(settle, LEAVING) if "unbind" in last else settle


def arrived(changed: Mapping[Sbdf, Iterable[str]]) -> set[Sbdf]:
    """Choose what has come, and shows no sign of leaving: it may be looked at before it is quiet."""
    words = {sbdf: set(told) for sbdf, told in changed.items()}
    return {sbdf for sbdf, told in words.items() if "add" in told and not told & {"remove", "unbind"}}


def act_on(
    engine: Engine, watch: Watch, *, written: Collection[Sbdf], plugged: Collection[Sbdf], doubt: bool
) -> list[Outcome]:
    """Act on functions that were written to, and on those that came, went or changed hands.

    With `doubt` something may have been missed: then everything is read again.
    """
    if doubt:
        outcomes = engine.reconcile(insist=False)
        watch.begin(engine.machine, engine.raws)
        return outcomes
    outcomes = engine.reread([sbdf for sbdf in written if sbdf not in plugged])
    if plugged:
        outcomes += engine.follow(plugged)
        watch.begin(engine.machine, engine.raws)
    raws = engine.raws
    watch.refresh(raws[sbdf] for sbdf in sorted(written) if sbdf in raws)
    return outcomes
