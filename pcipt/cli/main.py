"""The entry point of `pcipt`: load the module of one subcommand, run it, turn errors into exit codes.

`pcipt status` must start fast, so this module imports nothing that `status` does not need.
"""

import argparse
import atexit
import gc
import importlib
import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

from pcipt import errors
from pcipt.cli.options import with_explicit_values
from pcipt.cli.parser import Parser, suggestion
from pcipt.cli.text.terminal import columns, folded, tell

# name: module of pcipt.cli.commands, what it does
COMMANDS = {
    "status": (
        "status",
        "show whether the service is healthy, what it did, and where hardware, Linux and Xen disagree",
    ),
    "list": ("list", "list the machine's PCI functions"),
    "tree": ("tree", "show which function is behind which bridge"),
    "show": ("show", "show one function decoded in full"),
    "space": ("space", "show the windows of bridges: what is used, what is free, which BARs have no address"),
    "mappings": (
        "mappings",
        "show the 1:1 MMIO ranges of the hardware domain: address, function, who mapped the range",
    ),
    "explain": (
        "explain",
        "show what is mapped for one function, what should be mapped, and which actions follow",
    ),
    "rmrr": ("rmrr", "show the reserved regions of the firmware: addresses, devices, who mapped the region"),
    "host": (
        "passthrough.host",
        "show whether guests can be given devices on this host, and if not, why",
    ),
    "check": (
        "passthrough.check",
        "check whether a function can be passed through, and what must go with it",
    ),
    "groups": ("passthrough.groups", "show which functions can only go to a guest together, and why"),
    "release": (
        "passthrough.release",
        "take functions out of dom0 for passthrough, with their reserved regions",
    ),
    "reclaim": ("passthrough.reclaim", "take functions back into dom0; their reserved regions return first"),
    "admit": ("passthrough.admit", "give dom0 a device that appeared below a policed port"),
    "policy": ("policy.group", "keep physical devices for guests, whatever address they get"),
    "monitor": ("monitor", "show live what happens: changes, actions, findings"),
    "history": ("history", "show what happened to one function"),
    "resync": ("resync", "compare hardware, Linux and Xen now, and repair"),
    "diff": ("diff", "show what differs between two recordings, or between a recording and this machine"),
    "record": ("record", "record this machine into a directory"),
    "report": (
        "report",
        "make one archive for a question or a bug report; what identifies the machine is masked",
    ),
    "decode": ("decode", "decode a recording of configuration writes"),
    "replay": ("replay", "run the engine on a recorded machine and trace, with a simulated Xen"),
    "pvh": ("pvh.group", "show, build and check the PVH boot ABI: start info, memory layout, ACPI tables"),
    "metrics": ("metrics", "print the daemon's counters as OpenMetrics text"),
    "daemon": ("daemon", "run the service itself (systemd does this)"),
}

# error class -> exit code; 4 (degraded) is not an error: commands return it
EXIT_CODES: tuple[tuple[type[errors.PciptError], int], ...] = (
    (errors.AddressError, 2),
    (errors.NotRunningError, 3),
    (errors.NotPermittedError, 5),
    (errors.NoSuchDeviceError, 6),
    (errors.PciptError, 1),
)

USAGE = "usage: pcipt COMMAND [options]"
PURPOSE = "Keeps the PCI views of a Xen hardware domain (hardware, Linux, Xen) in agreement."
MORE = (
    "`pcipt help COMMAND` shows its options, with examples. Exit codes: 0 fine, 1 failed, 2 usage or "
    "malformed address, 3 the daemon is not running, 4 degraded (findings exist), 5 not permitted, "
    "6 no such device."
)
HELP, VERSION = ("-h", "--help", "help"), ("-V", "--version", "version")
WIDEST = 100
YOUNG = 100_000  # objects that a command makes before garbage is collected for the first time


