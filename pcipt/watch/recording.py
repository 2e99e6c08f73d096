"""Read recordings of configuration accesses in all formats. The format is recognised from the content.

A damaged record is skipped, and a `Damaged` is yielded in its place. CONFIG_ADDRESS (the register at port
0xcf8) is then forgotten, because the damaged record may have written it. An empty file is a recording
without records.
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
_LINES = 512  # accesses in one call of the decoder


class Format(enum.Enum):
    """The format of a recording. The value is the name that a user types."""

    PORTS_JSONL = "ports-jsonl"
    WRITES_JSONL = "writes-jsonl"
    PORTS_BIN = "ports-bin"
    KPROBE = "kprobe"
    XENTRACE = "xentrace"


_FORMATS = ", ".join(form.value for form in Format)


@attrs.frozen
class Options:
    """Options for reading recordings.

    `form`: the format, None to recognise it. `per_vcpu`: in a port recording, keep one CONFIG_ADDRESS for
    each vCPU instead of one for the domain (for an xentrace it is always one for each physical CPU). `amd`:
    use bits 27:24 of CONFIG_ADDRESS as bits 11:8 of the register offset. `reads`: yield reads too. `regions`:
    the known ECAM regions; without them the region is guessed in a port recording, and ECAM accesses of an
    xentrace are left out.
    """

    form: Format | None = None
    per_vcpu: bool = False
    amd: bool = False
    reads: bool = True
    regions: Sequence[EcamRegion] = ()

    def latch(self) -> LatchOptions:
        """Return the options of the port decoder. `guess_ecam` is True if there are no `regions`."""
        return LatchOptions(self.per_vcpu, self.amd, self.reads, self.regions, not self.regions)


@attrs.frozen
class Damaged:
    """A damaged record that was skipped, or a file that ends too early.

    `position` is a line number from 1 if `unit` is "line", a byte offset from 0 if `unit` is "byte".
    """

    position: int
    unit: str
    why: str

    def __str__(self) -> str:
        where = f"line {self.position}" if self.unit == "line" else f"byte {self.position:#x}"
        return f"{where}: {self.why}"


Item = ConfigWrite | ConfigRead | Lost | Damaged


class Reader:
    """A reader of recordings of configuration accesses: `read` and `batches` yield the content of a file.

    The port recordings that one `Reader` reads are parts of one stream: it keeps the value of CONFIG_ADDRESS
    from the end of one recording to the beginning of the next. Each xentrace file gets a new decoder.
    Raises: InputError if one of the `regions` in `options` is impossible, or if there are more than 16.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ports = PortDecoder(options.latch())
        self._trace: TraceDecoder | None = None
        self._stream: Stream | None = None

    @property
    def done(self) -> float | None:
        """Return the fraction of the recording that `read` has read so far, from 0 to 1.

        Return None if the fraction is unknown (standard input, a pipe, an empty file). Return None also while
        no recording is read by `read`.
        """
        return self._stream.done if self._stream is not None else None

    @property
    def unknown(self) -> int:
        """Return the number of accesses to the data ports (0xcfc to 0xcff) while CONFIG_ADDRESS was not
        known: in all port recordings so far, and in the latest xentrace. `read` does not yield them.
        """
        return self._ports.unknown + (self._trace.unknown if self._trace is not None else 0)

    @property
    def outside(self) -> int:
        """Return the number of ECAM accesses in port recordings that were outside of all known regions. Those
        of an xentrace are not counted.
        """
        return self._ports.outside

    def read(self, path: str) -> Iterator[Item]:
        """Yield the accesses, losses and damaged records of a recording in their order. The path `-` is
        standard input.

        A file that ends too early, or whose compressed data is damaged, yields a `Damaged` at the end. An
        empty file yields nothing.
        Raises: InputError, during iteration, if the file cannot be read, if its format is unknown, or if the
                header of a *.ports.bin is wrong.
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
        """Yield the batches and damaged records of a binary recording, without making a Python value for each
        access.

        Raises: InputError, during iteration, if the file cannot be read or is not a binary recording;
                MalformedError if compressed data is damaged. An empty file is a binary recording only if
                `options.form` says so.
        """
        with Stream(path) as stream:
            form = self._options.form or recognise(stream.head)
            if form is not Format.PORTS_BIN and form is not Format.XENTRACE:
                raise InputError(path, "is no binary recording")
            yield from self._binary(stream, form)

    def _binary(self, stream: Stream, form: Format) -> Iterator[Batch | Damaged]:
        """Return an iterator of the batches and damaged records of a *.ports.bin or of an xentrace file."""
        if form is Format.XENTRACE:
            return self._xentrace(stream)
        return self._ports_bin(stream)

    def _ports_bin(self, stream: Stream) -> Iterator[Batch | Damaged]:
        """Yield the batches and damaged records of a *.ports.bin; nothing if it has no bytes.

        Raises: InputError if the header is wrong or the file cannot be read; MalformedError if compressed
                data is damaged.
        """
        header = stream.read(HEADER_SIZE)
        if not header:
            return
        if len(header) < HEADER_SIZE:
            stream.read(1)  # raises if damaged compressed data ended the stream
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
                    yield Damaged(at, "byte", "no record has this size or these flags")
            if filled % ACCESS.size:
                at = start + filled - filled % ACCESS.size
                yield Damaged(at, "byte", f"the record is cut after {filled % ACCESS.size} bytes")
            if filled < CHUNK:
                stream.read(1)  # returns nothing, or raises if damaged compressed data ended the stream
                return

    def _xentrace(self, stream: Stream) -> Iterator[Batch | Damaged]:
        """Yield the batches and damaged records of an xentrace file; a record that is cut at the end is a
        `Damaged`.

        Raises: InputError if the file cannot be read; MalformedError if compressed data is damaged.
        """
        trace = self._trace = TraceDecoder(
            self._options.regions, amd=self._options.amd, reads=self._options.reads
        )
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        while filled := stream.readinto(buffer):
            for piece in trace.decode(view[:filled]):
                yield _damaged_from_trace(piece) if isinstance(piece, Damage) else piece
        if (cut := trace.finish()) is not None:
            yield Damaged(cut.position, "byte", f"the record is cut after {cut.size} bytes")

    def _text(self, stream: Stream, form: Format) -> Iterator[Item]:
        """Yield the items of a recording of lines, in the order of the lines.

        Port accesses are collected and decoded in groups of `_LINES`. A line that cannot be parsed yields a
        `Damaged`.
        Raises: InputError if the file cannot be read; MalformedError if compressed data is damaged. Both are
                raised after the accesses of the lines before them.
        """
        waiting = bytearray()
        try:
            for number, line in enumerate(stream.lines(), 1):
                try:
                    item = _parse(form, line, number, stream.name)
                except MalformedError as error:
                    yield from self._decode_waiting(waiting)
                    self._ports.forget()
                    yield Damaged(number, "line", error.why)
                    continue
                if isinstance(item, bytes):
                    waiting += item
                    if len(waiting) >= _LINES * ACCESS.size:
                        yield from self._decode_waiting(waiting)
                elif item is not None:
                    yield item
        except (InputError, MalformedError):  # of the stream: the lines before the damage are good
            yield from self._decode_waiting(waiting)
            raise
        yield from self._decode_waiting(waiting)

    def _decode_waiting(self, waiting: bytearray) -> Iterator[Item]:
        """Yield the accesses that the records in `waiting` mean, and empty `waiting`."""
        records = bytes(waiting)
        waiting.clear()
        for batch in self._ports.decode(records):
            yield from batch


def _parse(form: Format, line: bytes | None, number: int, source: str) -> bytes | ConfigWrite | Lost | None:
    """Return what one line describes: a write, a loss, or a binary record for the port decoder (bytes).
    Return None if the line is blank, or a comment in the format KPROBE.

    `line` is None if the line was too long. `number` is the line number, `source` the name of the recording.
    Raises: MalformedError with `number` as offset, if the line is too long or cannot be parsed.
    """
    if line is None:
        raise MalformedError(source, number, "the line is longer than any record", "line")
    if form is Format.KPROBE:
        return parse_line(line.decode("utf-8", "replace"), (), number, source)
    if not line.strip():
        return None
    return (parse_access if form is Format.PORTS_JSONL else parse_write)(line, number, source)


def recognise(head: bytes) -> Format | None:
    """Return the format of a recording from its first bytes, or None if it is not a known format.

    A text is recognised by its first line that shows a format; damaged lines before this line are ignored. No
    bytes, or only white space, give KPROBE.
    """
    if head.startswith(MAGIC):
        return Format.PORTS_BIN
    form = _format_of_text(head)
    if b"\0" in head and (form is None or head.startswith(CPU_CHANGE)):
        return Format.XENTRACE if looks_like_trace(head) else None
    return form


def _format_of_text(head: bytes) -> Format | None:
    """Return the format of the first line that shows one, or None. Damaged lines before this line are
    ignored.

    If `head` is empty or has only blank lines, the result is KPROBE.
    """
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


def _damaged_from_trace(damage: Damage) -> Damaged:
    """Return the `Damaged` for a `Damage` of the trace decoder."""
    return Damaged(damage.position, "byte", "is no trace record")
