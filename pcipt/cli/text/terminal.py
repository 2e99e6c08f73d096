"""What stands at the other end of stdout: a terminal with a width and colours, or a pipe with neither.

Nothing is folded, cut or coloured in a pipe. An address, a range or a path holds no space, and text is only
ever folded at a space: what a user copies from a narrow terminal is whole.
"""

import os
import sys

AUTO, ALWAYS, NEVER = COLOUR_CHOICES = ("auto", "always", "never")
BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
NARROWEST = 20  # columns; on less, nothing is gained by folding


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(choice: str = AUTO) -> bool:
    """Decide about colour: what --color says, else a terminal and no NO_COLOR (no-color.org)."""
    return choice == ALWAYS or (choice == AUTO and on_terminal() and not os.environ.get("NO_COLOR"))


def painted(text: str, colour: str | None) -> str:
    """Wrap a text into an SGR colour; None leaves it plain."""
    return text if colour is None else f"\033[{colour}m{text}\033[0m"


def columns() -> int | None:
    """Tell how wide the terminal is; None in a pipe and where it does not say."""
    if not sys.stdout.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    try:
        width = int(told) if told.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return None
    return width if width >= NARROWEST else None


def can_show(character: str) -> bool:
    """Tell whether stdout's encoding has a character."""
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def folded(text: str, width: int | None, hang: int) -> list[str]:
    """Break a line at spaces into lines of at most `width`, all but the first indented by `hang`.

    A word that is longer than a line stays whole.
    """
    lines = []
    while width is not None and len(text) > width:
        indent = len(text) - len(text.lstrip())
        at = text.rfind(" ", indent, width + 1)
        if at < 0:
            at = text.find(" ", max(indent, width))
        if at < 0:
            break
        lines.append(text[:at].rstrip())
        text = " " * min(hang, width // 2) + text[at:].lstrip()
    return [*lines, text]


def clipped(text: str, width: int | None, keep: int) -> str:
    """Cut a line that is too long, with an ellipsis, but nothing of its first `keep` characters."""
    if width is None or len(text) <= width:
        return text
    sign = "…" if can_show("…") else "..."
    return text[: max(keep, width - len(sign))].rstrip() + sign
