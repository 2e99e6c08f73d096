"""Write the list for the initramfs anew, after the files of the policy were edited by hand.

The files of the policy are those in passthrough.d and the settings file pcipt.toml. From pcipt.toml the
tables [[passthrough]] are taken, and the policed ports (hotplug.below), which the initramfs guards. `pcipt
policy add`, `pcipt policy remove` and the hook that makes an initramfs write the list too.

Exit codes: 0 done, 1 a file cannot be used, 5 not root.
"""

import argparse

from pcipt.cli.machine.policy import add_directory_argument, require_root_here
from pcipt.cli.text.render import count_text
from pcipt.host.policy.policy_files import read_entries, write_compiled

EXAMPLES = (("pcipt policy compile", "write the list; then make the initramfs anew"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(root="/")
    add_directory_argument(parser)


def run(args: argparse.Namespace) -> int:
    require_root_here(args)
    write_compiled(args.policy)
    print(f"{count_text(len(read_entries(args.policy)), 'function')} in the list")
    return 0
