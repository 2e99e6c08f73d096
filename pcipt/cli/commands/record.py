"""Record this machine into a directory: only the files that pcipt reads, from a fixed list.

If the user is root and xl answers, Xen's command line and Xen's messages about the IOMMU are recorded too.
`pcipt list --root DIR` and every other command with --root read the recording.

What identifies the machine or its users is masked: serial numbers, MAC addresses, ids of this boot, of disks
and of file systems, the host's name, addresses of the kernel. The same value has the same pseudonym
everywhere in the recording. A table shows what was masked.

Exit codes: 0 done, 1 the machine cannot be read or DIR cannot be written, 2 wrong usage.
"""

import argparse
import sys
import time

from pcipt.cli.machine.host import answers_of_xen
from pcipt.cli.options import add_keep_argument
from pcipt.cli.text.masked_text import lines_from_masked
from pcipt.cli.text.progress import progress
from pcipt.cli.text.render import count_text
from pcipt.cli.text.terminal import columns
from pcipt.errors import printable
from pcipt.host.live import LinuxHost
from pcipt.host.policy.boots import DIRECTORY, record_boot
from pcipt.host.recorder import NO_ANSWERS, record_machine
from pcipt.host.report.collect import masks_for

SHOWN = 20
EXAMPLES = (
    ("pcipt record machine", "into the new directory machine"),
    ("pcipt record --boot", "record this boot for `pcipt diff` (a systemd unit does this at each boot)"),
    ("pcipt record machine --keep serial --keep mac", "with serial numbers and MAC addresses"),
    ("pcipt record copy --root machine", "record a recorded machine again, as a check"),
    ("pcipt record machine && tar czf machine.tar.gz machine", "to send along with a bug report"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", help="a new or empty directory")
    parser.add_argument(
        "--boot",
        action="store_true",
        help=f"record this boot below {DIRECTORY}, once; the last ten boots are kept",
    )
    add_keep_argument(parser)
    parser.add_argument("--root", metavar="SRC", default="/", help="record a recorded machine again")


def run(args: argparse.Namespace) -> int:
    if args.boot == (args.directory is not None):
        args.refuse("give either DIR or --boot")
    if args.boot:
        return _record_boot(args.root)
    far, masks = (0, 0), masks_for(args.root, args.keep)

    def tell(done: int, everything: int) -> None:
        nonlocal far
        far = (done, everything)

    with progress("recording", lambda: f"{far[0]} of {count_text(far[1], 'function')}"):
        answers = answers_of_xen() if args.root == "/" else NO_ANSWERS
        recorded = record_machine(args.root, args.directory, tell, answers, masks)
    for path, why in recorded.left_out[:SHOWN]:
        print(f"pcipt: left out {printable(path)}: {printable(why)}", file=sys.stderr)
    if len(recorded.left_out) > SHOWN:
        print(f"pcipt: left out {len(recorded.left_out) - SHOWN} more files", file=sys.stderr)
    print(
        f"recorded {count_text(recorded.functions, 'function')}, {count_text(recorded.files, 'file')}, "
        f"in {printable(args.directory)}; write into its README.md which machine it is"
    )
    print(*lines_from_masked(masks.table(), columns()), sep="\n")
    return 0


def _record_boot(root: str) -> int:
    """Record the machine for this boot, and say where. A boot that is recorded already is left as it is."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = record_boot(root, LinuxHost(root).boot_id, now)
    print(f"recorded in {path}" if path is not None else "this boot is recorded already")
    return 0
