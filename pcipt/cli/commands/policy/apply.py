"""Release every function that is kept for guests and is what was expected: as `pcipt release` does it.

At boot the unit pcipt-policy.service runs it, after the hook in the initramfs has kept dom0's drivers away.
It is idempotent: what a guest has is left with it. What is not as expected is not touched. A function that a
driver of dom0 has is taken from it only with --from-drivers. Exit codes: 0 done, 1 failed, 3 the daemon is
not running, 4 something is not as expected or was left with its driver, 5 not root.
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
    ("pcipt policy apply --from-drivers", "now, without another boot"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(force=False)
    parser.add_argument("--dry-run", action="store_true", help="show verdicts and steps, do nothing")
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
                f"{sbdf} has the driver {driver}, which was there before the policy: it is left alone; run "
                "`pcipt policy apply --from-drivers`, or make the initramfs anew and boot; where the kernel "
                "has the driver built in, use the line of `pcipt policy snippet --kernel`"
            )
            continue
        if not args.json:
            by = HOOK if sbdf in caught else "xen-pciback.hide or xl" if driver == PCIBACK else "nobody"
            complain(f"{sbdf}: kept from dom0's drivers by {by}")
        chosen.append(sbdf)
    return chosen
