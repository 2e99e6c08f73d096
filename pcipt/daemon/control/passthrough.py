"""The daemon's part of `release`, `reclaim` and `check`: functions that change their owner.

The commands hand functions over by xl; the daemon asks Xen for the owner and does not believe a command. A
reclaim keeps the reserved regions of its function in dom0 as long as its connection is open: if the command
is killed, the regions are withdrawn again.
"""

from collections.abc import Callable, Collection
from typing import Any

from pcipt.daemon.control.connection import Subscription
from pcipt.daemon.control.status import actions_to_json
from pcipt.engine.engine import Engine
from pcipt.engine.views.policy.ports import admit
from pcipt.engine.views.regions import kept_of
from pcipt.errors import StateError, UnsupportedError
from pcipt.firmware.regions.regions import Mapped
from pcipt.pci import Frames, Sbdf
from pcipt.remap.actions import Outcome
from pcipt.remap.kinds.ports import port_above
from pcipt.remap.plan_reserved import Kept

MAPPED = {
    Kept.BY_XEN: Mapped.BY_XEN,
    Kept.RESTORED: Mapped.BY_PCIPT,
    Kept.WITHDRAWN: Mapped.WITHDRAWN,
    Kept.LOST: Mapped.UNKNOWN,
    Kept.DOUBTFUL: Mapped.UNKNOWN,
}


class Passthrough:
    """The handlers of `Release`, `Reclaim`, `Admit` and `Guests`.

    `look` reconciles functions: it asks Xen who owns them, acts on the answer, and returns the outcomes.
    `soon` makes the loop call a function in its next turn.
    """

    def __init__(
        self,
        engine: Engine,
        look: Callable[[Collection[Sbdf]], list[Outcome]],
        soon: Callable[[Callable[[], object]], None],
    ) -> None:
        self._engine = engine
        self._look = look
        self._soon = soon

    def release(self, sbdf: Sbdf) -> dict[str, Any]:
        """Ask Xen for the present owner of a function. Withdraw or restore the function's reserved regions if
        this owner requires it.

        Return the reply to `Release`: the owner, the reserved regions and the actions. A failed action is in
        the reply; it raises nothing.
        """
        return self._told(sbdf, self._look([sbdf]))

    def reclaim(self, sbdf: Sbdf) -> Subscription:
        """Restore the reserved regions of a function, and keep them until the returned subscription ends.

        The subscription has one event, the reply: the owner, the reserved regions and the actions. When the
        subscription ends, the regions are withdrawn again, except those that a device of dom0 needs.

        Raises: StateError if a region is not restored: DMA of the function's driver would fault.
        """
        held = self._engine.memory.held_regions
        regions = self._engine.views.reserved.of(sbdf)
        held.update(regions)

        def over() -> None:
            held.subtract(regions)
            for frames in [frames for frames, count in held.items() if count <= 0]:
                del held[frames]
            self._soon(lambda: self._look([sbdf]))

        told = self._told(sbdf, self._look([sbdf]))
        missing = [frames for frames in regions if self._kept(frames) not in (Kept.BY_XEN, Kept.RESTORED)]
        if missing:
            over()
            why = [action["detail"] for action in told["actions"] if action["detail"]]
            reason = "; ".join(why) or "the settings do not allow this, see `pcipt status`"
            raise StateError(
                f"{sbdf}: its reserved region {missing[0]} cannot be mapped into dom0 again: {reason}"
            )
        return Subscription(lambda _event: False, {**told, "kind": "start"}, over)

    def admit(self, sbdf: Sbdf, *, admitted: bool) -> dict[str, Any]:
        """Let dom0 have a function below a policed port from now on; with `admitted` False, not any more.

        That is on disk before the function is looked at. Return the reply to `Admit`, as `release` does.
        Raises: StateError if the function is not below a policed port, or is a bridge.
        """
        views = self._engine.views
        function = views.machine.functions[sbdf]
        if function.is_bridge or port_above(views.machine, function, views.state.below) is None:
            raise StateError(
                f"{sbdf} needs no admission: it is not a device below a port that hotplug.below names. To "
                f"give a released device back to dom0: `pcipt reclaim {sbdf}`"
            )
        admit(views, function, admitted=admitted)
        self._engine.save()
        return self._told(sbdf, self._look([sbdf]))

    def guests(self) -> dict[str, Any]:
        """Compare the memory that guests may access with the memory of their functions.

        Return the reply to `Guests`: the domain numbers of the guests that were looked at, and the findings
        in order of address. All functions that are bound to xen-pciback are reconciled too, so that new
        findings are announced.

        Raises: UnsupportedError if Xen does not tell what guests may access.
        """
        views = self._engine.views
        looked_at = views.look_at_guests()
        self._look(self._engine.given_away)  # so that new findings are told
        if views.guests.trouble is not None:
            raise UnsupportedError("permissions of guests", views.guests.trouble)
        findings = [
            {"sbdf": str(sbdf), **finding.to_json(sbdf)}
            for sbdf, found in sorted(views.guests.findings.items())
            for finding in found
        ]
        return {"version": 1, "guests": looked_at, "findings": findings}

    def _kept(self, frames: Frames) -> Kept:
        """Return the state of a reserved region."""
        return kept_of(self._engine.views, frames)

    def _told(self, sbdf: Sbdf, outcomes: list[Outcome]) -> dict[str, Any]:
        """Return the reply about a function: its owner, whether Xen tells that, its reserved regions, and
        `outcomes` as actions.
        """
        views = self._engine.views
        regions = [
            {
                "start": hex(frames.range.start),
                "size": frames.range.size,
                "mapped": (MAPPED[self._kept(frames)] if views.pvh else Mapped.NOT_APPLICABLE).value,
            }
            for frames in views.reserved.of(sbdf)
        ]
        return {
            "version": 1,
            "sbdf": str(sbdf),
            "owner": self._engine.view.owner(sbdf),
            "owner_told": self._engine.view.is_owner_told(sbdf),
            "regions": regions,
            "actions": actions_to_json(outcomes),
        }
