"""Who may import whom: every module of pcipt/ is held against one table."""

import ast
import importlib
import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULES = sorted(ROOT.glob("pcipt/**/*.py"))
LINES, ENGINE_LINES = 400, 300
MODULES_IN_A_FOLDER = 20

#  the version, the errors, how numbers are written, and what each release of Xen does
EVERYBODY = {
    "pcipt",
    "pcipt.errors",
    "pcipt.words",
    "pcipt.values",
    "pcipt.light",
    "pcipt.hints",
    "pcipt.lazy",
    "pcipt.xen.releases",
}

#  room: the rooms it may import besides itself
ARROWS = {
    "pci": set(),
    "firmware": {"pci"},
    "remap": {"pci", "firmware"},
    "watch": {"pci"},
    "xen": {"pci"},
    "host": {"pci"},
    "engine": {"pci", "firmware", "remap"},
    "daemon": {"pci", "firmware", "remap", "watch", "xen", "host", "engine"},
    "cli": {"pci", "firmware", "host"},
    "api": {"pci", "host"},
}

#  single modules: what else one of them may import, and why
DOORS = {
    #  what Xen can be asked and told, whichever Xen it is, and what its command line and its console say
    "pcipt.engine.*": {
        "pcipt.xen.interface",
        "pcipt.xen.pf_fixup",
        "pcipt.xen.boot_words",
        "pcipt.xen.complaints",
        "pcipt.xen.complaint_texts",
        "pcipt.xen.dma_faults",
    },
    "pcipt.engine.interfaces": {"pcipt.host.iomem"},  # the value that a host answers with
    #  the names for other programs
    "pcipt": {
        "pcipt.api.client",
        "pcipt.api.machine",
        "pcipt.pci.address",
        "pcipt.pci.bars",
        "pcipt.pci.bridge",
        "pcipt.pci.capabilities.walk",
        "pcipt.pci.finding",
        "pcipt.pci.function",
        "pcipt.pci.ids",
        "pcipt.pci.machine",
        "pcipt.pci.units",
    },
    #  how the control socket is spoken
    "pcipt.api.client": {"pcipt.cli.machine.client", "pcipt.daemon.control.protocol"},
    "pcipt.cli.*": {"pcipt.daemon.control.protocol"},  # the socket's message types
    "pcipt.cli.machine.pvh": {"pcipt.xen.command_line"},  # how Xen reads its options
    "pcipt.cli.machine.host": {"pcipt.xen.boot_words"},  # what Xen said of its IOMMU
    "pcipt.cli.commands.daemon": {"pcipt.daemon.*"},  # starts the service
    "pcipt.cli.commands.replay": {"pcipt.daemon.replay.player"},  # runs the engine on a recording
    "pcipt.cli.commands.decode": {"pcipt.watch.*", "pcipt.remap.*"},  # decodes a recording without a daemon
}

#  what only these may import
RESERVED = {
    "pcipt._hypervisor": {"pcipt.xen.*"},
    "pcipt._files": {"pcipt.host.*"},
    "pcipt.xen.simulated": {"pcipt.xen.simulated.*", "pcipt.daemon.replay.*"},
    "pcipt._decode": {"pcipt.pci.*", "pcipt.firmware.*", "pcipt.remap.*", "pcipt.watch.*"},
    "pyroute2": {"pcipt.host.uevent_parser"},
    #  two load a subcommand's module by its name, one a module without its package
    "importlib": {
        "pcipt.lazy",  # the modules of the package itself, by its own table
        "pcipt.cli.main",
        "pcipt.cli.parts",
        "pcipt.host.uevent_parser",
    },
}

PURE = {"pci", "firmware", "remap"}
PURE_LIBRARY = {
    "abc", "array", "bisect", "collections", "enum", "functools", "heapq", "html", "itertools", "math",
    "operator", "re", "string", "struct", "types", "typing", "zlib",
}  # fmt: skip
PURE_FOREIGN = {"attrs"}
FORBIDDEN_NAMES = {
    "open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__", "__builtins__",
}  # fmt: skip


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "pcipt" and len(parts) > 1 else ""


def fits(module, patterns):
    return any(
        module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1]))
        for pattern in patterns
    )


def is_module(name):
    base = ROOT.joinpath(*name.split("."))
    known = base.is_dir() or base.with_suffix(".py").exists()
    return known or name in RESERVED  # the extensions may not be built


