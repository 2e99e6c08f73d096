"""The classes of `pcipt.values`, which tells why. A type checker sees attrs instead, so types are Any."""

from collections.abc import Callable, Iterable
from operator import attrgetter, ge, gt, le, lt
from types import FunctionType

from pcipt.hints import Any

_MISSING: Any = object()
_FIELDS = "__pcipt_fields__"
_COMPILED_AFTER = 12  # objects
_counts: dict[Any, int] = {}  # of objects, by class


class Factory:
    """A default that is made for each object; with `takes_self`, from the object."""

    __slots__ = "make", "takes_self"

    def __init__(self, factory: Callable[..., Any], *, takes_self: bool = False) -> None:
        self.make, self.takes_self = factory, takes_self


class _Field:
    """One field of a class: what `field` was told, its name and its annotation."""

    __slots__ = "converter", "default_value", "eq", "hash", "init", "kw_only", "name", "repr", "type"

    def __init__(
        self,
        default: Any,
        converter: Any,
        *,
        eq: bool,
        hashed: bool | None,
        init: bool,
        kw_only: bool,
        shown: bool,
    ) -> None:
        self.default_value, self.converter = default, converter
        self.eq, self.hash, self.init, self.kw_only, self.repr = eq, hashed, init, kw_only, shown
        self.name, self.type = "", None

    def default(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Take a method of the class as the default, as the decorator of attrs does."""
        self.default_value = Factory(method, takes_self=True)
        return method

    def fresh_default(self) -> Any:
        """Return the default for one object; _MISSING if there is none, or if it is made from the object."""
        default = self.default_value
        if not isinstance(default, Factory):
            return default
        return _MISSING if default.takes_self else default.make()

    @property
    def alias(self) -> str:
        """Return the name of the argument of `__init__`."""
        return self.name.lstrip("_")

    @property
    def hashed(self) -> bool:
        """Return True if the field is part of the hash."""
        return bool(self.eq if self.hash is None else self.hash)


def field(
    *, default: Any = _MISSING, factory: Any = None, converter: Any = None, eq: bool = True,
    hash: bool | None = None,  # noqa: A002 - the words of attrs
    init: bool = True, kw_only: bool = False, repr: bool = True,  # noqa: A002
) -> Any:  # fmt: skip
    """Return a field with these properties; see attrs.field."""
    given = default if factory is None else Factory(factory)
    return _Field(given, converter, eq=eq, hashed=hash, init=init, kw_only=kw_only, shown=repr)


def frozen(cls: Any = None, /, **options: Any) -> Any:
    """Make a class whose objects do not change; see attrs.frozen."""
    return _decorated(cls, is_frozen=True, options=options)


def define(cls: Any = None, /, **options: Any) -> Any:
    """Make a class whose objects can change; see attrs.define."""
    return _decorated(cls, is_frozen=False, options=options)


def evolve(value: Any, /, **changes: Any) -> Any:
    """Return a copy with changes; see attrs.evolve, which makes it for a class of attrs itself."""
    cls = value.__class__
    names = _evolved.get(cls)
    if names is None:
        if not hasattr(cls, _FIELDS):
            import attrs

            return attrs.evolve(value, **changes)
        names = _evolved[cls] = tuple((each.alias, each.name) for each in getattr(cls, _FIELDS) if each.init)
    for alias, name in names:
        if alias not in changes:
            changes[alias] = getattr(value, name)
    return cls(**changes)


def fields(cls: Any) -> Any:
    """Return the fields as attrs knows them."""
    import attrs

    return attrs.fields(cls)


def _decorated(cls: Any, *, is_frozen: bool, options: dict[str, Any]) -> Any:
    if cls is None:
        return lambda cls: _made(cls, is_frozen=is_frozen, **options)
    return _made(cls, is_frozen=is_frozen, **options)


def _made(
    cls: Any, *, is_frozen: bool, eq: bool = True, order: bool = False, slots: bool = True,
    weakref_slot: bool = True, kw_only: bool = False, repr: bool = True,  # noqa: A002
) -> Any:  # fmt: skip
    """Return the class with its methods. With slots it is another class, because slots cannot be added.

    A method that the class itself defines stays.
    """
    own = _own_fields(cls, kw_only=kw_only)
    names = {each.name for each in own}
    every = (*(each for each in _inherited(cls) if each.name not in names), *own)
    methods: dict[str, Any] = {"__init__": _first_init}
    if eq:
        methods["__eq__"] = _equal
    if order:
        methods |= {"__lt__": _less, "__le__": _at_most, "__gt__": _more, "__ge__": _at_least}
    if repr:
        methods["__repr__"] = _repr
    space = {name: value for name, value in methods.items() if name not in cls.__dict__}
    if "__eq__" in space and "__hash__" not in cls.__dict__:
        space["__hash__"] = _hash if is_frozen else None
    if is_frozen:
        space |= {"__setattr__": _refuse, "__delattr__": _refuse}
    space[_FIELDS], space["__attrs_attrs__"] = every, _AttrsView()
    space["__match_args__"] = tuple(each.name for each in every if each.init and not each.kw_only)
    if slots:
        return _with_slots(cls, space, names, weakref_slot=weakref_slot)
    for name in names & cls.__dict__.keys():
        delattr(cls, name)
    for name, value in space.items():
        setattr(cls, name, value)
    return cls


def _with_slots(cls: Any, space: dict[str, Any], names: set[str], *, weakref_slot: bool) -> Any:
    """Return a class like `cls` with what is in `space`, whose fields `names` are slots."""
    left_out = names | {"__dict__", "__weakref__"}
    space = {name: value for name, value in cls.__dict__.items() if name not in left_out} | space
    if "__getstate__" not in cls.__dict__:
        space |= {"__getstate__": _state, "__setstate__": _set_state}
    held = {name for base in cls.__mro__[1:-1] for name in base.__dict__.get("__slots__", ())}
    has_weak = any(base.__weakrefoffset__ for base in cls.__bases__)
    weak = ("__weakref__",) if weakref_slot and not has_weak else ()
    space["__slots__"] = (*(each.name for each in space[_FIELDS] if each.name in names - held), *weak)
    space["__qualname__"] = cls.__qualname__
    made = type(cls)(cls.__name__, cls.__bases__, space)
    for value in cls.__dict__.values():
        kind = value.__class__
        if kind is FunctionType:
            if value.__closure__ is not None:
                _name_class_anew((value,), cls, made)
        elif kind is property:
            _name_class_anew((value.fget, value.fset), cls, made)
        elif kind is classmethod or kind is staticmethod:
            _name_class_anew((value.__func__,), cls, made)
    return made


def _own_fields(cls: Any, *, kw_only: bool) -> list[_Field]:
    """Return the fields that the class itself declares, in order."""
    found = []
    for name, kind in cls.__dict__.get("__annotations__", {}).items():  # noqa: RUF063 - it loads inspect
        told = kind if isinstance(kind, str) else type(kind).__module__ == "typing" and str(kind)
        if told and told.startswith(("typing.ClassVar", "ClassVar")):
            continue
        value = cls.__dict__.get(name, _MISSING)
        if not isinstance(value, _Field):
            value = field(default=value)
        value.name, value.type, value.kw_only = name, kind, value.kw_only or kw_only
        found.append(value)
    return found


def _inherited(cls: Any) -> Iterable[_Field]:
    """Return the fields of the bases, those of the farthest first."""
    found: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        for each in base.__dict__.get(_FIELDS, ()):
            found.pop(each.name, None)
            found[each.name] = each
    return found.values()


def _name_class_anew(functions: Iterable[Any], old: Any, new: Any) -> None:
    """Let what uses `super()` or `__class__` in the class `old` know the class that was made of it."""
    for function in functions:
        for cell in (function.__closure__ or ()) if isinstance(function, FunctionType) else ():
            try:
                is_old = cell.cell_contents is old
            except ValueError:  # the cell is empty
                continue
            if is_old:
                cell.cell_contents = new


def _first_init(self: Any, /, *arguments: Any, **named: Any) -> None:
    """Stand in for the `__init__` of a class: compiling it costs as much as some twenty objects made here."""
    for base in type(self).__mro__:
        if base.__dict__.get("__init__") is _first_init:
            made = _counts[base] = _counts.get(base, 0) + 1
            if made > _COMPILED_AFTER or not _fill(self, getattr(base, _FIELDS), arguments, {**named}):
                init = base.__init__ = _compiled_init(base)  # type: ignore[misc]  # this very class has it
                init(self, *arguments, **named)
            return


def _fill(self: Any, every: Iterable[_Field], arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Set the fields of a new object; what is used of `named` is taken out of it.

    Return False if the arguments do not fit, which `_compiled_init` explains, or a default needs the object.
    """
    left = iter(arguments)
    values: list[tuple[str, Any]] = []
    for each in every:
        value = next(left, _MISSING) if each.init and not each.kw_only else _MISSING
        if value is _MISSING and each.init:
            value = named.pop(each.alias, _MISSING)
        if value is _MISSING:
            value = each.fresh_default()
        if value is not _MISSING:
            values.append((each.name, value if each.converter is None else each.converter(value)))
        elif each.init or each.default_value is not _MISSING:
            return False
    if named or next(left, _MISSING) is not _MISSING:
        return False
    for name, value in values:
        object.__setattr__(self, name, value)
    return True


def _compiled_init(cls: Any) -> Any:
    """Return the `__init__` of a class."""
    known: dict[str, Any] = {"_MISSING": _MISSING}
    places: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for number, each in enumerate(getattr(cls, _FIELDS)):
        alias, put, made, convert = each.alias, f"_put{number}", f"_default{number}", f"_convert{number}"
        default, told, value = each.default_value, each.alias, each.alias
        if not each.init and default is _MISSING:
            continue
        if isinstance(default, Factory):
            known[made] = default.make
            fresh = f"{made}(self)" if default.takes_self else f"{made}()"
            told = f"{alias}=_MISSING"
            value = f"({fresh} if {alias} is _MISSING else {alias})" if each.init else fresh
        elif default is not _MISSING:
            known[made] = default
            told, value = f"{alias}={made}", alias if each.init else made
        if each.init:
            (keywords if each.kw_only else places).append(told)
        if each.converter is not None:
            known[convert], value = each.converter, f"{convert}({value})"
        known[put] = _setter(cls, each.name)
        body.append(f" {put}(self, {value})\n")
    words = ", ".join(["self", *places, *(["*"] if keywords else []), *keywords])
    exec(f"def __init__({words}):\n{''.join(body) or ' pass'}", known)  # noqa: S102 - only names of fields
    init = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _setter(cls: Any, name: str) -> Callable[[Any, Any], None]:
    """Return what sets a field of an object that refuses to be changed: its slot, if it has one."""
    slot = getattr(cls, name, None)
    if type(slot).__name__ == "member_descriptor":
        setter: Callable[[Any, Any], None] = slot.__set__  # type: ignore[union-attr]
        return setter
    return lambda self, value: object.__setattr__(self, name, value)


_Key = Callable[[Any], Any]
_compared: dict[Any, _Key] = {}
_hashed: dict[Any, _Key] = {}
_evolved: dict[Any, tuple[tuple[str, str], ...]] = {}


def _compare_key(cls: Any) -> _Key:
    """Return what returns the compared values of an object of the class."""
    key = _compared.get(cls)
    if key is None:
        key = _compared[cls] = _values_of([each.name for each in getattr(cls, _FIELDS) if each.eq])
    return key


def _values_of(names: list[str]) -> _Key:
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda value: (getattr(value, names[0]),)) if names else (lambda _: ())


