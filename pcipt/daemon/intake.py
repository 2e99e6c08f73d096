"""Adds the functions of hot-plug messages and of configuration writes to the engine's queue.

A message is a reason to read a function, never a fact: sysfs and the registers are read when the function is
reconciled.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from pcipt.daemon.watcher import Watch
from pcipt.engine.engine import Engine
from pcipt.engine.queue import REGIONS, Reason
from pcipt.host.uevents import GuestsChanged, HostEvent, Rescan
from pcipt.pci import Sbdf

#  the kernel's word: why the function is looked at; any other word may mean another owner
REASONS: Mapping[str, Reason] = {"add": Reason.APPEARED, "remove": Reason.DISAPPEARED}

# seconds in which the kernel's message of a removal follows the message that its driver was unbound
LEAVING = 0.5

TellHotplug = Callable[[Sbdf, str, Sbdf | str], None]
TellLoss = Callable[[str, int | None], None]


class Hotplug(Protocol):
    """A source of the kernel's hot-plug messages; `UeventSource` is the real one.

    `overruns` counts errors of the socket. `gaps` counts calls of `read` that found sequence numbers missing.
    At each of these events messages may have been lost. `forged` counts messages that were dropped because
    the kernel did not send them.
    """

    overruns: int
    gaps: int
    forged: int

    def fileno(self) -> int: ...

    def read(self) -> list[HostEvent]: ...

    def close(self) -> None: ...


class Intake:
    """Adds the functions of hot-plug messages and of configuration writes to the engine's queue.

    `quiet` returns a number of seconds: work is due when no further message or write has arrived for that
    time, at the latest one second after the first one. `tell_hotplug` is called for each function that a
    message is about, with three arguments: the function, the kernel's word (add, remove, …) or "owner", and
    the function's place (its PCI path, or its address if the path is not known). `tell_loss` is called with a
    text that says what was lost, and with the number of lost records (None: unknown).
    """

    def __init__(
        self, engine: Engine, hotplug: Hotplug, watch: Watch, quiet: Callable[[], float],
        tell_hotplug: TellHotplug, tell_loss: TellLoss,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._hotplug = hotplug
        self._watch = watch
        self._quiet = quiet
        self._tell_hotplug = tell_hotplug
        self._tell_loss = tell_loss
        watch.on_written = self._written
        watch.on_lost = self.lost_writes

    def take_messages(self) -> None:
        """Take all hot-plug messages that have arrived; add the function of each to the engine's queue.

        A message that guests have changed adds all functions that are bound to xen-pciback. If messages may
        have been lost, EVERYTHING (the whole machine) is added.

        Raises: UnsupportedError if the source of messages broke and cannot be opened again.
        """
        for event in self._hotplug.read():
            if isinstance(event, Rescan):
                self._tell_loss(event.reason, None)
                self._engine.add_everything(Reason.LOST, quiet=self._quiet())
            elif isinstance(event, GuestsChanged):
                for sbdf in self._engine.given_away:
                    self._message(sbdf, "owner")
            else:
                self._message(event.sbdf, event.action)

    def take_writes(self) -> None:
        """Take all configuration writes that have arrived.

        Each function that must be read again because of a write is added to the engine's queue. If records of
        writes were lost, EVERYTHING (the whole machine) is added.
        """
        self._watch.take()

    def _message(self, sbdf: Sbdf, action: str) -> None:
        """Announce one message about a function and add this function to the queue.

        `action` is the kernel's word, or "owner" if the owner may have changed. After "unbind" the work
        waits at least LEAVING seconds, because the function may be removed next. Reserved regions do not wait
        for a function that leaves xen-pciback, because its former driver may be bound next.
        """
        self._tell_hotplug(sbdf, action, self._engine.views.state.place_at(sbdf) or sbdf)
        quiet = max(self._quiet(), LEAVING) if action == "unbind" else self._quiet()
        leaves = action == "unbind"
        self._engine.add(sbdf, REASONS.get(action, Reason.OWNER), quiet=quiet, leaves=leaves)
        if leaves and self._engine.views.given([sbdf]):
            self._engine.add(REGIONS, Reason.UNBOUND)

    def _written(self, sbdf: Sbdf) -> None:
        """Add to the queue a function that must be read again because of a write."""
        self._engine.add(sbdf, Reason.WRITTEN, quiet=self._quiet())

    def lost_writes(self, count: int) -> None:
        """Announce that `count` records of writes to config space were lost; add EVERYTHING to the queue."""
        self._tell_loss("records of configuration writes were lost", count)
        self._engine.add_everything(Reason.WRITTEN, quiet=self._quiet())
