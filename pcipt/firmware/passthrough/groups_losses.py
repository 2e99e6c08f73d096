"""Say what dom0 loses with a function: driver, disks, mounts, network interfaces, routes, ssh connections."""

from collections.abc import Iterable

from pcipt.firmware.passthrough.verdict import Evidence, Reason, Said, Unknown, Verdict
from pcipt.pci import Function, Sbdf
from pcipt.pci.raw import Use, UseKind

_SHOWN = 4

# how a use is said; `{name}` is Use.name, `{via}` is " (through NAME)" or empty
_WORDS = {
    UseKind.DISK: "disk {name}",
    UseKind.MOUNT: "the file system at {name}{via}",
    UseKind.SWAP: "swap {name}",
    UseKind.INTERFACE: "interface {name}",
    UseKind.ROUTE: "dom0's default route, by {name}{via}",
    UseKind.SSH: "an ssh connection to this host, by {name}{via}",
}
_MOUNTED = (UseKind.MOUNT, UseKind.SWAP)
_NETWORK = (UseKind.ROUTE, UseKind.SSH)


def words_of_uses(uses: Iterable[Use]) -> str:
    """Return what the uses are in words, at most four of them, what is in use now first."""
    ordered = sorted(uses, key=lambda use: not use.active)
    said = [
        _WORDS[use.kind].format(name=use.name, via=f" (through {use.through})" if use.through else "")
        for use in ordered
    ]
    more = [f"and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return ", ".join([*said[:_SHOWN], *more])


def named(sbdf: Sbdf, evidence: Evidence) -> str:
    """Return the function with the driver and everything that dom0 loses with it, as in "0000:03:00.1 (driver
    igb: interface eth1)".

    The address alone is returned if it has no driver and nothing is known to be lost.
    """
    driver = evidence.machine.functions[sbdf].driver
    uses = words_of_uses(evidence.uses.get(sbdf, ()))
    console = "a console of dom0" if sbdf in (evidence.consoles or ()) else ""
    lost = ", ".join(part for part in (console, uses) if part)
    about = ": ".join(part for part in (f"driver {driver}" if driver else "", lost) if part)
    return f"{sbdf} ({about})" if about else str(sbdf)


def losses(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for what dom0 loses with the function: WARN if dom0 uses it now, else OK.

    The root file system has a rule of its own (`function.in_use`). Yield `Unknown` for each kind of uses
    that nobody looked for.
    """
    yield from map(Unknown, evidence.unseen_uses)
    uses = [
        use for use in evidence.uses.get(function.sbdf, ()) if (use.kind, use.name) != (UseKind.MOUNT, "/")
    ]
    mounted = [use for use in uses if use.kind in _MOUNTED]
    network = [use for use in uses if use.kind in _NETWORK]
    if mounted:
        text = f"it carries {words_of_uses(mounted)}: dom0 loses that"
        yield Reason("mounted", Verdict.WARN, text, "unmount it first, and delete its line from /etc/fstab")
    if network:
        text = (
            f"it carries {words_of_uses(network)}: dom0 loses that, and so do people who reach dom0 this way"
        )
        yield Reason("network-in-use", Verdict.WARN, text, "move these uses to another interface first")
    idle = [use for use in uses if not use.active and not mounted and not network]
    if idle:
        yield Reason("dom0-loses", Verdict.OK, f"dom0 loses {words_of_uses(idle)} with it")
