"""Options that several commands share, each defined once.

`pcipt status` must start fast, so only light modules are imported.
"""

import argparse

from pcipt.cli.text.terminal import ALWAYS, AUTO, COLOUR_CHOICES
from pcipt.daemon.control.protocol import SOCKET_PATH

JSON, COLOUR = "--json", "--color"
BARE = {JSON: "short", COLOUR: ALWAYS}  # the values of the bare options


def add_json_argument(parser: argparse.ArgumentParser, about: str = "print one JSON object") -> None:
    """Add `--json[=short|pretty]` to a parser.

    The value is None without the option; a bare --json is `short`.
    """
    parser.add_argument(
        JSON, nargs="?", metavar="FORM", const=BARE[JSON], choices=("short", "pretty"),
        help=f"{about}; {JSON}=pretty indents it",
    )  # fmt: skip


def add_json_lines_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command that prints one JSON object a line; there is no indented form."""
    parser.add_argument(
        JSON, nargs="?", metavar="FORM", const=BARE[JSON], choices=(BARE[JSON],),
        help="print one JSON object a line",
    )  # fmt: skip


def add_colour_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--color[=auto|always|never]` to a parser: `auto` by default; a bare --color is `always`."""
    parser.add_argument(
        COLOUR, nargs="?", metavar="WHEN", const=BARE[COLOUR], default=AUTO, choices=COLOUR_CHOICES,
        help=f"colour the output: {COLOUR}=auto (the default) on a terminal unless NO_COLOR is set, "
        "or always, or never",
    )  # fmt: skip


def add_legend_argument(
    parser: argparse.ArgumentParser, about: str = "no closing line on a terminal"
) -> None:
    """Add `--no-legend`, which suppresses headings and closing lines. `about` is its help text."""
    parser.add_argument("--no-legend", action="store_true", help=about)


def add_numeric_argument(parser: argparse.ArgumentParser) -> None:
    """Add `-n`, `--numeric`: print numbers instead of names from pci.ids."""
    parser.add_argument("-n", "--numeric", action="store_true", help="numbers instead of names")


def add_socket_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--socket PATH`: the control socket of the daemon."""
    parser.add_argument(
        "--socket", default=SOCKET_PATH, metavar="PATH", help=f"control socket of the daemon ({SOCKET_PATH})"
    )


def with_explicit_values(arguments: list[str]) -> list[str]:
    """Return the arguments; a bare --json becomes --json=short, a bare --color becomes --color=always.

    Arguments after `--` are not changed. Without this, argparse would take the address that follows such an
    option as the option's value.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [f"{a}={BARE[a]}" if a in BARE else a for a in arguments[:end]] + arguments[end:]
