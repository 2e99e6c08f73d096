"""`pcipt.values` makes the same classes as attrs: each case is made by both, and they must agree."""

import copy
import pickle
import subprocess
import sys
import typing
import weakref
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError

from pcipt import hints, light

MAKERS = pytest.mark.parametrize("made_by", [attrs, light], ids=["attrs", "light"])


def point(made_by: Any) -> Any:
    @made_by.frozen
    class Point:
        KIND: ClassVar[str] = "point"
        x: int
        y: int = 0
        tags: list = made_by.Factory(list)
        _hidden: int = made_by.field(default=7, eq=False, repr=False)

        def name(self):
            return __class__

    return Point


@MAKERS
def test_a_frozen_class(made_by):
    cls = point(made_by)
    one, same, other = cls(1, tags=()), cls(1, 0, ()), cls(x=2, hidden=9, tags=())
    assert one == same
    assert one != other
    assert one != (1, 0, ())
    assert hash(one) == hash(same)
    assert cls(1, tags=(), hidden=8) == one
    assert repr(one).endswith("Point(x=1, y=0, tags=())")
    assert other._hidden == 9
    assert cls(1).tags == []
    assert cls(1).tags is not cls(1).tags
    assert one.name() is cls
    assert cls.KIND == "point"
    assert cls.__match_args__ == ("x", "y", "tags", "_hidden")
    assert not hasattr(one, "__dict__")
    assert weakref.ref(one)() is one
    for change in (lambda: setattr(one, "x", 3), lambda: delattr(one, "x"), lambda: setattr(one, "z", 3)):
        with pytest.raises(FrozenInstanceError):
            change()
    with pytest.raises(TypeError):
        cls()
    with pytest.raises(TypeError):
        cls(1, wrong=2)


@MAKERS
def test_copies_and_changes(made_by):
    one = point(made_by)(1, hidden=3)
    assert copy.copy(one) == one
    assert copy.deepcopy(one)._hidden == 3
    for evolve in (made_by.evolve, attrs.evolve, light.evolve):  # each takes the classes of both
        assert evolve(one, x=5).x == 5
        assert evolve(one, x=5)._hidden == 3
        assert evolve(one, hidden=4)._hidden == 4
        with pytest.raises(TypeError):
            evolve(one, wrong=1)


@MAKERS
def test_attrs_knows_the_fields(made_by):
    fields = attrs.fields(point(made_by))
    assert [each.name for each in fields] == ["x", "y", "tags", "_hidden"]
    assert [each.default for each in fields][:2] == [attrs.NOTHING, 0]
    assert attrs.asdict(point(made_by)(1)) == {"x": 1, "y": 0, "tags": [], "_hidden": 7}
    assert attrs.astuple(point(made_by)(1)) == (1, 0, [], 7)


@MAKERS
def test_a_class_that_changes(made_by):
    @made_by.define
    class Counter:
        count: int = 0
        log: list = made_by.field(factory=list)

    one = Counter()
    one.count += 1
    assert one == Counter(1)
    assert Counter.__hash__ is None
    with pytest.raises(AttributeError):
        one.other = 1

    @made_by.define(eq=False)
    class Thing:
        count: int = 0

    assert Thing() != Thing()
    assert len({Thing(), Thing()}) == 2


@MAKERS
def test_options_of_fields_and_classes(made_by):
    @made_by.frozen(order=True, weakref_slot=False)
    class Pair:
        low: int
        high: int

    assert sorted([Pair(2, 1), Pair(1, 5), Pair(1, 2)]) == [Pair(1, 2), Pair(1, 5), Pair(2, 1)]
    assert Pair(1, 2) <= Pair(1, 2) < Pair(1, 3)
    with pytest.raises(TypeError):
        Pair(1, 2) < (1, 2)  # noqa: B015
    with pytest.raises(TypeError):
        weakref.ref(Pair(1, 2))

    @made_by.frozen(kw_only=True)
    class Named:
        text: str = made_by.field(converter=str)
        size: int = made_by.field(init=False)
        cache: dict = made_by.field(factory=dict, hash=False)

        @size.default
        def _size(self):
            return len(self.text)

    assert Named(text=123).size == 3
    assert hash(Named(text="a", cache={1: 2})) == hash(Named(text="a"))
    assert Named(text="a", cache={1: 2}) != Named(text="a")
    with pytest.raises(TypeError):
        Named("a")

    @made_by.frozen(slots=False)
    class Open:
        x: int = 1

    assert Open().__dict__ == {"x": 1}
    assert Open(2) == Open(2)


