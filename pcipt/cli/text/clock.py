"""Times for people: the daemon tells RFC 3339 in UTC, people ask how long ago that was.

Reckoned by hand: the standard library's calendar takes longer to load than the whole of `pcipt status`.
"""

import time

_UNITS = (("y", 31_556_952), ("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def readable(when: str) -> str:
    """Write 2026-11-22T19:11:32.381Z as 2026-11-22 19:11:32 UTC; what is no such time stays as it is."""
    return f"{when[:10]} {when[11:19]} UTC" if seconds(when) is not None else when


def age(when: str, now: float | None = None) -> str:
    """Say how long ago a time was in its two largest units, as systemctl does; nothing for the future."""
    then = seconds(when)
    passed = int((time.time() if now is None else now) - then) if then is not None else -1
    parts: list[str] = []
    for unit, size in _UNITS:
        if passed >= size or (unit == "s" and not parts and passed >= 0):
            parts.append(f"{passed // size}{unit}")
            passed %= size
    return " ".join(parts[:2])


def seconds(when: str) -> int | None:
    """Count the seconds from 1970 to a time in UTC, its fraction left out; None where it is none."""
    try:
        year, month, day = int(when[:4]), int(when[5:7]), int(when[8:10])
        hour, minute, second = int(when[11:13]), int(when[14:16]), int(when[17:19])
    except ValueError:
        return None
    if month <= 2:  # the year begins in March, so that a leap day is its last
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719_469
    return ((days * 24 + hour) * 60 + minute) * 60 + second
