"""Give dom0 functions that appeared below a policed port (hotplug.below), with their drivers.

First the daemon notes that dom0 may have the functions. This holds until the device leaves or the host boots
again. Then the functions return to dom0 as with `pcipt reclaim`: their reserved regions return first, xl
takes the functions out of quarantine, and Linux looks for a driver. If a step fails, all steps are undone.

SBDF is the same as for `pcipt release`.

Exit codes: 0 done (also if Xen's list of owners cannot be read; a line on stderr then says so), 1 refused or
failed, 3 the daemon is not running, 4 done, but Xen does not show the new owner, 5 not root, 6 no such
device.
"""

import argparse
import os

from pcipt.cli.commands.passthrough import reclaim
from pcipt.cli.machine.handover import require_root

EXAMPLES = (
    ("pcipt admit 03:00.0", "dom0 may have this card"),
    ("pcipt admit --dry-run '03:00.*'", "what would be done for all functions of that device"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reclaim.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if not args.dry_run:
        require_root("admit", os.geteuid())
    return reclaim.hand_back(args, admits=True)
