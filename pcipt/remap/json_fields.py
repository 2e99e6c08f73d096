"""Readers of the fields of JSON objects, for the documents of this room. Pure.

A reader takes a JSON value, verifies it, and returns the value that it stands for. It raises ValueError (most
often a FieldError), with a text that says what is expected. `Fields` adds the name of the field to that text.
"""

import enum
from collections.abc import Callable, Container
from typing import Any, TypeVar

from pcipt.errors import AddressError
from pcipt.pci import Address, Frames, Gfn, Range, Sbdf, frames_from_range, parse_sbdf
from pcipt.pci.bars import ROM_INDEX
from pcipt.remap.bar_ranges import ADDRESS_BITS

Read = TypeVar("Read")
Member = TypeVar("Member", bound=enum.Enum)
Reader = Callable[[Any], Read]


class FieldError(ValueError):
    """Raised when a JSON value is not what its field needs. The message is the only argument."""


class Fields:
    """The fields of one JSON object. `take` reads one of them; `end` verifies that all have been read.

    Raises: FieldError if `value` is not an object.
    """

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise FieldError(f"no object: {value!r}")
        self._left: dict[str, Any] = dict(value)

    def __contains__(self, name: str) -> bool:
        """Return True if the object has the field `name` and it has not been read."""
        return name in self._left

    def take(self, name: str, read: Reader[Read]) -> Read:
        """Return the value of a field that must be there.

        Raises: FieldError, which names the field, if it is missing or `read` refuses it.
        """
        if name not in self._left:
            raise FieldError(f'"{name}" is missing')
        try:
            return read(self._left.pop(name))
        except (ValueError, AddressError) as error:
            raise FieldError(f'"{name}": {error}') from error

    def find(self, name: str, read: Reader[Read], default: Read) -> Read:
        """Return the value of a field, or `default` if it is missing.

        Raises: FieldError, which names the field, if `read` refuses it.
        """
        return self.take(name, read) if name in self._left else default

    def end(self) -> None:
        """Raise FieldError, which names the field, if a field was not read: nobody knows what it means."""
        for name in self._left:
            raise FieldError(f'"{name}" is not known')


def text(value: Any) -> str:
    """Return a text. Raises: FieldError if `value` is not one."""
    if not isinstance(value, str):
        raise FieldError(f"expected a text, not {value!r}")
    return value


def flag(value: Any) -> bool:
    """Return True or False. Raises: FieldError if `value` is neither."""
    if not isinstance(value, bool):
        raise FieldError(f"expected true or false, not {value!r}")
    return value


def number(value: Any, least: int, most: int) -> int:
    """Return a whole number. Raises: FieldError if `value` is not one from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FieldError(f"expected a number from {least} to {most}, not {value!r}")
    return value


def bar_number(value: Any) -> int:
    """Return the number of a BAR, 6 for the ROM. Raises: FieldError if `value` is not one."""
    return number(value, 0, ROM_INDEX)


def byte_count(value: Any) -> int:
    """Return a size in bytes. Raises: FieldError if `value` is not from 1 to 2**64 - 1."""
    return number(value, 1, (1 << 64) - 1)


def address(value: Any) -> Address:
    """Return a byte address from its hexadecimal text. Raises: FieldError if it has not 64 bits."""
    return Address(number(int(text(value), 16), 0, (1 << 64) - 1))


def function(value: Any) -> Sbdf:
    """Return the address of a function. Raises: ValueError or AddressError if `value` is not its text."""
    return parse_sbdf(text(value))


def member(kind: type[Member]) -> Reader[Member]:
    """Return the reader of a member of an enumeration, whose JSON value is the member's own."""

    def read(value: Any) -> Member:
        return kind(text(value))

    return read


def frames(value: Any) -> Frames:
    """Return pages from a list of the first frame and the number of pages.

    Raises: FieldError if `value` is not such a list, or the pages reach above 52 address bits.
    """
    if not isinstance(value, list) or len(value) != 2:
        raise FieldError(f"expected the first frame and the number of pages, not {value!r}")
    start, count = number(value[0], 0, (1 << 64) - 1), number(value[1], 1, (1 << 64) - 1)
    return _checked(Frames(Gfn(start), count))


def take_frames(fields: Fields) -> Frames:
    """Return pages from the fields "start", a byte address in hexadecimal, and "size" in bytes.

    Raises: FieldError if a field is missing or wrong, if they are not whole pages, or if the pages reach
            above 52 address bits.
    """
    start, size = fields.take("start", text), fields.take("size", lambda value: value)
    try:
        span = Range(address(start), byte_count(size))
    except ValueError as error:
        raise FieldError(f'"start", "size": no whole pages: {start}, {size!r} bytes') from error
    found = frames_from_range(span)
    if found.range != span:
        raise FieldError(f'"start", "size": no whole pages: {start}, {size} bytes')
    return _checked(found)


def _checked(pages: Frames) -> Frames:
    """Return `pages`. Raises: FieldError if they reach above 52 address bits."""
    if pages.range.last >> ADDRESS_BITS:
        raise FieldError(f"{pages} reaches above {ADDRESS_BITS} address bits")
    return pages


def items(value: Any, read: Reader[Read]) -> list[Read]:
    """Return what `read` returns for each item of a list.

    Raises: FieldError if `value` is not a list; ValueError, which has the number of the item from 0, if
            `read` refuses an item.
    """
    if not isinstance(value, list):
        raise FieldError(f"expected a list, not {value!r}")
    found = []
    for place, item in enumerate(value):
        try:
            found.append(read(item))
        except (ValueError, AddressError) as error:
            raise FieldError(f"item {place}: {error}") from error
    return found


def one_of(words: Container[str]) -> Reader[str]:
    """Return the reader of a text that is one of `words`."""

    def read(value: Any) -> str:
        word = text(value)
        if word not in words:
            raise FieldError(f"{word!r} is not known")
        return word

    return read
