"""Take functions back into dom0 that were given away for passthrough; their reserved regions return first.

First the daemon restores the reserved regions and keeps them in dom0. Then xl takes the functions out of
quarantine and gives each function to the driver that it had. If a step fails, all steps are undone.

SBDF is the same as for `pcipt release`.

Exit codes: 0 done (also if Xen's list of owners cannot be read; a line on stderr then says so), 1 refused or
failed, 3 the daemon is not running, 4 done, but Xen does not show the new owner, 5 not root, 6 no such
device.
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack

from pcipt.cli.commands.passthrough.check import DEGRADED
from pcipt.cli.machine.client import call, regions_held
from pcipt.cli.machine.find import chosen_functions
from pcipt.cli.machine.handover import (
    DOM0,
    ORPHANED,
    QUARANTINE,
    Json,
    Step,
    Steps,
    alone,
    complain_of_others,
    is_pv,
    look,
    owners_in,
    print_end,
    print_undone,
    require_root,
)
from pcipt.cli.machine.source import Source
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.errors import InputError, StateError
from pcipt.host.files import Depth
from pcipt.host.toolstack import PCIBACK, Toolstack
from pcipt.pci import Sbdf
from pcipt.xen.releases import DEVICE_RESET

WAITS = "waits-for-admit"  # the finding of a function that was not admitted
EXAMPLES = (
    ("pcipt reclaim 03:00.0", "give this function back to dom0 and its driver"),
    ("pcipt reclaim --dry-run '03:00.*'", "what would be done"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(root="/", dump=None)
    parser.add_argument(
        "sbdf", metavar="SBDF", nargs="+", help="address or PCI path of a function; 03:00.* is a device"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the steps; change nothing")
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    if not args.dry_run:
        require_root("reclaim", os.geteuid())
    return hand_back(args, admits=False)


def hand_back(args: argparse.Namespace, *, admits: bool) -> int:
    """Give the functions back to dom0, while no other handover runs; return the exit code.

    With `admits` the daemon is told first that dom0 may have them, which it must be for functions that have
    appeared below a policed port.
    """
    with alone(args.socket, dry_run=args.dry_run):
        return _run(args, admits=admits)


def _run(args: argparse.Namespace, *, admits: bool) -> int:
    """Do what `hand_back` does, without waiting for other handovers."""
    source = Source(args)
    machine = source.machine(Depth.HEADER)
    chosen = sorted(chosen_functions(source, machine, args.sbdf, single=True))
    status = call(args.socket, "Status")
    waiting = {each["sbdf"] for each in status["findings"] if each["code"] == WAITS}
    owners = owners_in(status)
    toolstack = Toolstack(args.root)
    if not args.dry_run:
        toolstack.require()
    for sbdf in chosen:
        if str(sbdf) in waiting and not admits:
            raise StateError(f"{sbdf} appeared below a policed port; give it to dom0: `pcipt admit {sbdf}`")
        owner = owners.get(str(sbdf), "")
        if owner.startswith("guest"):
            detach = f"`xl pci-detach {owner.removeprefix('guest ')} {sbdf}`"
            raise StateError(f"{sbdf} belongs to {owner}; detach it from the guest first: {detach}")
        if owner == ORPHANED:
            raise StateError(
                f"{sbdf} is not reclaimed: Xen lists it without an owner (orphan), and unbinding it crashes "
                f"a PVH host with Xen from {DEVICE_RESET.begins} on; `pcipt resync` adds it to Xen again"
            )
    given = [
        sbdf for sbdf in chosen if toolstack.driver(sbdf) == PCIBACK or owners.get(str(sbdf)) == QUARANTINE
    ]
    steps = Steps(dry_run=args.dry_run, quiet=bool(args.json))
    answer: Json = {"dry_run": args.dry_run, "result": "planned" if args.dry_run else "done"}
    with ExitStack() as holding:
        kept = [] if is_pv(status) else given  # from a PV dom0 no region was withdrawn
        restoring = [_restoring(sbdf, args.socket, holding) for sbdf in kept]
        try:
            admitting = [_admission(sbdf, args.socket) for sbdf in chosen] if admits else []
            ports = toolstack.guarded_ports() or frozenset() if admits else frozenset()
            taking = [
                _taking(
                    sbdf, toolstack, args.socket, owners.get(str(sbdf)),
                    [each.sbdf for each in machine.above(machine.functions[sbdf]) if each.sbdf in ports],
                )
                for sbdf in given
            ]  # fmt: skip
            steps.run([*admitting, *restoring, *taking])
        except (StateError, KeyboardInterrupt) as error:
            print_undone(error, {**answer, "steps": steps.told}, args.json)
            raise
        told = [_told(sbdf, args, owners) for sbdf in chosen]
    print_end(told, {**answer, "steps": steps.told}, args.json)
    return DEGRADED if not args.dry_run and complain_of_others(told, DOM0) else 0


def _told(sbdf: Sbdf, args: argparse.Namespace, owners: dict[str, str]) -> Json:
    """Return the daemon's reply with the function's owner now. The daemon is not asked in a dry run.

    In a dry run the owner is that in `owners`, or dom0 if `owners` does not have the function.

    Raises: StateError if an action of the daemon failed; the errors of `client.call`.
    """
    if args.dry_run:
        return {"sbdf": str(sbdf), "owner": owners.get(str(sbdf), DOM0)}
    return look(args.socket, sbdf)


def _restoring(sbdf: Sbdf, socket: str, holding: ExitStack) -> Step:
    """Return the step in which the daemon restores a function's reserved regions in dom0.

    The daemon keeps the regions until `holding` closes the connection. So the step has no undo of its own:
    after a failure `holding` closes the connection, and the daemon withdraws the regions again.
    """

    def do() -> None:
        holding.enter_context(regions_held(socket, sbdf))

    return Step(f"restore the regions that are reserved for {sbdf}", do)


def _is_away(socket: str, sbdf: Sbdf) -> bool:
    """Ask the daemon for the function's owner; return True if Xen has the function in quarantine now.

    Raises: the errors of `handover.look`.
    """
    return bool(look(socket, sbdf)["owner"] == QUARANTINE)


def _admission(sbdf: Sbdf, socket: str) -> Step:
    """Return the step in which the daemon lets dom0 have a function below a policed port from now on."""

    def tell(*, admitted: bool) -> None:
        call(socket, "Admit", {"function": str(sbdf), "admitted": admitted})

    return Step(f"admit {sbdf}", lambda: tell(admitted=True), lambda: tell(admitted=False))


def _taking(sbdf: Sbdf, toolstack: Toolstack, socket: str, owner: str | None, ports: Sequence[Sbdf]) -> Step:
    """Return the step that takes a function back from xen-pciback and binds it to its driver.

    `ports` are those above the function for which xen-pciback would take it again: Linux looks for a driver
    past them.
    `owner` is the function's owner before the step, None if the daemon did not tell it. A function of dom0
    that was only hidden at boot is not quarantined, and xl refuses to take it back: such a function is
    unbound from xen-pciback without xl. A function that the initramfs has kept for xen-pciback alone is for
    any driver from now on; at the next boot the policy keeps it again. Undoing brings back the state before
    the step.
    """
    hidden: list[Sbdf] = []
    overridden = toolstack.is_overridden(sbdf)

    def do() -> None:
        if overridden:
            toolstack.override(sbdf, on=False)
        try:
            toolstack.take_back(sbdf)
        except InputError:
            if owner != DOM0 or toolstack.driver(sbdf) != PCIBACK:
                raise
            hidden.append(sbdf)
            toolstack.let_go(sbdf, None)
            toolstack.probe_past(sbdf, ports)
            return
        if (ports or overridden) and toolstack.driver(sbdf) is None:  # it had none that xl could remember
            toolstack.probe_past(sbdf, ports)

    def undo() -> None:
        if overridden:
            toolstack.override(sbdf, on=True)
        if hidden:
            toolstack.unbind(sbdf)
            toolstack.hide(sbdf)
        elif toolstack.driver(sbdf) != PCIBACK or (owner == QUARANTINE and not _is_away(socket, sbdf)):
            toolstack.give(sbdf)  # quarantines it again, even if it is still bound to xen-pciback

    return Step(f"give {sbdf} back to dom0", do, undo)
