"""The two extension modules: what cffi needs to know to build them.

`decode` holds pure decoders, `hypervisor` the shim over libxencall and libxenctrl; neither needs a Xen header
or library to build. setup.py names the builders; `python csrc/build.py NAME` builds one in place.
"""

import pathlib
import sys

from cffi import FFI

HERE = pathlib.Path(__file__).resolve().parent


def builder(name: str, libraries: tuple[str, ...] = ()) -> FFI:
    """Make the builder of `pcipt._NAME` out of NAME.cdef (what Python calls), NAME.h and NAME.c."""
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
hypervisor = builder("hypervisor", ("dl",))

if __name__ == "__main__":
    {"decode": decode, "hypervisor": hypervisor}[sys.argv[1]].compile(tmpdir=str(HERE.parent), verbose=True)
