"""Builds the one extension, ``fastverify._core``; everything else is in pyproject.toml.

It needs a C compiler, Python's headers and a libcrypto of OpenSSL 3 or 4 to link, and no OpenSSL headers:
``src/openssl.pxd`` declares the few calls used, so the runtime library that Python's own ``ssl`` loads is enough. Which
one can be linked is found by linking, and a build that finds none stops with the name of the package to install.

``FASTVERIFY_CRYPTO=shared`` (the default) or ``static`` (a position-independent ``libcrypto.a``, its symbols kept
private) chooses the kind. ``CFLAGS`` is honoured: an optimisation level or ``-g`` given there wins over ours.
"""

from __future__ import annotations

import os
import re
import shlex
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, LinkError

# In every 3.x and 4.x and in no 1.1.1: a library that links this is one to run on. The program prints its version.
PROBE = """
#include <stdio.h>
extern int EVP_PKEY_fromdata(void *, void **, int, void *);
extern const char *OpenSSL_version(int);
int main(int argc, char **argv) {
    if (argc > 9) return EVP_PKEY_fromdata(0, 0, 0, 0);
    return puts(OpenSSL_version(0)) < 0;
}
"""

NO_COMPILER = """
fastverify's core is compiled C: building it needs a C compiler and Python's headers; a small program failed (above).
  Debian, Ubuntu:  apt-get install gcc python3-dev
  Fedora, RHEL:    dnf install gcc python3-devel
  Alpine:          apk add gcc musl-dev python3-dev
  macOS:           xcode-select --install
"""

NO_LIBCRYPTO = """
fastverify's core needs the runtime library of OpenSSL 3 or 4 (libcrypto, without headers), and none could be linked.
  Debian, Ubuntu:  apt-get install libssl3        (libssl3t64 on Debian 13 and Ubuntu 24.04)
  Fedora, RHEL:    dnf install openssl-libs
  Alpine:          apk add libcrypto3
  macOS:           brew install openssl@3
With FASTVERIFY_CRYPTO=static it is libcrypto.a that is looked for (libssl-dev, openssl-devel, openssl-libs-static).
"""


class Candidate(NamedTuple):
    """One way to link a libcrypto."""

    objects: list[str]
    arguments: list[str]


def candidates(kind: str) -> list[Candidate]:
    """The ways to try, first the OpenSSL generation of Python's own ``ssl``, so that one process loads one library."""
    majors = sorted((3, 4), key=lambda major: major != ssl.OPENSSL_VERSION_INFO[0])
    if sys.platform == "darwin":
        folders = [
            Path(prefix) / "opt" / f"openssl@{major}" / "lib"
            for major in majors
            for prefix in ("/opt/homebrew", "/usr/local")
        ]
        name = "libcrypto.a" if kind == "static" else "libcrypto.dylib"
        return [Candidate([str(folder / name)], []) for folder in folders if (folder / name).exists()]
    if kind == "static":
        return [Candidate([], ["-Wl,--exclude-libs,ALL", "-l:libcrypto.a", "-ldl", "-lpthread"])]
    # Also where this Python keeps its own libraries (conda and the like), with the path remembered for run time.
    own = str(Path(sys.base_prefix) / "lib")
    system = [Candidate([], [f"-l:libcrypto.so.{major}"]) for major in majors]
    return system + [Candidate([], [f"-L{own}", f"-Wl,-rpath,{own}", f"-l:libcrypto.so.{major}"]) for major in majors]


class BuildCore(build_ext):
    """build_ext, preceded by the choice of a libcrypto."""

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        kind = os.environ.get("FASTVERIFY_CRYPTO", "shared")
        if kind not in ("shared", "static"):
            raise SystemExit(f"FASTVERIFY_CRYPTO={kind}: it is shared or static")
        chosen, version = self.find_libcrypto(kind)
        self.announce(f"fastverify._core: {kind} libcrypto, {version}", level=2)

        flags = os.environ.get("CFLAGS", "")
        ext.extra_compile_args = ([] if re.search(r"-O\S", flags) else ["-O3"]) + ([] if "-g" in flags else ["-g0"])
        ext.extra_objects = chosen.objects
        ext.extra_link_args = chosen.arguments
        ext.define_macros = [("FASTVERIFY_BUILT_AGAINST", f'"{version}"'), ("FASTVERIFY_LINKAGE", f'"{kind}"')]
        # Generated C goes beside the object files; the source tree stays clean.
        ext.sources = cythonize([ext], include_path=["src"], build_dir=self.build_temp, force=self.force)[0].sources
        super().build_extension(ext)

    def find_libcrypto(self, kind: str) -> tuple[Candidate, str]:
        """The first candidate that links, and what it says it is."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("#include <Python.h>\n" + PROBE)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, include_dirs=self.include_dirs)
            except (CompileError, CCompilerError, OSError) as error:
                raise SystemExit(f"{error}\n{NO_COMPILER}") from None
            program = Path(folder) / "probe"
            flags = shlex.split(os.environ.get("CFLAGS", ""))  # what was compiled with sanitizers is linked with them
            for candidate in candidates(kind):
                arguments = [*candidate.arguments, *flags]
                try:
                    self.compiler.link_executable(objects + candidate.objects, str(program), extra_postargs=arguments)
                except (LinkError, CCompilerError, OSError):
                    continue
                return candidate, version_of(program)
        raise SystemExit(NO_LIBCRYPTO)


def version_of(program: Path) -> str:
    """What the linked probe prints; a cross-compiled one cannot be run here, and then it is not known."""
    try:
        return subprocess.run([program], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


setup(ext_modules=[Extension("fastverify._core", ["src/_core.pyx"])], cmdclass={"build_ext": BuildCore})
