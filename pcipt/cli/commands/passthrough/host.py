"""Show what this host can do: can guests be given devices at all, which kinds of guest, and if not, why.

The output shows the kind of dom0, the versions of Xen and Linux, whether Xen uses an IOMMU, and whether Xen
remaps interrupts. If a guest cannot be given devices, the output says where the cause is and what helps.

On the running machine the daemon asks Xen; without the daemon, xl asks Xen (only for root). A recording may
hold Xen's answers. Without Xen's answers the host is judged by the firmware's tables. --xen judges for
another version of Xen.

Exit codes: 0 guests can be given devices, 4 guests cannot be given devices, or this is not known, or there is
a warning.
"""

import argparse

from pcipt.cli.machine.host import read_host
from pcipt.cli.machine.pvh import add_xen_argument
from pcipt.cli.options import add_colour_argument, add_json_argument, add_socket_argument
from pcipt.cli.text.render import print_json
from pcipt.cli.text.terminal import wants_colour
from pcipt.cli.text.verdict_text import host_lines
from pcipt.firmware.passthrough.host_view import host_to_json
from pcipt.firmware.passthrough.reasons import Verdict

DEGRADED = 4
EXAMPLES = (
    ("pcipt host", "what this machine can do"),
    ("pcipt host --root DIR", "what a recorded machine can do"),
    ("pcipt host --xen 4.19.6", "what this machine could do with that version of Xen"),
    ("pcipt host --json=pretty", "the same for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", default="/", help="judge a recorded machine: DIR holds sys/, or is a report"
    )
    add_xen_argument(parser)
    add_json_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    host = read_host(args.root, args.socket if args.root == "/" else None, args.xen)
    if args.json:
        print_json(host_to_json(host), args.json)
    else:
        print("\n".join(host_lines(host, colour=wants_colour(args.color))))
    return 0 if host.verdict is Verdict.OK else DEGRADED
