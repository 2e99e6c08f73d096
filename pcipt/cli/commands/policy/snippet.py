"""Print the lines with which other tools give functions of the policy to guests, or keep them for guests.

--xl prints lines for guests' configuration files, with the options and lines that `pcipt check` prints for a
device. --kernel prints the option for dom0's command line, which is needed if a driver is built into the
kernel. --qubes is for Qubes OS, --xapi for XCP-ng and XenServer. The lines have the present addresses: print
them again after a change of hardware.

Exit codes: 0 the lines have all functions, 4 a function is missing or is not the expected device.
"""

import argparse
from collections.abc import Sequence

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.handover import complain
from pcipt.cli.machine.policy import LIVE, NOTHING_KEPT, add_policy_arguments, complaints_of, see
from pcipt.cli.machine.source import Source
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.cli.text.render import print_json, say_nothing
from pcipt.firmware.passthrough.check import check_functions
from pcipt.firmware.passthrough.verdict import RELAXED
from pcipt.pci.policy.resolve import Resolution
from pcipt.pci.policy.snippets import For, Needs, lines_for

DEGRADED = 4
EXAMPLES = (
    ("pcipt policy snippet --xl", "the lines pci = [ … ], one for each guest"),
    ("pcipt policy snippet --kernel", "xen-pciback.hide= for dom0's command line"),
)
_ABOUT = {
    For.XL: "lines for xl's configuration files",
    For.KERNEL: "the option for dom0's kernel",
    For.QUBES: "the option and the commands for Qubes OS",
    For.XAPI: "the commands for XCP-ng and XenServer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tool = parser.add_mutually_exclusive_group(required=True)
    for each, about in _ABOUT.items():
        tool.add_argument(f"--{each.value}", dest="tool", action="store_const", const=each, help=about)
    add_policy_arguments(parser)
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    resolutions = see(args).resolutions
    needs = _needs(args, resolutions) if args.tool is For.XL else None
    lines = lines_for(args.tool, resolutions, needs)
    if args.json:
        print_json({"for": args.tool.value, "lines": lines}, args.json)
    else:
        if not resolutions:
            say_nothing(NOTHING_KEPT)
        for line in lines:
            print(line)
    complaints = complaints_of(resolutions)
    for text in complaints:
        complain(text)
    return DEGRADED if complaints else 0


def _needs(args: argparse.Namespace, resolutions: Sequence[Resolution]) -> Needs:
    """Return what the functions that are kept need in a guest's configuration file, as `pcipt check` says."""
    kept = [each.kept for each in resolutions if each.kept is not None]
    if not kept:
        return Needs()
    evidence = gather(Source(args), args.root, args.socket if args.root == LIVE else None)
    reports = check_functions(kept, evidence.leaving(kept))
    return Needs(
        {report.sbdf: RELAXED for report in reports if report.relaxed},
        {report.sbdf: tuple(reason.xl for reason in report.reasons if reason.xl) for report in reports},
    )
