"""Words of `typing` for what a command loads: `import typing` takes an eighth of the time of starting Python.

A type checker sees `typing` itself. When a program runs, the words that only describe are `object`, and
`NewType` and `NamedTuple` make what those of `typing` make, as far as pcipt uses them.
Why: docs/decisions/0023-values-made-when-used.md.
"""

TYPE_CHECKING = False  # type checkers take it for True

if TYPE_CHECKING:
    from typing import Any, BinaryIO, NamedTuple, NewType, NoReturn, Protocol, Self, TextIO, TypeVar
else:
    from collections import namedtuple

    Any = BinaryIO = NoReturn = Protocol = Self = TextIO = object

    def NewType(_name: str, kind: type) -> type:  # noqa: N802 - the word of typing
        """Return the type itself: calling it with one of its values returns that value."""
        return kind

    def TypeVar(_name: str, *_kinds: type) -> type:  # noqa: N802 - the word of typing
        """Return a word that describes nothing."""
        return object

    class _NamedTuples(type):
        """What makes a tuple with names of each class whose base is `NamedTuple`."""

        def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, object]) -> type:
            plain = super().__new__(cls, name, (), space)
            if not bases:
                return plain
            fields = plain.__annotations__
            defaults = [space.pop(each) for each in fields if each in space]
            made = namedtuple(name, fields, defaults=defaults, module=space["__module__"])  # noqa: PYI024
            made.__annotations__ = fields
            for key, value in space.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTuples):
        """The base of a class that is a tuple with names; see typing.NamedTuple."""


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "BinaryIO",
    "NamedTuple",
    "NewType",
    "NoReturn",
    "Protocol",
    "Self",
    "TextIO",
    "TypeVar",
]
