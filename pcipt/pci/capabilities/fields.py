"""The language in which the capabilities are described: a structure has registers, a register has fields.

One table says where a value is, what it means, its word in text and its key in JSON, so text and JSON cannot
differ. The words are those of the PCI specification in the abbreviations of lspci, which people search for.
"""

from collections.abc import Callable, Iterable, Mapping

from pcipt import values as attrs
from pcipt.pci.config import LEGACY_SIZE, ConfigSpace, HeaderType

Value = bool | int | str | list[str] | list[int] | None


@attrs.frozen
class View:
    """One structure of a function: the bytes of the function, and the place of the structure in them.

    `port_type` is the type in the PCI Express structure of the function (a key of `PORT_TYPES`), None if the
    function has no such structure. `header` is the layout of the function's header. Offsets are relative to
    the structure.
    """

    config: ConfigSpace
    offset: int
    extended: bool
    version: int = 0
    port_type: int | None = None

    @property
    def header(self) -> HeaderType:
        return self.config.header

    def read(self, offset: int, size: int) -> int | None:
        """Return a register of `size` bytes, or None if it was not read completely.

        A structure of the standard list ends with the first 256 bytes: what is beyond is None.
        """
        start = self.offset + offset
        end = start + size
        if end > len(self.config) or (end > LEGACY_SIZE and not self.extended):
            return None
        return int.from_bytes(self.config.data[start:end], "little")

    def bits(self, offset: int, size: int, low: int, width: int) -> int:
        """Return some bits of a register; 0 if it was not read. Only for what decides how others are read."""
        return (self.read(offset, size) or 0) >> low & (1 << width) - 1


Meaning = Callable[[int], Value]
When = Callable[[View], bool]


@attrs.frozen
class Field:
    """Some bits of a register.

    `key` is the key in JSON, `word` the word in text; a field without a word shows only its value. `meaning`
    turns the bits into the value; None as a value is unknown or reserved. In text a truth value is `word+` or
    `word-`, every other value is `word` and the value in `form`, which is a format or a function. If `when`
    is given, the field exists only in structures for which it is true.
    """

    key: str
    word: str
    low: int
    width: int = 1
    meaning: Meaning = int
    form: str | Callable[[Value], str] = "{}"
    when: When | None = None

    def value(self, register: int) -> Value:
        """Return the value of the field in a register."""
        return self.meaning(register >> self.low & (1 << self.width) - 1)

    def text(self, value: Value) -> str:
        """Return a value of this field as text."""
        if isinstance(value, bool):
            return f"{self.word}{'+' if value else '-'}"
        if value is None:
            shown = "unknown"
        elif not isinstance(self.form, str):
            shown = self.form(value)
        elif isinstance(value, list):
            shown = " ".join(str(each) for each in value) or "none"
        else:
            shown = self.form.format(value)
        return f"{self.word} {shown}".lstrip()


@attrs.frozen
class Register:
    """One register of a structure; `offset` and `size` are in bytes.

    `title` stands before its fields in text. `key` is its key in JSON. Registers that are `many` share one
    key, under which JSON has a list. If `when` is given, the register exists only in structures for which it
    is true.
    """

    key: str
    title: str
    offset: int
    size: int
    fields: tuple[Field, ...]
    many: bool = False
    when: When | None = None


@attrs.frozen
class Structure:
    """What is in the capability with this id: its registers, or a function that lists them.

    A function is needed where the place or number of registers depends on other registers.
    """

    id: int
    extended: bool
    registers: tuple[Register, ...] | Callable[[View], Iterable[Register]]


@attrs.frozen
class Decoded:
    """A register and what it holds: a value for each field that exists; None if it was not read."""

    register: Register
    values: tuple[tuple[Field, Value], ...] | None

    @property
    def text(self) -> str:
        """Return the fields as text: flags are separated by spaces, other values by commas."""
        if self.values is None:
            return "not read"
        parts: list[str] = []
        flags = False
        for field, value in self.values:
            text = field.text(value)
            if isinstance(value, bool) and flags:
                parts[-1] += f" {text}"
            else:
                parts.append(text)
            flags = isinstance(value, bool)
        return ", ".join(parts)

    @property
    def json(self) -> dict[str, Value] | None:
        """Return the fields as a JSON object; None if the register was not read."""
        return None if self.values is None else {field.key: value for field, value in self.values}


def decode(structure: Structure, view: View) -> tuple[Decoded, ...]:
    """Return the registers of a structure that exist in it, decoded, in their order. Raises nothing."""
    made = structure.registers
    registers = made if isinstance(made, tuple) else made(view)
    return tuple(_decoded(each, view) for each in registers if each.when is None or each.when(view))


def _decoded(register: Register, view: View) -> Decoded:
    raw = view.read(register.offset, register.size)
    if raw is None:
        return Decoded(register, None)
    exist = (field for field in register.fields if field.when is None or field.when(view))
    return Decoded(register, tuple((field, field.value(raw)) for field in exist))


def json_of(decoded: Iterable[Decoded]) -> dict[str, object]:
    """Return decoded registers as one JSON object, by their keys."""
    found: dict[str, object] = {}
    for each in decoded:
        if each.register.many:
            held = found.setdefault(each.register.key, [])
            if isinstance(held, list):
                held.append(each.json)
        else:
            found[each.register.key] = each.json
    return found


def flag(bit: int, word: str, key: str, *, when: When | None = None) -> Field:
    """Return a field of one bit, which is true or false."""
    return Field(key, word, bit, 1, bool, when=when)


def flags(*pairs: tuple[int, str, str]) -> tuple[Field, ...]:
    """Return fields of one bit each, from (bit, word, key)."""
    return tuple(flag(*pair) for pair in pairs)


def one_of(names: Mapping[int, Value]) -> Meaning:
    """Return a meaning that looks the bits up; bits that are not in `names` are unknown."""
    return names.get


def hexa(digits: int, *, shift: int = 0) -> Meaning:
    """Return a meaning that is "0x" and at least `digits` hexadecimal digits of the bits shifted left."""
    return lambda raw: f"0x{raw << shift:0{digits}x}"


def plus(number: int) -> Meaning:
    """Return a meaning that adds `number`: for registers that hold one less than they mean."""
    return lambda raw: raw + number


def power_of_two(scale: int = 1) -> Meaning:
    """Return a meaning that is `scale` times 2 to the power of the bits."""
    return lambda raw: scale << raw


def on_ports(*types: int) -> When:
    """Return a condition: the function has one of these port types."""
    return lambda view: view.port_type in types
