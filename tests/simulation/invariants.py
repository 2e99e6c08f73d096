"""What must hold, however a simulation goes."""

import json

from pcipt.daemon.store import FileStore
from pcipt.remap.ledger_json import ledger_to_json
from pcipt.xen.interface import OwnerKind
from tests.engine.test_laws import changes_nothing


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Audit:
    """Looks at a simulation from outside: at Xen, at the disk, and at what the daemon answers.

    `blurred` is True if something was lost, or happened while no daemon ran: pages may be mapped then of
    which nobody can know. They may stay, but the service may not call itself healthy while they do.
    """

    def __init__(self, simulation):
        self._simulation = simulation
        self.blurred = False
        self._monitor = None

    def blind(self):
        """The daemon has ended: whoever listened must begin anew."""
        self.close()

    def close(self):
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def always(self):
        """Hold what holds at every moment."""
        fatal = self._simulation.machine.xen.catastrophe
        self._hold(fatal is None, f"catastrophe: {fatal}")

    def honest(self):
        """Ask for the status: "healthy" only if all is as the definition says. To be used as a generator."""
        told = yield from self.ask("Status")
        if told is None:
            return
        self.always()
        simulation, machine = self._simulation, self._simulation.machine
        simulation.tell(f"  {told['health']}: {sorted(f['code'] for f in told['findings'])}")
        if told["health"] == "healthy" and simulation.performs:
            missing, stale = machine.mistakes() if machine.xen.p2m is not None else ([], [])
            self._hold(not missing, f"healthy, and {pages(missing)} are not mapped")
            self._hold(not stale, f"healthy, and {pages(stale)} are mapped for nobody")
            differ = machine.list_differs()
            self._hold(not differ, f"healthy, and Xen's list differs: {', '.join(map(str, differ))}")
        self._count(told)

    def settled(self):
        """Hold everything: all was compared, and nothing fails any more."""
        yield from self.honest()
        told = yield from self.ask("Status")
        simulation, machine = self._simulation, self._simulation.machine
        if told is None:
            raise BrokenError("no answer though nothing fails")
        named = {finding["sbdf"] for finding in told["findings"]}
        if machine.xen.p2m is not None:
            missing, stale = machine.mistakes()
            has_moved = any(finding["code"] == "moved" for finding in told["findings"])
            missing = sorted(set(missing) - machine.unreached()) if has_moved else missing
            missing = sorted(set(missing) - machine.given_up_unseen())
            self._hold(not missing, f"{pages(missing)} are not mapped")
            undecided = machine.undecided() | machine.doubtful() | machine.told(named)
            left = sorted(set(stale) - undecided)
            lost = self.blurred or any(f["code"] == "messages-lost" for f in told["findings"])
            self._hold(lost or not left, f"{pages(left)} are mapped for nobody")
            self._hold(not stale or told["health"] == "degraded", "stale pages and no finding")
            reset = {f["sbdf"] for f in told["findings"] if f["code"] == "reset-behind-vpci"}
            false = machine.falsely_held(reset)
            self._hold(not false, f"the ledger says that {pages(false)} are mapped")
        else:
            self._hold(
                not any(call.op.name in {"MAP", "UNMAP"} for call in machine.xen.calls), "PV was mapped"
            )
        said = " ".join(f"{finding['sbdf']} {finding['text']}" for finding in told["findings"])
        differ = [sbdf for sbdf in machine.list_differs() if str(sbdf) not in said]
        self._hold(not differ, f"Xen's list differs and no finding says so: {', '.join(map(str, differ))}")
        orphans = [s for s, d in machine.xen.devices.items() if d.owner.kind is OwnerKind.NOBODY]
        self._hold(not orphans or told["health"] == "degraded", f"orphans and no finding: {orphans}")
        self._same_on_disk(simulation)

    def _same_on_disk(self, simulation):
        """Read the state directory as the next daemon would: it must find what this one knows."""
        store = FileStore(simulation.state)
        on_disk, _, findings = store.load(simulation.machine.linux.boot_id)
        store.close()
        self._hold(not findings, f"the next start finds {[finding.text for finding in findings]}")
        pv = simulation.machine.xen.p2m is None  # on which what is noted as mapped means nothing
        found, kept = (_plain(ledger, pv=pv) for ledger in (on_disk, simulation.daemon.engine.ledger))
        more, less = sorted(found - kept), sorted(kept - found)
        self._hold(not more and not less, f"only on disk: {more}, only in memory: {less}")

    def _count(self, told):
        """Hold the counters of the status against what was sent."""
        machine = self._simulation.machine
        for name, counted, sent in (
            ("writes", told["watch"]["writes"], machine.written),
            ("lost writes", told["watch"]["lost"], machine.lost),
            ("forged messages", told["hotplug"]["forged"], machine.forged),
            ("overruns", told["hotplug"]["overruns"], machine.overruns),
        ):
            self._hold(counted == sent, f"{name}: {counted} counted, {sent} sent")

    def ask(self, method):
        """Ask one thing; return the answer, None if the daemon has ended meanwhile. A generator."""
        asked = self._simulation.daemon
        client = self._simulation.client()
        client.ask(method)
        yield 0.0
        answers = client.read()
        client.close()
        return answers[0].get("parameters") if answers and asked is self._simulation.daemon else None

    def _hold(self, holds, text):
        if not holds:
            raise BrokenError(text)


def _plain(ledger, *, pv):
    """Give what a ledger says, each thing as one text."""
    told = ledger_to_json(ledger)
    runs = [] if pv else [{"run": run} for run in told["mappings"]]
    entries = [
        entry
        for entry in told["entries"]
        if not changes_nothing(entry) and not (pv and "reserved" in entry["action"])
    ]
    for each in [*entries, *(run["run"] for run in runs)]:
        each.pop("since", None)
        each.pop("reason", None)
    return {json.dumps(each, sort_keys=True) for each in [*entries, *runs]}


def pages(numbers):
    return f"{len(numbers)} pages from {numbers[0] << 12:#x}" if numbers else "no pages"
