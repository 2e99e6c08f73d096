"""Keep physical devices for guests, by their place and identity: an address can change at each boot.

add      keep a function for guests
remove   stop keeping a function
list     the functions that are kept, and where they are now
check    check that each kept function is the expected device
snippet  the lines for xl, the kernel's command line, Qubes OS, or xapi
apply    release the kept functions (a systemd unit does this at boot)
compile  write the list for the initramfs anew, after files were edited
"""

import argparse

from pcipt.cli.parts import add_parts, run_part

PARTS = ("add", "remove", "list", "check", "snippet", "apply", "compile")
EXAMPLES = (
    ("pcipt policy add 03:00.0 --guest web", "keep this device for the guest web"),
    ("pcipt policy check", "is each device at its place, and is it the expected device?"),
    ("pcipt policy snippet --xl", "the line for the guest's configuration, with today's addresses"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, "policy", PARTS)


def run(args: argparse.Namespace) -> int:
    return run_part(args)
