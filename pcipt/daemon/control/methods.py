"""The methods of the control socket: one handler for each, which answers from engine, watch and metrics."""

import contextlib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from pcipt.daemon.control.connection import Later, Subscription
from pcipt.daemon.control.passthrough import Passthrough
from pcipt.daemon.control.protocol import Message
from pcipt.daemon.control.server import Handler, Stream
from pcipt.daemon.control.status import (
    explanation_to_json,
    mappings_to_json,
    status_to_json,
)
from pcipt.daemon.telling.announcer import Announcer
from pcipt.daemon.telling.events import Event
from pcipt.daemon.telling.metrics import CONTENT_TYPE, Gauges, Metrics
from pcipt.daemon.watcher import Watch
from pcipt.engine.engine import Engine
from pcipt.errors import HypervisorError, NoSuchDeviceError, UnsupportedError
from pcipt.pci import PciPath, Sbdf, SlotFilter, parse_sbdf, parse_slot, parse_target
from pcipt.pci.notation.meant import suggestions
from pcipt.xen.dma_faults import There
from pcipt.xen.interface import Dom0Kind, Hypervisor


class HotplugCounters(Protocol):
    """The counters of the hot-plug source.

    `overruns` counts errors of the socket, `gaps` readings that found sequence numbers missing, and `forged`
    messages that the kernel did not send.
    """

    overruns: int
    gaps: int
    forged: int


