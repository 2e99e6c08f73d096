"""Keep physical devices for guests: by their place and identity, not by an address that the next boot gives
to another device.

add      keep a function for guests
remove   give it up
list     the functions that are kept, and where they are now
check    is every one what was expected
snippet  the lines for xl, the kernel's command line, Qubes OS, or xapi
apply    release what is kept (at boot a unit does this)
compile  write the list for the initramfs anew, after files were edited
"""

import argparse

from pcipt.cli.parts import add_parts, run_part

PARTS = ("add", "remove", "list", "check", "snippet", "apply", "compile")
EXAMPLES = (
    ("pcipt policy add 03:00.0 --guest web", "keep this device, as it is now, for the guest web"),
    ("pcipt policy check", "is each device where and what it was"),
    ("pcipt policy snippet --xl", "the line for the guest's configuration, with today's addresses"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, "policy", PARTS)


def run(args: argparse.Namespace) -> int:
    return run_part(args)