@MAKERS
def test_inheritance_and_methods_of_the_class(made_by):
    @made_by.frozen
    class Base:
        a: int
        b: int = 2

        def text(self):
            return f"{self.a}"

    @made_by.frozen
    class Derived(Base):
        c: int = 3
        a: int = 9

        def text(self):
            return super().text() + "!"

        def __eq__(self, other):
            return True

        __hash__ = None

        def __repr__(self):
            return "mine"

    assert [each.name for each in attrs.fields(Derived)] == ["b", "c", "a"]
    assert (Derived(1, 5).b, Derived(1, 5).c, Derived().a) == (1, 5, 9)
    assert Derived().text() == "9!"
    assert repr(Derived()) == "mine"
    assert Derived() == 5

    class Plain(Base):
        pass

    assert Plain(4).text() == "4"
    assert Plain(4) != Base(4)


@light.frozen
class Kept:
    x: int
    _y: tuple = ()


@MAKERS
@pytest.mark.parametrize("before", [0, light._COMPILED_AFTER], ids=["first", "compiled"])
def test_arguments_are_the_same_before_and_after_compiling(made_by, before):
    """Of light's classes the first objects are made without a compiled `__init__`."""

    @made_by.frozen
    class Line:
        name: str
        words: list = made_by.field(factory=list, converter=list)
        more: int = made_by.field(default=1, kw_only=True)
        fixed: int = made_by.field(default=5, init=False)

    for _ in range(before):
        Line("x")
    assert attrs.astuple(Line("a")) == ("a", [], 1, 5)
    assert attrs.astuple(Line("a", "bc", more=2)) == ("a", ["b", "c"], 2, 5)
    assert attrs.astuple(Line(words="d", name="a")) == ("a", ["d"], 1, 5)
    for arguments, named in (
        ((), {}), (("a", "b", 3), {}), (("a",), {"name": "b"}), (("a",), {"fixed": 3}), (("a",), {"odd": 3}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"__init__\(\)"):
            Line(*arguments, **named)


def test_a_value_can_be_pickled():
    assert pickle.loads(pickle.dumps(Kept(1, (2,)))) == Kept(1, (2,))


def test_loading_values_does_not_load_attrs():
    code = "import sys, pcipt.pci, pcipt.host.sysfs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not {"attr", "attrs", "inspect", "dis"} & set(loaded.split())


@pytest.mark.parametrize(
    "words", [("list",), ("show", "0000:00:00.0"), ("check", "0000:00:00.0"), ("status",)]
)
def test_a_command_does_not_load_typing(words, tmp_path):
    device = tmp_path / "sys/bus/pci/devices/0000:00:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    where = ["--socket", str(tmp_path / "none")] if words == ("status",) else ["--root", str(tmp_path)]
    code = (
        "import sys; from pcipt.cli.main import main; main(sys.argv[1:]); sys.exit('typing' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words, *where], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


class Pair(hints.NamedTuple):
    """Two numbers."""

    first: int
    second: int = 2

    def total(self) -> int:
        return self.first + self.second


class TypedPair(typing.NamedTuple):
    """Two numbers."""

    first: int
    second: int = 2

    def total(self) -> int:
        return self.first + self.second


def test_a_tuple_with_names_is_that_of_typing():
    assert (Pair(1), Pair(3, second=4)) == (TypedPair(1), TypedPair(3, second=4))
    assert Pair(3)._replace(first=5).total() == 7
    assert repr(Pair(1)) == repr(TypedPair(1)).removeprefix("Typed")
    assert pickle.loads(pickle.dumps(Pair(1))) == Pair(1)
    for name in ("__annotations__", "__doc__", "__match_args__", "__module__", "_fields", "_field_defaults"):
        assert getattr(Pair, name) == getattr(TypedPair, name), name
    assert Pair.__mro__[1:] == TypedPair.__mro__[1:] == (tuple, object)
    with pytest.raises(TypeError):
        Pair()


@pytest.mark.parametrize("room", ["cli", "firmware", "host", "pci", "xen"])
def test_what_a_command_loads_takes_its_classes_from_values(room):
    modules = sorted((Path(light.__file__).parent / room).rglob("*.py"))
    assert len(modules) > 5
    assert not [str(path) for path in modules if "\nimport attrs\n" in path.read_text()]
