# What the decoders offer; csrc/decode.h says what each call means.

from typing import Any

class _CData:
    def __getattr__(self, name: str) -> Any: ...
    def __getitem__(self, index: int) -> Any: ...

class _Ffi:
    NULL: _CData
    def new(self, cdecl: str, init: object = ...) -> Any: ...
    def from_buffer(self, cdecl: str, data: object) -> Any: ...
    def buffer(self, cdata: object, size: int = ...) -> Any: ...

class _Lib:
    PCIPT_WRITE: int
    PCIPT_ECAM: int
    PCIPT_LOST: int
    PCIPT_NO_VCPU: int
    PCIPT_PARTS: int
    PCIPT_OPT_PER_VCPU: int
    PCIPT_OPT_AMD: int
    PCIPT_OPT_READS: int
    PCIPT_OPT_GUESS_ECAM: int
    def pcipt_ports_init(self, ports: _CData, options: int) -> None: ...
    def pcipt_ports_region(
        self, ports: _CData, base: int, segment: int, start_bus: int, end_bus: int
    ) -> int: ...
    def pcipt_ports_forget(self, ports: _CData, vcpu: int) -> None: ...
    def pcipt_ports_decode(
        self,
        ports: _CData,
        records: _CData,
        count: int,
        out: _CData,
        room: int,
        consumed: _CData,
        produced: _CData,
    ) -> int: ...
    def pcipt_trace_init(self, trace: _CData, domain: int, mmio_start: int, mmio_end: int) -> None: ...
    def pcipt_trace_decode(
        self,
        trace: _CData,
        data: _CData,
        length: int,
        out: _CData,
        room: int,
        consumed: _CData,
        produced: _CData,
    ) -> int: ...
    def pcipt_trace_length(self, header: int) -> int: ...

lib: _Lib
ffi: _Ffi
