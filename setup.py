"""The three C extensions; everything else is in pyproject.toml.

They keep to the limited API of CPython 3.11, so that one wheel per platform serves every
later version. Free-threaded builds have no limited API and get an ordinary extension.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")


def extension(name: str, source: str) -> Extension:
    return Extension(
        name,
        sources=[source],
        depends=[str(header) for header in sorted(Path(source).parent.glob("*.h"))],
        # The kernels gain a fifth from unrolling; -O2, the default of some builds, forgoes it.
        extra_compile_args=["-O3", "-funroll-loops"],
        define_macros=[("Py_LIMITED_API", "0x030b0000")] if LIMITED else [],
        py_limited_api=LIMITED,
    )


setup(
    ext_modules=[
        extension("packstone.chunking._kernel", "src/packstone/chunking/_kernel.c"),
        extension("packstone.codec._delta", "src/packstone/codec/_delta.c"),
        extension("packstone.filesystem._scan", "src/packstone/filesystem/_scan.c"),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
