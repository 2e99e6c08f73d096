"""Import pyroute2's parser of the kernel's hot-plug messages without the rest of pyroute2.

The package pyroute2 imports all of its modules, which costs 9 MB and time at start. So an empty package of
this name is installed while the parser's own module is imported, and removed afterwards. A later import of
pyroute2 then gets the complete package. If this fails, pyroute2 is imported as usual.
"""

import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from pcipt.hints import Any, Protocol

PACKAGE = "pyroute2"


class Parser(Protocol):
    """The part of pyroute2's parser that pcipt uses."""

    def parse(self, data: bytes, /) -> Iterable[Mapping[str, Any]]:
        """Yield the messages in `data`, each as a mapping from key to value."""


def make_parser() -> Parser:
    """Return a new parser of pyroute2. Raises ImportError if pyroute2 is not installed."""
    parser: Parser = _parser_class()()
    return parser


@cache
def _parser_class() -> Any:
    """Import and return pyroute2's class of the parser. Raises ImportError if pyroute2 is not installed."""
    try:
        with bare_package():
            from pyroute2.netlink.uevent import MarshalUevent
    except Exception:  # noqa: BLE001 - this way to import can fail with any exception
        from pyroute2.netlink.uevent import MarshalUevent
    return MarshalUevent


@contextmanager
def bare_package(name: str = PACKAGE) -> Iterator[None]:
    """Let modules of the package `name` be imported in the block without running the package's own code.

    After the block, the package and its modules are removed from sys.modules, so that a later import gets the
    complete package. Do nothing if the package is already imported or not installed.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        yield
        return
    bare = types.ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = bare
    try:
        yield
    finally:
        for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[loaded]
