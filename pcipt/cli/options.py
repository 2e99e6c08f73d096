"""Options that several commands share; nothing heavier than argparse is loaded here."""

import argparse

from pcipt.service.protocol import SOCKET_PATH

JSON = "--json"


def add_json_argument(parser: argparse.ArgumentParser, about: str = "print one JSON object") -> None:
    parser.add_argument(JSON, nargs="?", const="short", choices=("short", "pretty"), help=about)


def add_json_lines_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        JSON, nargs="?", const="short", choices=("short",), help="print one JSON object a line"
    )


def add_socket_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket", default=SOCKET_PATH, metavar="PATH", help=f"control socket of the daemon ({SOCKET_PATH})"
    )


def with_explicit_json(arguments: list[str]) -> list[str]:
    """Spell a bare --json out, or argparse would take the address behind it for its value."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [f"{JSON}=short" if a == JSON else a for a in arguments[:end]] + arguments[end:]
