"""Build the extension modules with cffi: `decode` (pure decoders), `files` (the files of a directory at once)
and `hypervisor` (calls to Xen).

`hypervisor` calls libxencall and libxenctrl. No module needs a Xen header or library to build. setup.py names
the builders; `python csrc/build.py NAME` builds one module in place.
"""

import pathlib
import sys

from cffi import FFI

HERE = pathlib.Path(__file__).resolve().parent


def builder(name: str, libraries: tuple[str, ...] = ()) -> FFI:
    """Return the cffi builder of the extension module `pcipt._NAME`, linked with `libraries`.

    It is built from NAME.cdef (the functions that Python calls), NAME.h and NAME.c.
    """
    ffi = FFI()
    ffi.cdef((HERE / f"{name}.cdef").read_text())
    ffi.set_source(
        f"pcipt._{name}",
        f'#include "{name}.h"\n',
        sources=[f"csrc/{name}.c"],
        depends=[f"csrc/{name}.h", f"csrc/{name}.cdef"],
        include_dirs=["csrc"],
        libraries=list(libraries),
        extra_compile_args=["-std=c11", "-O2"],
        py_limited_api=True,
    )
    return ffi


decode = builder("decode")
files = builder("files")
hypervisor = builder("hypervisor", ("dl",))

if __name__ == "__main__":
    built = {"decode": decode, "files": files, "hypervisor": hypervisor}[sys.argv[1]]
    built.compile(tmpdir=str(HERE.parent), verbose=True)