class Answers:
    """The handlers of all methods, by name. `handlers` are for one reply, `streams` for subscriptions. A
    reply may have changed only if the result of the method's function in `stamps` has.

    `resync` begins to compare everything and returns the reply, which is given later; its argument is True
    for a dry run. `regions` returns the reply to `Rmrr`. `monitors` returns the number of subscribers. `mode`
    returns the mode of the settings.
    """

    def __init__(
        self,
        engine: Engine,
        xen: Hypervisor,
        watch: Watch,
        hotplug: HotplugCounters,
        announcer: Announcer,
        metrics: Metrics,
        resync: Callable[[bool], Later],
        regions: Callable[[], Message],
        passthrough: Passthrough,
        monitors: Callable[[], int],
        mode: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._xen = xen
        self._watch = watch
        self._hotplug = hotplug
        self._announcer = announcer
        self._metrics = metrics
        self._monitors = monitors
        self._mode = mode
        self.handlers: dict[str, Handler] = {
            "Status": self._status,
            "History": self._history,
            "Rmrr": lambda _parameters: regions(),
            "Metrics": self._text_of_metrics,
            "Check": self._check,
            "Resync": lambda parameters: resync(bool(parameters.get("dry_run", False))),
            "Mappings": lambda _parameters: mappings_to_json(engine, xen.identity),
            "Explain": self._explain,
            "Release": lambda parameters: passthrough.release(self._present(parameters)),
            "Admit": lambda parameters: passthrough.admit(
                self._present(parameters), admitted=bool(parameters.get("admitted", True))
            ),
            "Guests": lambda _parameters: passthrough.guests(),
        }
        self.stamps = {"Mappings": lambda: engine.readings}
        self.streams: dict[str, Stream] = {
            "Monitor": self._monitor,
            "Reclaim": lambda parameters: passthrough.reclaim(self._present(parameters)),
        }

    def _status(self, _parameters: Message) -> Message:
        """Return the reply to `Status`."""
        counters = {name: getattr(self._hotplug, name) for name in ("overruns", "gaps", "forged")}
        watch = {**self._watch.counters(), "last_change": self._announcer.last_change}
        told = status_to_json(self._engine, self._xen.identity, self._mode(), counters, watch)
        return {**told, "monitors": self._monitors()}

    def _history(self, parameters: Message) -> Message:
        """Return the reply to `History`: the events of the function that the parameters name, oldest first.

        A function that was removed is found as long as there are events about it.

        Raises: AddressError if the address is malformed, or names more than one function; NoSuchDeviceError
                if the machine has no such function and there are no events about it.
        """
        machine, target = self._engine.machine, self._target(parameters)
        events = self._announcer.history_of(machine, target)
        if not events and target not in machine.functions:
            raise self._absent(target)
        return {"version": 1, "sbdf": str(target), "events": events}

    def _explain(self, parameters: Message) -> Message:
        """Return the reply to `Explain`. The parameter "as" may be "pvh".

        Raises: the errors of `_present`.
        """
        as_pvh = parameters.get("as") == Dom0Kind.PVH.value
        return explanation_to_json(self._engine, self._present(parameters), as_pvh=as_pvh)

    def _target(self, parameters: Message) -> Sbdf | PciPath:
        """Return the address that the parameters name, by address or by PCI path.

        If no function has the PCI path, return the path. An address is returned even if no function has it.

        Raises: AddressError if the text is malformed, or names more than one function.
        """
        machine, text = self._engine.machine, str(parameters.get("function", ""))
        target = parse_target(text)
        if isinstance(target, PciPath):
            return next((f.sbdf for f in machine.functions.values() if f.path == target), target)
        return (
            parse_sbdf(text) if isinstance(target, SlotFilter) else target
        )  # raises, and says which part is missing

    def _present(self, parameters: Message) -> Sbdf:
        """Return the address of the function that the parameters name by address or PCI path.

        Raises: AddressError if the text is malformed, or names more than one function; NoSuchDeviceError if
                the machine has no such function.
        """
        target = self._target(parameters)
        if not isinstance(target, Sbdf) or target not in self._engine.machine.functions:
            raise self._absent(target)
        return target

    def _absent(self, target: Sbdf | PciPath) -> NoSuchDeviceError:
        """Return (do not raise) the error for a missing function.

        It suggests the existing functions that may have been meant; for a PCI path it suggests nothing.
        """
        near = suggestions(self._engine.machine.functions, str(target)) if isinstance(target, Sbdf) else ()
        return NoSuchDeviceError(str(target), tuple(map(str, near)))

    def _monitor(self, parameters: Message) -> Subscription:
        """Return a subscription to the events of the functions that the filter "slot" matches.

        Events without a function are included. Without "slot" it is a subscription to all events. If the
        machine has no function that the filter matches, the first message names those that may have been
        meant ("nearest"): one may come later.

        Raises: AddressError if the filter is malformed.
        """
        text: Any = parameters.get("slot")
        if text is None:
            return Subscription(lambda _event: True)
        slot, functions = parse_slot(text), self._engine.machine.functions

        def wanted(event: Event) -> bool:
            address = event.get("sbdf")
            return address is None or slot.matches(parse_sbdf(address))

        if any(map(slot.matches, functions)):
            return Subscription(wanted)
        near = list(map(str, suggestions(functions, text)))
        return Subscription(wanted, {"version": 1, "kind": "start", "nearest": near})

    def _text_of_metrics(self, _parameters: Message) -> Message:
        """Return the reply to `Metrics`, as OpenMetrics text."""
        return {"version": 1, "content_type": CONTENT_TYPE, "text": self._metrics.text()}

    def _check(self, _parameters: Message) -> Message:
        """Return the reply to `Check`: the problems for the watchdog, an empty list if there are none.

        Xen is asked one question. An error of Xen is an answer and no problem: only a hypercall that hangs
        makes the check fail. The only problem that is returned is a source of writes that sees no writes any
        more.
        """
        with contextlib.suppress(HypervisorError, UnsupportedError):
            self._xen.known(list(islice(self._engine.machine.functions, 1)))
        blind = self._watch.blind()
        problems = [f"pcipt does not see configuration writes: {blind}"] if blind is not None else []
        return {"version": 1, "problems": problems}


def read_gauges(engine: Engine, xen: Hypervisor, watch: Watch, hotplug: HotplugCounters) -> Gauges:
    """Return the present values for the metrics: functions, findings by code, lost records, overruns, labels.

    Xen is not asked.
    """
    identity = xen.identity
    return Gauges(
        functions=len(engine.machine.functions),
        findings=Counter(finding.code for _, finding in engine.findings),
        lost_records=int(watch.counters()["lost"]),
        uevent_overruns=hotplug.overruns,
        pages_returned=engine.memory.holes.returned,
        labels={"xen": identity.full, "dom0": identity.dom0.value},
        dma_faults={there.value: engine.memory.fault_counts[there] for there in There},
    )
