"""What is fuzzed. A target takes bytes; only errors of pcipt may come of it, which are one line to a user."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from unittest import mock

import attrs

from pcipt.daemon.control.protocol import (
    METHODS,
    FrameError,
    ParameterError,
    checked_parameters,
    decode_frame,
)
from pcipt.daemon.document import Document
from pcipt.daemon.folder import Folder
from pcipt.daemon.settings import parse_settings
from pcipt.daemon.store import FileStore
from pcipt.errors import PciptError
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acpi.dmar import parse_dmar
from pcipt.firmware.acpi.fadt import parse_fadt
from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.madt import parse_madt
from pcipt.firmware.acpi.mcfg import parse_mcfg
from pcipt.firmware.acpi.root_tables import parse_root_table, parse_rsdp
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.pvh.memory_image import Piece, image_from_pieces
from pcipt.firmware.pvh.read_start_info import find_start_info
from pcipt.host import toolstack
from pcipt.host.dump import parse_dump
from pcipt.host.function.resource import parse_resource
from pcipt.host.iomem import parse_iomem
from pcipt.host.paste.tables import TextError, tables_in
from pcipt.host.uevents import UeventSource
from pcipt.pci import Address, RawFunction, decode_machine, parse_sbdf
from pcipt.pci.json_view import json_from_function
from pcipt.pci.notation.hidden import hidden_by
from pcipt.pci.notation.xl_guest import KINDS, parse_xl_guest
from pcipt.remap.ledger import Ledger
from pcipt.remap.ledger_json import ledger_from_json, ledger_to_json
from pcipt.remap.steps import step_from_json, step_to_json
from pcipt.watch.recording import Format, Options, Reader
from pcipt.xen.boot_words import parse_boot_words
from pcipt.xen.complaints import parse_complaints
from pcipt.xen.console import parse_devices
from pcipt.xen.dma_faults import parse_faults
from pcipt.xen.rangesets import parse_permissions
from pcipt.xen.releases import parse_version
from tests.fuzz import corpus
from tests.simulation.kernel import Netlink

ALLOWED = (PciptError, FrameError, ParameterError)
ADDRESSES = [parse_sbdf(text) for text in ("00:1c.0", "01:00.0", "01:00.1")]
XEN = parse_version("4.20.4")
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def config_space(data):
    """Up to three functions: a bridge first, as often as not."""
    parts = [data[:4096], data[4096:8192], data[8192:]] if len(data) > 4096 else [data]
    raws = [RawFunction(sbdf=sbdf, config=part) for sbdf, part in zip(ADDRESSES, parts, strict=False)]
    machine = decode_machine(raws)
    for function in machine.functions.values():
        json.dumps(json_from_function(function))


def dump(data):
    decode_machine(parse_dump(data).functions)


def table(data):
    parsed = parse_table(data)
    parsers = [parse_dmar, parse_ivrs, parse_madt, parse_fadt, parse_mcfg]
    if parsed is not None and parsed.signature in {"RSDT", "XSDT"}:
        parsers.append(parse_root_table)
    for parse in parsers if parsed is not None else ():
        with contextlib.suppress(PciptError):
            parse(parsed)
    with contextlib.suppress(PciptError):
        parse_rsdp(data)
    found = [data]
    with contextlib.suppress(TextError):  # what a person gave is no table: the command says so
        found = tables_in(data)
    judge(found, None, XEN)


def start_info(data):
    find_start_info(image_from_pieces([Piece(Address(0x10_0000), data)]))


def trace(data):
    """The first byte chooses the format, or none: it is recognised then."""
    forms = [None, *Format]
    with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
        file.write(data)
        file.flush()
        for form in (None, forms[data[0] % len(forms)]) if data else (None,):
            with contextlib.suppress(PciptError):
                list(Reader(Options(form)).read(file.name))


def frame(data):
    for each in data.removesuffix(b"\0").split(b"\0"):
        message = decode_frame(each)
        name = str(message.get("method", "")).rpartition(".")[2]
        if name in METHODS:
            checked_parameters(name, message.get("parameters"))


@cache
def source_of_messages():
    """Give a source and its socket; making a source takes longer than a hundred messages."""
    netlink = Netlink()
    return UeventSource(lambda: netlink), netlink


def message(data):
    source, netlink = source_of_messages()
    netlink.send(data)
    source.read()


def setting(data):
    parse_settings(data, "pcipt.toml")


def ledger(data):
    """As the files of the state directory: as they are, and with a checksum that fits."""
    directory = tempfile.mkdtemp(dir=MEMORY)
    try:
        for name in ("ledger", "mappings", "boot"):
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        FileStore(directory).load("boot")
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(data)
            for name in ("ledger", "mappings", "boot"):
                Document(Folder(directory), name, name).save(content)
            FileStore(directory).load("boot")
            json.dumps(ledger_to_json(ledger_from_json(content)))
    finally:
        shutil.rmtree(directory)


def step(data):
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        found = step_from_json(value)
        assert step_from_json(step_to_json(found)) == found
        found.apply(Ledger("boot"))


def iomem(data):
    parse_iomem(data)
    parse_resource(data)


def console(data):
    text = data.decode("utf-8", "replace")
    parse_devices(text)
    parse_permissions(text)
    list(parse_complaints(text))
    list(parse_faults(text))
    parse_boot_words(text)


def xl_guest(data):
    """Read a guest's configuration file; what was read names its line."""
    guest = parse_xl_guest(data.decode("utf-8", "replace"), "web.cfg")
    assert guest.kind in KINDS
    for device in guest.devices:
        assert (device.slot is None) == bool(device.name)
        assert device.text.endswith(device.options)


def hidden(data):
    """Read the items of a command line, and look for their functions."""
    for items in hidden_by(data.decode("utf-8", "replace")).values():
        for item in items:
            assert item.text
            assert set(item.functions(ADDRESSES)) <= set(ADDRESSES)


def words_of_xl(data):
    text = data.decode("utf-8", "replace")
    with mock.patch.object(toolstack, "_run", return_value=text):
        toolstack.read_xl_info()
        toolstack.read_console()


@attrs.frozen
class Target:
    """`corpus` makes good inputs; `run` takes any."""

    name: str
    corpus: Callable[[], list[bytes]]
    run: Callable[[bytes], None]

    def try_input(self, data):
        """Run one input. Raises: whatever no input may cause."""
        with contextlib.suppress(*ALLOWED):
            self.run(data)


TARGETS = {
    target.name: target
    for target in (
        Target("config-space", corpus.config_spaces, config_space),
        Target("dumps", corpus.dumps, dump),
        Target("tables", corpus.tables, table),
        Target("start-info", corpus.start_infos, start_info),
        Target("traces", corpus.traces, trace),
        Target("frames", corpus.frames, frame),
        Target("uevents", corpus.uevents, message),
        Target("settings", corpus.settings, setting),
        Target("ledger", corpus.ledgers, ledger),
        Target("steps", corpus.steps, step),
        Target("iomem", corpus.iomems, iomem),
        Target("consoles", corpus.consoles, console),
        Target("xl", corpus.words_of_xl, words_of_xl),
        Target("xl-guests", corpus.xl_guests, xl_guest),
        Target("hidden", corpus.hidden, hidden),
    )
}
