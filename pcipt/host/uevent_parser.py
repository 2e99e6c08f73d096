"""pyroute2's parser of the kernel's hot-plug messages, without the rest of pyroute2.

Its package imports everything it has, a database among it: 9 MB and much time at the start that a daemon
would spend for one small parser. So a bare package stands in while the parser's own module is imported, and
is taken away again: who imports pyroute2 later gets all of it. Where that fails, it is imported as usual.
"""

import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

PACKAGE = "pyroute2"


class Parser(Protocol):
    """What is used of it."""

    def parse(self, data: bytes, /) -> Iterable[Mapping[str, Any]]: ...


def make_parser() -> Parser:
    parser: Parser = _parser_class()()
    return parser


def _parser_class() -> Any:
    try:
        with bare_package():
            from pyroute2.netlink.uevent import MarshalUevent
    except Exception:  # noqa: BLE001 - saving memory may fail in any way that importing can
        from pyroute2.netlink.uevent import MarshalUevent
    return MarshalUevent


@contextmanager
def bare_package(name: str = PACKAGE) -> Iterator[None]:
    """Let modules of a package be imported without its own code, unless it is there already."""
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