def _equal(self: Any, other: Any) -> Any:
    cls = self.__class__
    if other.__class__ is not cls:
        return NotImplemented
    key = _compared.get(cls) or _compare_key(cls)
    return key(self) == key(other)


def _hash(self: Any) -> int:
    cls = self.__class__
    key = _hashed.get(cls)
    if key is None:
        key = _hashed[cls] = _values_of([each.name for each in getattr(cls, _FIELDS) if each.hashed])
    return hash(key(self))


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        key = _compare_key(self.__class__)
        return compare(key(self), key(other))

    return method


_less, _at_most, _more, _at_least = _ordered(lt), _ordered(le), _ordered(gt), _ordered(ge)


def _repr(self: Any) -> str:
    name = self.__class__.__qualname__.rsplit(">.", 1)[-1]
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in getattr(self, _FIELDS) if each.repr)
    return f"{name}({', '.join(shown)})"


def _refuse(self: Any, *_: Any) -> None:  # noqa: ARG001 - Python calls it so
    from attrs.exceptions import FrozenInstanceError

    raise FrozenInstanceError


def _state(self: Any) -> dict[str, Any]:
    return {each.name: getattr(self, each.name) for each in getattr(self, _FIELDS)}


def _set_state(self: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)


class _AttrsView:
    """The fields of a class as attrs knows them, made when attrs asks first."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def __get__(self, _: Any, cls: Any) -> Any:
        if cls not in self._made:
            self._made[cls] = self._of(cls)
        return self._made[cls]

    def _of(self, cls: Any) -> Any:
        import attr

        made = {}
        for each in getattr(cls, _FIELDS):
            default = each.default_value
            if isinstance(default, Factory):
                default = attr.Factory(default.make, takes_self=default.takes_self)  # type: ignore[call-overload]
            made[each.name] = attr.ib(
                default=attr.NOTHING if default is _MISSING else default,
                converter=each.converter, eq=each.eq, hash=each.hash, init=each.init,
                kw_only=each.kw_only, repr=each.repr, type=each.type,
            )  # fmt: skip
        return attr.fields(attr.make_class(cls.__name__, made))
