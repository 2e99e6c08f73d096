"""Recordings of configuration accesses in all their formats, recognised by their content.

A damaged record is yielded as `Damaged` where it stood and left out; CONFIG_ADDRESS is forgotten with it.
What cannot be told apart from another format (an empty file) holds nothing either way.
"""

import enum
from collections.abc import Iterator, Sequence

import attrs

from pcipt.errors import InputError, MalformedError
from pcipt.pci.write import ConfigRead, ConfigWrite, EcamRegion, Lost
from pcipt.watch.json_lines import parse_access, parse_write
from pcipt.watch.kprobe_text import parse_line
from pcipt.watch.ports import ACCESS, Batch, LatchOptions, PortDecoder
from pcipt.watch.stream import Stream
from pcipt.watch.xentrace import CPU_CHANGE, Damage, TraceDecoder, looks_like_trace

MAGIC = b"PCIPTPRT"
VERSION = 1
HEADER_SIZE = 24
CHUNK = 12288 * ACCESS.size
_LINES = 512  # accesses given to the decoder at once


class Format(enum.Enum):
    PORTS_JSONL = "ports-jsonl"
    WRITES_JSONL = "writes-jsonl"
    PORTS_BIN = "ports-bin"
    KPROBE = "kprobe"
    XENTRACE = "xentrace"


_FORMATS = ", ".join(form.value for form in Format)


@attrs.frozen
class Options:
    """`form` None is recognised; `per_vcpu` concerns ports only, an xentrace has a latch for each CPU
    anyway.
    """

    form: Format | None = None
    per_vcpu: bool = False
    amd: bool = False
    reads: bool = True
    regions: Sequence[EcamRegion] = ()

    def latch(self) -> LatchOptions:
        return LatchOptions(self.per_vcpu, self.amd, self.reads, self.regions, not self.regions)


@attrs.frozen
class Damaged:
    """A record that was left out: `unit` says what `position` counts (line from 1, byte from 0)."""

    position: int
    unit: str
    why: str

    def __str__(self) -> str:
        where = f"line {self.position}" if self.unit == "line" else f"byte {self.position:#x}"
        return f"{where}: {self.why}"


Item = ConfigWrite | ConfigRead | Lost | Damaged


