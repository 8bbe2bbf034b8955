"""Builds the compiled twins of the kernels from `_native/` into `casstore/kernels/`.

Every `_native/NAME.pyx` becomes `casstore.kernels._NAME_c`, linked with the C files that it lists in SOURCES.
Switches (environment): CASSTORE_SANITIZE=1 (ASan, UBSan), CASSTORE_COVERAGE=1 (gcov), CASSTORE_DEBUG=1.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE = Path("_native")
SOURCES = {
    "tarscan": ["tarscan.c", "tar_header.c"],
    "cut": ["cut.c"],
    "hashing": ["sha256.c"],
    "table": ["table.c"],
    "spans": ["spans.c"],
    "deflate": [
        *("deflate_parse.c", "deflate_tables.c", "deflate_write.c", "stretch.c", "trace.c"),
        *("engine.c", "engines.c", "engine_go.c", "engine_go_chain.c", "engine_go_fast.c", "engine_huffman.c"),
        "engine_proof.c",
        *("engine_zlib.c", "engine_zlib_chains.c", "engine_zlib_trees.c"),
        *("engine_klauspost.c", "engine_klauspost_blocks.c", "engine_klauspost_match.c"),
        "engine_klauspost_fast.c",
    ],
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
        [str(NATIVE / f"{name}.pyx")],
        include_dirs=[str(NATIVE)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        depends=[str(header) for header in sorted(NATIVE.glob("*.h"))],
    )
    for name in SOURCES
    if (NATIVE / f"{name}.pyx").exists()
]
extensions = cythonize(
    extensions,
    build_dir="build/cython",
    compiler_directives={"language_level": "3", "boundscheck": False, "wraparound": False},
)
# Only now: cythonize copies what sources it is told of into build_dir, where NAME.c comes out of NAME.pyx.
for extension in extensions:
    name = extension.name.rpartition("._")[2].removesuffix("_c")
    extension.sources += [str(NATIVE / source) for source in SOURCES[name]]

setup(ext_modules=extensions)