def imports_of(module, package, tree):
    """List (line, imported module), also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = module if package else module.rpartition(".")[0]
                above = above.rsplit(".", node.level - 1)[0] if node.level > 1 else above
                source = f"{above}.{source}".rstrip(".")
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                inside = source.partition(".")[0] == "pcipt"
                yield node.lineno, submodule if inside and is_module(submodule) else source


def faults_of(module, source, *, package=False):
    """Say what is wrong with one module; nothing is an empty list."""
    tree = ast.parse(source)
    room = room_of(module)
    found = []
    for line, imported in imports_of(module, package, tree):
        if not is_allowed(module, room, imported):
            found.append(f"{module}:{line} imports {imported}")
        elif room in PURE and not is_pure(imported):
            found.append(f"{module}:{line} imports {imported}, which a pure room may not")
    if room in PURE:
        found += [
            f"{module}:{node.lineno} uses {node.id}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES
        ]
    found += [
        f"{module}:{node.lineno} imports by a name that is not one of its room"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and not named_beginning(node).startswith(f"pcipt.{room}.")
    ]
    lines = len(source.splitlines())
    most = ENGINE_LINES if room == "engine" else LINES
    if lines > most:
        found.append(f"{module} has {lines} lines, more than {most}")
    return found


def named_beginning(call):
    """Give what is certain of the first argument's beginning."""
    argument = call.args[0] if call.args else None
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else ""


def is_allowed(module, room, imported):
    top = imported.partition(".")[0]
    for reserved, users in RESERVED.items():
        if fits(imported, {f"{reserved}.*"}):
            return fits(module, users)
    if top != "pcipt" or imported in EVERYBODY:
        return True
    if room_of(imported) in {room, *ARROWS.get(room, ())}:
        return True
    return any(fits(module, {door}) and fits(imported, targets) for door, targets in DOORS.items())


def is_pure(imported):
    top = imported.partition(".")[0]
    return top == "pcipt" or top in PURE_LIBRARY | PURE_FOREIGN


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_along_the_arrows(path):
    assert faults_of(name_of(path), path.read_text(), package=path.name == "__init__.py") == []


def test_every_room_is_in_the_table():
    assert {room_of(name_of(path)) for path in MODULES} - {
        "",
        "errors",
        "words",
        "values",
        "light",
        "hints",
        "lazy",
    } == set(ARROWS)


def test_no_folder_has_more_modules_than_a_reader_can_take_in():
    folders = {path.parent for path in MODULES}
    counts = {folder: len([path for path in MODULES if path.parent == folder]) - 1 for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MODULES_IN_A_FOLDER} == {}


def test_every_folder_is_packaged():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert packages == sorted({name_of(path.parent / "__init__.py") for path in MODULES})


def test_arrows_form_no_circle():
    order = []
    while len(order) < len(ARROWS):
        ready = [room for room, below in ARROWS.items() if room not in order and below <= set(order)]
        assert ready, f"{set(ARROWS) - set(order)} import each other"
        order += ready


def test_no_door_stays_open_that_nobody_uses():
    for door, targets in DOORS.items():
        used = {
            target
            for path in MODULES
            if fits(name_of(path), {door})
            for _, imported in imports_of(
                name_of(path), path.name == "__init__.py", ast.parse(path.read_text())
            )
            for target in targets
            if fits(imported, {target})
        }
        assert used == targets, f"{door} needs {sorted(used)} only"


