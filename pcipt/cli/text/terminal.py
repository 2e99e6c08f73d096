"""What stdout can show (width, colours, characters), and the folding and cutting of lines.

In a pipe nothing is folded, cut or coloured. Lines are folded only at spaces, and an address, a range or a
path has no space in it: a user can copy it whole from a narrow terminal.
"""

import os
import re
import sys
from collections.abc import Mapping

from pcipt.errors import printable
from pcipt.hints import TextIO

AUTO, ALWAYS, NEVER = COLOUR_CHOICES = ("auto", "always", "never")
BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
_COMMAND = re.compile("`[^`]*`")
_JOINT = "\x1f"  # stands for a space at which no line is broken; `printable` leaves none in any text
READABLE = 100  # columns; a line of a paragraph that is longer is hard to read
NARROWEST = 20  # columns; a narrower terminal is not worth folding for


def on_terminal() -> bool:
    """Return True if stdout is a terminal and $TERM is not "dumb"."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(choice: str = AUTO) -> bool:
    """Return True if output must be coloured. `choice` is the value of --color.

    "always" gives True and "never" gives False. "auto" gives True if stdout is a terminal, $TERM is not
    "dumb" and $NO_COLOR is empty or not set (no-color.org).
    """
    return choice == ALWAYS or (choice == AUTO and on_terminal() and not os.environ.get("NO_COLOR"))


def painted(text: str, colour: str | None) -> str:
    """Return the text between the SGR codes of `colour` and "off"; unchanged if `colour` is None."""
    return text if colour is None else f"\033[{colour}m{text}\033[0m"


def columns(stream: TextIO | None = None) -> int | None:
    """Return the width of the terminal in columns: $COLUMNS if that is a number, else the width from the
    kernel.

    Return None if `stream` (None: stdout) is not a terminal, if the width is unknown, or if it is below
    NARROWEST.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    try:
        width = int(told) if told.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return width if width >= NARROWEST else None


def prose_columns() -> int | None:
    """Return the width for sentences on stdout: `columns`, at most READABLE, or None.

    Rows of a table may be wider: the eye finds their columns, but not the next line of a wide paragraph.
    """
    width = columns()
    return None if width is None else min(width, READABLE)


def can_show(character: str) -> bool:
    """Return True if stdout's encoding can represent the character. An unknown encoding counts as ASCII."""
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def folded(text: str, width: int | None, hang: int, whole: re.Pattern[str] = _COMMAND) -> list[str]:
    """Break one line of text at spaces; return the lines, each at most `width` columns long.

    A word that is longer than `width` is not broken, so its line is longer; nor is what matches `whole`: a
    command in backticks, so that it can be pasted. There is always at least one line, also for an empty text.
    A `width` of None gives one line. All lines except the first are indented by `hang` columns, or by half of
    `width` if that is less.
    """
    if width is None or len(text) <= width:
        return [text]
    text = whole.sub(lambda found: found[0].replace(" ", _JOINT), text)
    lines = []
    while len(text) > width:
        indent = len(text) - len(text.lstrip())
        at = text.rfind(" ", indent, width + 1)
        if at < 0:
            at = text.find(" ", max(indent, width))
        if at < 0:
            break
        lines.append(text[:at].rstrip())
        text = " " * min(hang, width // 2) + text[at:].lstrip()
    return [line.replace(_JOINT, " ") for line in (*lines, text)]


def tell(text: str) -> None:
    """Print a message on stderr: one line, which is folded if stderr is a terminal.

    `text` holds no unprintable characters.
    """
    width = columns(sys.stderr)
    print(*folded(text, width and min(width, READABLE), 4), sep="\n", file=sys.stderr)


def clipped(text: str, width: int | None, keep: int) -> str:
    """Return `text` cut to `width` columns with an ellipsis at its end. A text that fits is unchanged.

    The first `keep` characters are never cut, so the result may be longer than `width`. A `width` of None
    cuts nothing. The ellipsis is "…", or "..." if stdout's encoding does not have "…".
    """
    if width is None or len(text) <= width:
        return text
    sign = "…" if can_show("…") else "..."
    return text[: max(keep, width - len(sign))].rstrip() + sign


def next_lines(item: Mapping[str, object], indent: int, width: int | None) -> list[str]:
    """Return the lines of what can be done about a finding or refusal ("next" in its JSON object).

    They are folded to `width` and indented by `indent` columns. The list is empty if `item` does not have it:
    the daemon may be older, or may know codes that this program does not know.
    """
    step = item.get("next")
    return folded(" " * indent + f"-> {printable(str(step))}", width, indent + 3) if step else []
