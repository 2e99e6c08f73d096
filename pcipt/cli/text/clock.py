"""Times as a user reads them. The daemon writes times as RFC 3339 in UTC (2026-11-22T19:11:32.381Z).

They are computed by hand, because importing the standard library's calendar takes longer than all of `pcipt
status`.
"""

import time

_UNITS = (("y", 31_556_952), ("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def readable(when: str) -> str:
    """Return 2026-11-22T19:11:32.381Z as "2026-11-22 19:11:32 UTC".

    Return a text unchanged if `seconds` finds no time in it.
    """
    return f"{when[:10]} {when[11:19]} UTC" if seconds(when) is not None else when


def age(when: str, now: float | None = None) -> str:
    """Return how long ago the time `when` was, as its two largest units that are not zero: "2d 5h".

    The units are y, d, h, min and s. If only one unit is not zero, the text has only this one: "40s". An age
    below a second is "0s". Return an empty text if `when` is in the future or is not a time.

    Units:  `now` is in seconds since 1970; None is the present time.
    """
    then = seconds(when)
    passed = int((time.time() if now is None else now) - then) if then is not None else -1
    parts: list[str] = []
    for unit, size in _UNITS:
        if passed >= size or (unit == "s" and not parts and passed >= 0):
            parts.append(f"{passed // size}{unit}")
            passed %= size
    return " ".join(parts[:2])


def seconds(when: str) -> int | None:
    """Return the seconds from 1970 to a time like 2026-11-22T19:11:32.381Z (UTC). Its fraction is ignored.

    Return None if one of the six numbers is not at its place. Only the digits are read: the characters
    between them and the ranges of the numbers are not checked.
    """
    try:
        year, month, day = int(when[:4]), int(when[5:7]), int(when[8:10])
        hour, minute, second = int(when[11:13]), int(when[14:16]), int(when[17:19])
    except ValueError:
        return None
    if month <= 2:  # counted from March, so that a leap day is the last day of its year
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719_469
    return ((days * 24 + hour) * 60 + minute) * 60 + second
