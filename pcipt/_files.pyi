# What reads files at once; csrc/files.h says what the call means.

from typing import Any

class _Ffi:
    def new(self, cdecl: str, init: object = ...) -> Any: ...
    def buffer(self, cdata: object, size: int = ...) -> Any: ...

class _Lib:
    PCIPT_FILES_MOST: int
    def pcipt_files_read(
        self, directory: int, names: bytes, files: Any, count: int, content: Any, room: int
    ) -> None: ...

lib: _Lib
ffi: _Ffi
