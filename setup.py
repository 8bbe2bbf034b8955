"""Builds the compiled twins of the kernels from `_native/` into `casstore/kernels/`.

Every `_native/NAME.pyx` becomes `casstore.kernels._NAME_c`, linked with the C files that it lists in SOURCES.
Switches (environment): CASSTORE_SANITIZE=1 (ASan + UBSan), CASSTORE_COVERAGE=1 (gcov), CASSTORE_DEBUG=1 (-O0 -g).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE = Path("_native")
SOURCES = {
    "tarscan": ["tarscan.c"],
    "cut": ["cut.c"],
    "hashing": ["sha256.c"],
    "table": ["table.c"],
    "spans": ["spans.c"],
}

compile_args = ["-std=c11", "-O3", "-fno-strict-aliasing", "-fvisibility=hidden", "-Wall", "-Wextra"]
link_args: list[str] = []
if os.environ.get("CASSTORE_DEBUG"):
    compile_args = ["-std=c11", "-O0", "-g", "-Wall", "-Wextra"]
if os.environ.get("CASSTORE_SANITIZE"):
    compile_args += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    link_args += ["-fsanitize=address,undefined"]
if os.environ.get("CASSTORE_COVERAGE"):
    compile_args += ["--coverage"]
    link_args += ["--coverage"]

extensions = [
    Extension(
        f"casstore.kernels._{name}_c",
        [str(NATIVE / f"{name}.pyx"), *(str(NATIVE / source) for source in sources)],
        include_dirs=[str(NATIVE)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        depends=[str(header) for header in sorted(NATIVE.glob("*.h"))],
    )
    for name, sources in SOURCES.items()
    if (NATIVE / f"{name}.pyx").exists()
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={"language_level": "3", "boundscheck": False, "wraparound": False},
    )
)
