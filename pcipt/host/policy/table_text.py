"""Take one table out of the text of a TOML file, and keep everything else: comments, order, line ends.

What is left is read again and compared, so a text that is understood wrongly is never written.
"""

import re
import tomllib

from pcipt.pci.policy.entries import TABLE

_OURS = re.compile(rf"[ \t]*\[\[[ \t]*{TABLE}[ \t]*\]\][ \t]*(#.*)?")
_HEADER = re.compile(r"[ \t]*\[")
_ASIDE = re.compile(r"[ \t]*(#.*)?")  # a comment, or nothing


def without_table(text: str, number: int) -> str | None:
    """Return the text without the table `[[passthrough]]` of this number, which counts from 0.

    What stands behind its last key, also a comment, stays. Return None if it cannot be done in this way.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # only a newline ends a line of TOML
    plain = [line.rstrip("\r\n") for line in lines]
    starts = [at for at, line in enumerate(plain) if _OURS.fullmatch(line)]
    if number >= len(starts):
        return None
    start = starts[number]
    following = (at for at in range(start + 1, len(lines)) if _HEADER.match(plain[at]))
    end = next(following, len(lines))
    while _ASIDE.fullmatch(plain[end - 1]):
        end -= 1
    left = "".join(lines[:start] + lines[end:])
    wanted = tomllib.loads(text)
    del wanted[TABLE][number]
    try:
        found = tomllib.loads(left)
    except tomllib.TOMLDecodeError:
        return None
    return left if {TABLE: [], **found} == wanted else None