def main(argv: list[str] | None = None) -> int:
    """Run the command that `argv` names (None: sys.argv[1:]) and return its exit code.

    A PciptError or OSError is printed as one line on stderr. The exit code is that of EXIT_CODES for a
    PciptError, 5 for a PermissionError, and 1 for any other OSError or exception. It is 130 after Ctrl-C, 1
    if the reader of stdout has closed it, and 2 if `argv` is empty or names no known command.

    Raises: SystemExit(2) for a wrong option; SystemExit(0) after --help. If $PCIPT_TRACEBACK is set, also
            every exception that is neither a PciptError nor an OSError.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None and arguments[:1] != ["daemon"]:  # that sees to it itself (daemon/heap.py)
        _collect_late()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the caller (>&-)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the locale cannot encode
    try:
        try:
            code = _dispatch(arguments)
        except SystemExit:  # --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except errors.PciptError as error:
        _tell(error, arguments)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except BrokenPipeError:  # the reader has closed stdout, which is no reason for words
        _let_go_of_stdout()
        return 1
    except KeyboardInterrupt:
        _let_go_of_stdout()
        return 130
    except OSError as error:
        _let_go_of_stdout()
        _tell(error, arguments)
        return 5 if isinstance(error, PermissionError) else 1
    except Exception as error:  # a user gets one line, a developer the traceback
        if os.environ.get("PCIPT_TRACEBACK"):
            raise
        _tell(error, arguments)
        return 1
    return code


def _collect_late() -> None:
    """Let the collector of garbage begin late, and do nothing at the end of the process.

    Most commands end before there is garbage. Walking what they have loaded takes a tenth of their time, half
    of it at the end, when the kernel takes back everything anyway. So a file that is written must be closed:
    the end of the process may not do it.
    """
    gc.set_threshold(YOUNG)
    atexit.register(gc.freeze)


def _tell(error: Exception, arguments: list[str]) -> None:
    """Print an error and what can be done about it as one line on stderr."""
    if isinstance(error, errors.NotRunningError):  # has its step; `status` must be as fast with it
        tell(f"pcipt: {error}")
        return
    from pcipt.cli.text.error_steps import error_text

    tell(f"pcipt: {error_text(error, arguments)}")


def _let_go_of_stdout() -> None:
    """Write what is printed and not yet written; if that fails, drop it, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser(name: str) -> tuple[ModuleType, Parser]:
    """Import the module of the command `name`. Return the module and the parser of its options.

    Raises: KeyError if COMMANDS does not have `name`.
    """
    module_name, about = COMMANDS[name]
    module = importlib.import_module(f"pcipt.cli.commands.{module_name}")
    parser = Parser(
        prog=f"pcipt {name}", about=module.__doc__ or about, examples=getattr(module, "EXAMPLES", ())
    )
    parser.set_defaults(refuse=parser.error)  # the parser of a part has its own
    module.add_arguments(parser)
    return module, parser


def _dispatch(arguments: list[str]) -> int:
    """Run the command that `arguments` name and return its exit code.

    Help or the version is printed if `arguments` ask for it. Return 2 if there is no command or an unknown
    one; the overview or a suggestion is then printed on stderr.

    Raises: SystemExit from the option parser; every error of the command.
    """
    if arguments and arguments[0] in VERSION:
        from pcipt import __version__

        print(f"pcipt {__version__}")
        return 0
    if arguments and arguments[0] in HELP:
        topic = [word for word in arguments[1:] if word not in HELP]
        if not topic:
            print(_overview())
            return 0
        arguments = [*topic, "--help"]
    if not arguments:
        print(_overview(), file=sys.stderr)
        return 2
    name = arguments[0]
    if name not in COMMANDS:
        hint = suggestion(name, (*COMMANDS, "help"))
        tell(f"pcipt: there is no command {errors.printable(name)!r}{hint}; `pcipt help` lists all commands")
        return 2
    module, parser = make_parser(name)
    args = parser.parse_args(with_explicit_values(arguments[1:]))
    with _root(args):
        code: int = module.run(args)
    return code


def _root(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Return a context in which the option --root names a directory, also if it was given an archive."""
    if not os.path.isfile(getattr(args, "root", None) or "/"):
        return nullcontext()
    from pcipt.cli.machine.unpacked import unpacked_root

    return unpacked_root(args)


def _overview() -> str:
    """Return the text of `pcipt --help`: usage, all commands in the order of COMMANDS, exit codes.

    Lines are folded to the width of the terminal, at most 100 columns.
    """
    width = min(WIDEST, columns() or WIDEST)
    room = max(map(len, COMMANDS)) + 4
    lines = [USAGE, "", *folded(PURPOSE, width, 0), "", "commands:"]
    for name, (_, about) in COMMANDS.items():
        lines += folded(f"  {name:{room - 2}}{about}", width, room)
    return "\n".join([*lines, "", *folded(MORE, width, 0)])


if __name__ == "__main__":
    sys.exit(main())
