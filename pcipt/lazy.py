"""Load the names of a package when they are first asked for: a command pays only for what it uses."""

from collections.abc import Callable, Mapping
from importlib import import_module
from sys import modules


def loader(package: str, names: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """Return the `__getattr__` of a package (PEP 562). `names` has, for each of its modules, the names it
    defines for the package. A name that was loaded stays in the package.

    The function that is returned raises AttributeError for every other name.
    """
    homes = {name: module for module, several in names.items() for name in several}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(modules[package], name, found)
        return found

    return load
