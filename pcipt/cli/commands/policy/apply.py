"""Release the functions that the policy keeps for guests, as `pcipt release` does.

At boot the systemd unit pcipt-policy.service runs this command, after the hook in the initramfs has kept
dom0's drivers away. The command may run again at any time: a function that a guest has stays with the guest.
If another device is in the place of the expected device, the command does not touch it. If a driver of dom0
has a function, the command releases it only with --from-drivers.

Exit codes: 0 done, 1 failed, 3 the daemon is not running, 4 a device is not the expected device, or a
function stays with its driver, 5 not root.
"""

import argparse

from pcipt.cli.commands.passthrough import release
from pcipt.cli.machine.client import call
from pcipt.cli.machine.handover import complain, owners_in
from pcipt.cli.machine.policy import add_policy_arguments, complaints_of, see
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.host.policy.caught import HOOK, read_caught
from pcipt.host.toolstack import PCIBACK, Toolstack
from pcipt.pci import Sbdf

DEGRADED = 4
EXAMPLES = (
    ("pcipt policy apply --dry-run", "what would be done"),
    ("pcipt policy apply --from-drivers", "release the functions now, without a reboot"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(force=False)
    parser.add_argument("--dry-run", action="store_true", help="show verdicts and steps; change nothing")
    parser.add_argument("--from-drivers", action="store_true", help="also take functions from dom0's drivers")
    add_policy_arguments(parser)
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    resolutions = see(args).resolutions
    complaints = complaints_of(resolutions)
    owners = owners_in(call(args.socket, "Status"))
    kept = [
        each.kept
        for each in resolutions
        if each.kept is not None and not owners.get(str(each.kept), "").startswith("guest")
    ]
    chosen = _without_drivers(args, kept, complaints)
    for text in complaints:
        complain(text)
    code = 0
    if chosen:
        args.sbdf = [str(sbdf) for sbdf in chosen]
        code = release.run(args)
    return code or (DEGRADED if complaints else 0)


def _without_drivers(args: argparse.Namespace, kept: list[Sbdf], complaints: list[str]) -> list[Sbdf]:
    """Return the functions of `kept` that may be released, and say on stderr what caught each.

    A function that another driver than xen-pciback has is left out, and added to `complaints`, unless the
    user gave --from-drivers.
    """
    toolstack, caught, chosen = Toolstack(args.root), read_caught(args.root), []
    for sbdf in sorted(kept):
        driver = toolstack.driver(sbdf)
        if driver not in (None, PCIBACK) and not args.from_drivers:
            complaints.append(
                f"{sbdf} is not released: the driver {driver} has it already; run `pcipt policy apply "
                "--from-drivers`, or make the initramfs anew and reboot; if the driver is built into the "
                "kernel, add the line of `pcipt policy snippet --kernel` to dom0's command line"
            )
            continue
        if not args.json:
            by = HOOK if sbdf in caught else "xen-pciback.hide or xl" if driver == PCIBACK else "nothing"
            complain(f"{sbdf}: {by} kept dom0's drivers away")
        chosen.append(sbdf)
    return chosen