class Reader:
    """Reads recordings one after the other as pieces of one stream: the latch lives on between them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ports = PortDecoder(options.latch())
        self._trace: TraceDecoder | None = None
        self._stream: Stream | None = None

    @property
    def done(self) -> float | None:
        """Tell which part of the present recording is read, from 0 to 1; None where nobody knows."""
        return self._stream.done if self._stream is not None else None

    @property
    def unknown(self) -> int:
        """Data accesses before which no CONFIG_ADDRESS was seen."""
        return self._ports.unknown + (self._trace.unknown if self._trace is not None else 0)

    @property
    def outside(self) -> int:
        """ECAM accesses outside of all known regions."""
        return self._ports.outside

    def read(self, path: str) -> Iterator[Item]:
        """Walk a recording; `-` is standard input.

        Raises: InputError where the file cannot be read or is no recording.
        """
        with Stream(path) as stream:
            form = self._options.form or recognise(stream.head)
            if form is None:
                raise InputError(path, f"is no recording that pcipt knows; expected one of {_FORMATS}")
            self._stream = stream
            try:
                if form is Format.PORTS_BIN or form is Format.XENTRACE:
                    for piece in self._binary(stream, form):
                        if isinstance(piece, Batch):
                            yield from piece
                        else:
                            yield piece
                else:
                    yield from self._text(stream, form)
            except MalformedError as error:
                self._ports.forget()
                yield Damaged(error.offset, "byte", error.why)
            finally:
                self._stream = None

    def batches(self, path: str) -> Iterator[Batch | Damaged]:
        """Walk a binary recording by batches, making no value per record."""
        with Stream(path) as stream:
            form = self._options.form or recognise(stream.head)
            if form is not Format.PORTS_BIN and form is not Format.XENTRACE:
                raise InputError(path, "is no binary recording")
            yield from self._binary(stream, form)

    def _binary(self, stream: Stream, form: Format) -> Iterator[Batch | Damaged]:
        if form is Format.XENTRACE:
            return self._xentrace(stream)
        return self._ports_bin(stream)

    def _ports_bin(self, stream: Stream) -> Iterator[Batch | Damaged]:
        header = stream.read(HEADER_SIZE)
        if not header:
            return
        version, size = int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")
        if len(header) < HEADER_SIZE or header[:8] != MAGIC or version != VERSION or size != ACCESS.size:
            raise InputError(stream.name, "has no header of a *.ports.bin of version 1")
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        while True:
            start = stream.position
            filled = stream.readinto(buffer)
            first = self._ports.records
            for batch in self._ports.decode(view[: filled - filled % ACCESS.size]):
                yield batch
                for index in batch.damaged:
                    at = start + (index - first) * ACCESS.size
                    yield Damaged(at, "byte", "size or flags are none that a record has")
            if filled % ACCESS.size:
                at = start + filled - filled % ACCESS.size
                yield Damaged(at, "byte", f"the record is cut after {filled % ACCESS.size} bytes")
            if filled < CHUNK:
                stream.read(1)  # nothing, or the damage in compressed data that ended it
                return

    def _xentrace(self, stream: Stream) -> Iterator[Batch | Damaged]:
        trace = self._trace = TraceDecoder(
            self._options.regions, amd=self._options.amd, reads=self._options.reads
        )
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        while filled := stream.readinto(buffer):
            for piece in trace.decode(view[:filled]):
                yield _damaged(piece) if isinstance(piece, Damage) else piece
        if (cut := trace.finish()) is not None:
            yield Damaged(cut.position, "byte", f"the record is cut after {cut.size} bytes")

    def _text(self, stream: Stream, form: Format) -> Iterator[Item]:
        waiting = bytearray()
        for number, line in enumerate(stream.lines(), 1):
            try:
                item = _parsed(form, line, number, stream.name)
            except MalformedError as error:
                yield from self._decoded(waiting)
                self._ports.forget()
                yield Damaged(number, "line", error.why)
                continue
            if isinstance(item, bytes):
                waiting += item
                if len(waiting) >= _LINES * ACCESS.size:
                    yield from self._decoded(waiting)
            elif item is not None:
                yield item
        yield from self._decoded(waiting)

    def _decoded(self, waiting: bytearray) -> Iterator[Item]:
        records = bytes(waiting)
        waiting.clear()
        for batch in self._ports.decode(records):
            yield from batch


def _parsed(form: Format, line: bytes | None, number: int, source: str) -> bytes | ConfigWrite | Lost | None:
    """Read one line: bytes are an access for the decoder, None is a line that says nothing."""
    if line is None:
        raise MalformedError(source, number, "the line is longer than any record")
    if form is Format.KPROBE:
        return parse_line(line.decode("utf-8", "replace"), (), number, source)
    if not line.strip():
        return None
    return (parse_access if form is Format.PORTS_JSONL else parse_write)(line, number, source)


def recognise(head: bytes) -> Format | None:
    """Tell a recording's format from its first bytes; None if it is none of ours."""
    if head.startswith(MAGIC):
        return Format.PORTS_BIN
    form = _recognise_text(head)
    if b"\0" in head and (form is None or head.startswith(CPU_CHANGE)):
        return Format.XENTRACE if looks_like_trace(head) else None
    return form


def _recognise_text(head: bytes) -> Format | None:
    """Tell which lines these are; a damaged one among them may hold anything."""
    for line in head.split(b"\n"):
        text = line.strip()
        if text.startswith(b"{"):
            if b'"sbdf"' in text:
                return Format.WRITES_JSONL
            if b'"port"' in text or b'"ecam"' in text:
                return Format.PORTS_JSONL
        elif b"conf1: (" in text or b"mmcfg: (" in text or b"[LOST" in text or text.startswith(b"# tracer"):
            return Format.KPROBE
    return Format.KPROBE if not head.strip() else None


def _damaged(damage: Damage) -> Damaged:
    return Damaged(damage.position, "byte", "is no trace record")
