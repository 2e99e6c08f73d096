"""Options that several commands share, each defined once.

`pcipt status` must start fast, so only light modules are imported.
"""

import argparse

from pcipt.cli.text.terminal import ALWAYS, AUTO, COLOUR_CHOICES

#: the kinds of `pcipt.host.report.masks`, which this module does not load; a test compares them
KINDS_OF_SECRETS = (
    "serial", "mac", "boot-id", "uuid", "host-name", "user", "gateway", "kernel-address",
)  # fmt: skip
JSON, COLOUR = "--json", "--color"
BARE = {JSON: "short", COLOUR: ALWAYS}  # the values of the bare options


def add_json_argument(parser: argparse._ActionsContainer, about: str = "print one JSON object") -> None:
    """Add the option `--json[=short|pretty]` to a parser. Its help text begins with `about`.

    The parsed value `json` is None without the option, else "short" or "pretty". A bare --json gives "short".
    """
    parser.add_argument(
        JSON, nargs="?", metavar="FORM", const=BARE[JSON], choices=("short", "pretty"),
        help=f"{about}; {JSON}=pretty indents it",
    )  # fmt: skip


def add_json_lines_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json[=short]` to the parser of a command that prints one JSON object a line.

    The parsed value `json` is None without the option, else "short". There is no indented form.
    """
    parser.add_argument(
        JSON, nargs="?", metavar="FORM", const=BARE[JSON], choices=(BARE[JSON],),
        help="print one JSON object per line",
    )  # fmt: skip


def add_colour_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--color[=auto|always|never]` to a parser.

    The parsed value `color` is "auto" without the option. A bare --color gives "always".
    """
    parser.add_argument(
        COLOUR, nargs="?", metavar="WHEN", const=BARE[COLOUR], default=AUTO, choices=COLOUR_CHOICES,
        help="colour the output: always, never, or auto (the default: on a terminal, unless NO_COLOR is set)",
    )  # fmt: skip


def add_legend_argument(
    parser: argparse.ArgumentParser, about: str = "print no closing line on a terminal"
) -> None:
    """Add the option `--no-legend` to a parser: the command then prints no headings and no closing lines.

    `about` is the help text of the option. The parsed value is `no_legend`.
    """
    parser.add_argument("--no-legend", action="store_true", help=about)


def add_numeric_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `-n`, `--numeric` to a parser: print numbers instead of names from pci.ids."""
    parser.add_argument("-n", "--numeric", action="store_true", help="print numbers instead of names")


def add_socket_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--socket PATH` to a parser: the control socket of the daemon (default: SOCKET_PATH)."""
    from pcipt.daemon.control.protocol import SOCKET_PATH  # few of the commands ask the daemon

    parser.add_argument(
        "--socket",
        default=SOCKET_PATH,
        metavar="PATH",
        help=f"control socket of the daemon; default: {SOCKET_PATH}",
    )


def with_explicit_values(arguments: list[str]) -> list[str]:
    """Return the arguments with each bare --json as --json=short and each bare --color as --color=always.

    Arguments after `--` are not changed. Without this function, argparse would take the address that follows
    such an option as the value of the option.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [f"{a}={BARE[a]}" if a in BARE else a for a in arguments[:end]] + arguments[end:]


def add_keep_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--keep NAME` to a parser; it may be given several times.

    The parsed value `keep` is a list of names of kinds of secrets, empty without the
    option.
    """
    parser.add_argument(
        "--keep", metavar="NAME", action="append", default=[], choices=KINDS_OF_SECRETS,
        help=f"do not mask this kind: {', '.join(KINDS_OF_SECRETS)}; may be given several times",
    )  # fmt: skip
