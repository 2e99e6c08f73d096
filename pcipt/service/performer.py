"""Performs one action: guard, ledger, hypercall, read-back, ledger; each step in this order and no other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pcipt.errors import PciptError, UnsupportedError
from pcipt.pci import Sbdf
from pcipt.pci.config import COMMAND_MEMORY
from pcipt.remap.actions import Action, AddDevice, Outcome, Refusal, Result
from pcipt.remap.guard import Facts, Precaution, check_action
from pcipt.remap.ledger import Event, Ledger
from pcipt.service.ports import Host, Keeper
from pcipt.xen.interface import DeviceFlags, Hypervisor


class Performer:
    """Holds the ledger; whoever changes Xen does it through here."""

    def __init__(self, host: Host, xen: Hypervisor, keeper: Keeper, ledger: Ledger) -> None:
        self._host = host
        self._xen = xen
        self._keeper = keeper
        self.ledger = ledger

    def perform(self, action: Action, facts: Callable[[], Facts], *, allowed: bool) -> Outcome:
        """Do one action, or say why not. `facts` reads the present state; `allowed` is the settings' word.

        Raises: OSError where the ledger cannot be written; before the hypercall, or after it: ask Xen which.
        """
        verdict = check_action(action, facts())
        if isinstance(verdict, Refusal):
            return Outcome(action, Result.REFUSED, verdict.why, verdict.rule)
        if not allowed:
            return Outcome(action, Result.PLANNED)
        self._record(action, Event.INTEND)
        why = self._try(action, verdict)
        self._record(action, Event.FAILED if why else Event.PERFORMED)
        return Outcome(action, Result.FAILED if why else Result.DONE, why)

    def settle(self, known: frozenset[Sbdf]) -> None:
        """Settle what a crash left open in the ledger; writes only if that changed it."""
        settled = self.ledger.reconciled(known)
        if settled != self.ledger:
            self._keeper.save(settled)
            self.ledger = settled

    def _record(self, action: Action, event: Event) -> None:
        after = self.ledger.step(action, event)
        self._keeper.save(after)
        self.ledger = after

    def _try(self, action: Action, precaution: Precaution) -> str:
        try:
            if precaution is Precaution.DECODE_OFF:
                with self._memory_decode_off(action.sbdf):
                    self._call(action)
            else:
                self._call(action)
            known = self._xen.known([action.sbdf])[0]
        except PciptError as error:
            return str(error)
        if known is not isinstance(action, AddDevice):
            return "Xen reported success, but " + ("still lists it" if known else "does not list it")
        return ""

    def _call(self, action: Action) -> None:
        if isinstance(action, AddDevice):
            self._xen.add_device(action.sbdf, DeviceFlags(action.extended, action.physfn))
        else:
            self._xen.remove_device(action.sbdf)

    @contextmanager
    def _memory_decode_off(self, sbdf: Sbdf) -> Iterator[None]:
        """Keep memory decode off meanwhile: a failing add of a decoding function panics Xen 4.17 (PVH).

        Raises: PciptError where the register cannot be written or does not obey; the call is then not made.
        """
        command = self._host.read_command(sbdf)
        self._host.write_command(sbdf, command & ~COMMAND_MEMORY)
        try:
            if self._host.read_command(sbdf) & COMMAND_MEMORY:
                raise UnsupportedError("memory decode", f"{sbdf} does not let it be switched off")
            yield
        finally:
            self._host.write_command(sbdf, command)
