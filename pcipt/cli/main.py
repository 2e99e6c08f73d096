"""The entry point of `pcipt`: find the subcommand, load only its module, turn errors into exit codes.

Starting fast is a feature: this module imports nothing that `status` does not need.
"""

import argparse
import importlib
import os
import sys

from pcipt import errors
from pcipt.cli.options import with_explicit_json

# name: module of pcipt.cli, what it does
COMMANDS = {
    "status": ("status", "is the service healthy, what does it hold, what does it disagree with"),
    "list": ("list", "list the machine's PCI functions"),
    "tree": ("tree", "show how the functions hang together"),
    "show": ("show", "show one function decoded in full"),
    "monitor": ("monitor", "show live what happens: changes, actions, findings"),
    "history": ("history", "what happened to a function"),
    "resync": ("resync", "compare hardware, Linux and Xen now, and repair"),
    "record": ("record", "record this machine into a directory"),
    "decode": ("decode", "decode a recording of configuration writes"),
    "pvh": ("pvh", "the PVH boot ABI: start info, memory layout, ACPI tables: show, build, check"),
    "daemon": ("daemon", "run the service itself (systemd does this)"),
}

#  error class -> exit code; 4 (degraded) is no error and comes from the commands themselves
EXIT_CODES: tuple[tuple[type[errors.PciptError], int], ...] = (
    (errors.AddressError, 2),
    (errors.NotRunningError, 3),
    (errors.NotPermittedError, 5),
    (errors.NoSuchDeviceError, 6),
    (errors.PciptError, 1),
)

OVERVIEW = """usage: pcipt COMMAND [options]

Keeps the PCI views of a Xen hardware domain (hardware, Linux, Xen) in agreement.

commands:
{commands}

`pcipt COMMAND --help` tells more. Exit codes: 0 fine, 1 failed, 2 usage or malformed address,
3 the daemon is not running, 4 degraded (findings exist), 5 not permitted, 6 no such device.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; messages go to stderr, each one line."""
    arguments = sys.argv[1:] if argv is None else argv
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the caller (>&-)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except errors.PciptError as error:
        print(f"pcipt: {error}", file=sys.stderr)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except BrokenPipeError:
        # The reader has gone. Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        about = f"{errors.printable(str(error.filename))}: " if error.filename is not None else ""
        print(f"pcipt: {about}{error.strerror or error}", file=sys.stderr)
        return 5 if isinstance(error, PermissionError) else 1
    except Exception as error:  # the last resort: a user gets one line, a developer the rest
        if os.environ.get("PCIPT_TRACEBACK"):
            raise
        kind = type(error).__name__
        print(
            f"pcipt: internal error, please report: {kind}: {errors.printable(str(error))}", file=sys.stderr
        )
        return 1
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(), end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments[0]
    if name in ("-V", "--version"):
        from pcipt import __version__

        print(f"pcipt {__version__}")
        return 0
    if name not in COMMANDS:
        print(
            f"pcipt: unknown command {errors.printable(name)!r}{_nearest(name)}; see pcipt --help",
            file=sys.stderr,
        )
        return 2
    module_name, about = COMMANDS[name]
    module = importlib.import_module(f"pcipt.cli.{module_name}")
    parser = argparse.ArgumentParser(
        prog=f"pcipt {name}",
        description=module.__doc__ or about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(with_explicit_json(arguments[1:])))
    return code


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return OVERVIEW.format(
        commands="\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    )


def _nearest(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, COMMANDS, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


if __name__ == "__main__":
    sys.exit(main())