def isort_key(name):
    """Sort as ruff does: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_lists_its_public_names(room):
    package = importlib.import_module(f"pcipt.{room}")
    listed = getattr(package, "__all__", [])
    assert list(listed) == sorted(set(listed), key=isort_key)
    for name in listed:
        assert getattr(package, name) is not None
    tree = ast.parse((ROOT / "pcipt" / room / "__init__.py").read_text())
    taken = {
        alias.asname or alias.name
        for node in ast.walk(tree)  # a type checker sees the names that are loaded when they are asked for
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert taken <= set(listed)


#  module, source -> whether it is refused
SAMPLES = [
    ("pcipt.pci.bars", "from pcipt.errors import AddressError", False),
    ("pcipt.pci.bars", "from pcipt import errors", False),
    ("pcipt.pci.bars", "from pcipt import __version__", False),
    ("pcipt.pci.bars", "from pcipt.pci.config import ConfigSpace", False),
    ("pcipt.pci.bars", "import re, struct\nfrom collections.abc import Sequence\nimport attrs", False),
    ("pcipt.pci.bars", "from pcipt import _decode", False),
    ("pcipt.pci.bars", "from pcipt._decode import lib", False),
    ("pcipt.pci.bars", "import pcipt.host.sysfs", True),
    ("pcipt.pci.bars", "from pcipt.host.sysfs import read_machine", True),
    ("pcipt.pci.bars", "from pcipt import host", True),
    ("pcipt.pci.bars", "from .. import host", True),
    ("pcipt.pci.bars", "from ..host import sysfs", True),
    ("pcipt.pci.bars", "from . import config", False),
    ("pcipt.pci.bars", "def f():\n    from pcipt.firmware import dmar", True),  # late
    ("pcipt.pci.bars", "if TYPE_CHECKING:\n    from pcipt.firmware import dmar", True),
    ("pcipt.pci.bars", "import os", True),
    ("pcipt.pci.bars", "import os.path", True),
    ("pcipt.pci.bars", "from time import monotonic", True),
    ("pcipt.pci.bars", "import importlib", True),
    ("pcipt.pci.bars", "import builtins", True),
    ("pcipt.pci.bars", "import numpy", True),
    ("pcipt.pci.bars", "from pcipt import _hypervisor", True),
    ("pcipt.pci.bars", "open('x')", True),
    ("pcipt.pci.bars", "read = open", True),
    ("pcipt.pci.bars", "print('x')", True),
    ("pcipt.pci.bars", "input()", True),
    ("pcipt.pci.bars", "exec('x')", True),
    ("pcipt.pci.bars", "eval('x')", True),
    ("pcipt.pci.bars", "__import__('os')", True),
    ("pcipt.pci.bars", "reader.open()", False),  # another's method
    ("pcipt.pci.bars", "# a line\n" * 400, False),
    ("pcipt.pci.bars", "# a line\n" * 401, True),
    ("pcipt.engine.queue", "# a line\n" * 301, True),
    ("pcipt.firmware.acpi.dmar", "from pcipt.pci import Sbdf", False),
    ("pcipt.firmware.acpi.dmar", "from pcipt.remap.plan import plan", True),
    ("pcipt.remap.plan", "from pcipt.firmware.coverage import Coverage", False),
    ("pcipt.remap.plan", "from pcipt.xen.interface import Hypervisor", True),
    ("pcipt.remap.plan", "from pcipt import engine", True),
    ("pcipt.watch.kprobe", "import os\nfrom pcipt.pci import Sbdf\nfrom pcipt._decode import lib", False),
    ("pcipt.watch.kprobe", "from pcipt.host import sysfs", True),
    ("pcipt.watch.kprobe", "from pcipt.firmware import mcfg", True),
    ("pcipt.xen.binding", "from pcipt._hypervisor import ffi, lib", False),
    ("pcipt.xen.binding", "import pcipt._hypervisor", False),
    ("pcipt.xen.binding", "from pcipt._decode import lib", True),
    ("pcipt.host.sysfs", "from pcipt._hypervisor import ffi", True),
    ("pcipt.host.sysfs", "from pcipt.xen import interface", True),
    ("pcipt.host.sysfs", "import pyroute2", True),
    ("pcipt.host.uevent_parser", "from pyroute2.netlink.uevent import MarshalUevent", False),
    ("pcipt.engine.engine", "from pyroute2 import IPRoute", True),
    ("pcipt.engine.engine", "from pcipt.cli import main", True),
    (
        "pcipt.engine.engine",
        "from pcipt.xen.interface import Hypervisor\nimport pcipt.remap.plan",
        False,
    ),
    ("pcipt.engine.engine", "from pcipt import _hypervisor", True),
    ("pcipt.engine.engine", "from pcipt.xen.libxc import open_libxc", True),
    ("pcipt.engine.engine", "from pcipt.xen.simulated.hypervisor import SimulatedXen", True),
    ("pcipt.engine.engine", "from pcipt.daemon.loop import Loop", True),
    ("pcipt.engine.engine", "from pcipt.host import sysfs", True),
    ("pcipt.daemon.live", "from pcipt.xen.simulated.hypervisor import SimulatedXen", True),
    ("pcipt.daemon.replay.recording", "from pcipt.xen.simulated.hypervisor import SimulatedXen", False),
    ("pcipt.cli.commands.status", "from pcipt.daemon.control.protocol import Request", False),
    ("pcipt.cli.commands.status", "from pcipt.daemon.control import protocol", False),
    ("pcipt.cli.commands.status", "from pcipt.engine.engine import Engine", True),
    ("pcipt.cli.commands.status", "from pcipt import daemon", True),
    (
        "pcipt.cli.commands.status",
        "import pcipt.daemon.control.protocols",
        True,
    ),  # another module whose name begins alike
    ("pcipt.cli.commands.status", "import importlib.util", True),
    ("pcipt.cli.main", "import importlib", False),
    ("pcipt.cli.main", "importlib.import_module(f'pcipt.cli.{name}')", False),
    ("pcipt.cli.main", "importlib.import_module('pcipt.cli.commands.status')", False),
    ("pcipt.cli.main", "importlib.import_module(f'pcipt.{name}')", True),
    ("pcipt.cli.main", "importlib.import_module(f'{name}')", True),
    ("pcipt.cli.main", "importlib.import_module(name)", True),
    ("pcipt.cli.main", "importlib.import_module('pcipt.remap.plan')", True),
    ("pcipt.cli.commands.daemon", "from pcipt.daemon.daemon import Daemon", False),
    ("pcipt.cli.commands.daemon", "from pcipt.remap.plan import plan", True),
    ("pcipt.cli.commands.list", "from pcipt.remap.plan import plan", True),
    ("pcipt.errors", "from pcipt.pci import Sbdf", True),  # nobody would be free to import it
    ("pcipt", "from pcipt.pci import Sbdf", True),
]


@pytest.mark.parametrize(("module", "source", "refused"), SAMPLES)
def test_the_checker_itself(module, source, refused):
    assert bool(faults_of(module, source)) is refused


def test_the_checker_knows_packages():
    assert faults_of("pcipt.pci", "from .bars import Bar", package=True) == []
    assert faults_of("pcipt.pci", "from ..host import sysfs", package=True) != []
    assert faults_of("pcipt.pci", "from . import host", package=True) == []  # pcipt.pci.host, not pcipt.host
