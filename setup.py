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

# What the fast paths call (src/openssl.pxd). One that does not link costs the fast path and nothing else.
FAST_PATHS = {
    "FASTVERIFY_FAST_HMAC": """
        SHA256_Init SHA256_Update SHA256_Final SHA384_Init SHA384_Update SHA384_Final SHA512_Init SHA512_Update
        SHA512_Final
    """,
    "FASTVERIFY_FAST_RSA": """
        BN_CTX_new BN_CTX_free BN_new BN_cmp BN_is_zero BN_is_one BN_bn2binpad BN_MONT_CTX_new BN_MONT_CTX_free
        BN_MONT_CTX_set BN_to_montgomery BN_mod_mul_montgomery
    """,
    "FASTVERIFY_FAST_ECDSA": """
        BN_add BN_sub BN_mod_inverse BN_mod_mul BN_nnmod EC_GROUP_new_by_curve_name EC_GROUP_dup
        EC_GROUP_free EC_GROUP_get0_order EC_GROUP_get0_cofactor EC_GROUP_get_curve EC_GROUP_set_generator
        EC_GROUP_precompute_mult EC_POINT_new EC_POINT_free EC_POINT_oct2point EC_POINT_mul EC_POINT_add
        EC_POINT_is_at_infinity EC_POINT_get_affine_coordinates EC_POINT_get_Jprojective_coordinates_GFp
    """,
}

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
        ext.define_macros = [
            ("FASTVERIFY_BUILT_AGAINST", f'"{version}"'),
            ("FASTVERIFY_LINKAGE", f'"{kind}"'),
            *((macro, str(int(self.links(calls(names), chosen)))) for macro, names in FAST_PATHS.items()),
        ]
        # Generated C goes beside the object files; the source tree stays clean.
        ext.sources = cythonize([ext], include_path=["src"], build_dir=self.build_temp, force=self.force)[0].sources
        super().build_extension(ext)

    def find_libcrypto(self, kind: str) -> tuple[Candidate, str]:
        """The first candidate that links, and what it says it is."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                objects = self.compile_program("#include <Python.h>\n" + PROBE, folder)
            except (CompileError, CCompilerError, OSError) as error:
                raise SystemExit(f"{error}\n{NO_COMPILER}") from None
            for candidate in candidates(kind):
                if self.link_program(objects, candidate, folder):
                    return candidate, version_of(Path(folder) / "probe")
        raise SystemExit(NO_LIBCRYPTO)

    def links(self, program: str, libcrypto: Candidate) -> bool:
        """Whether a program finds all it calls in this libcrypto."""
        with tempfile.TemporaryDirectory() as folder:
            return self.link_program(self.compile_program(program, folder), libcrypto, folder)

    def compile_program(self, program: str, folder: str) -> list[str]:
        source = Path(folder) / "probe.c"
        source.write_text(program)
        return self.compiler.compile([str(source)], output_dir=folder, include_dirs=self.include_dirs)

    def link_program(self, objects: list[str], libcrypto: Candidate, folder: str) -> bool:
        flags = shlex.split(os.environ.get("CFLAGS", ""))  # what was compiled with sanitizers is linked with them
        try:
            self.compiler.link_executable(
                objects + libcrypto.objects,
                str(Path(folder) / "probe"),
                extra_postargs=[*libcrypto.arguments, *flags],
            )
        except (LinkError, CCompilerError, OSError):
            return False
        return True


def calls(names: str) -> str:
    """A program that needs all these functions to be linked, and would call none."""
    functions = names.split()
    declarations = "".join(f"extern void {name}(void);\n" for name in functions)
    table = f"void (*const used[])(void) = {{{', '.join(functions)}}};\n"
    return f"{declarations}{table}int main(void) {{ return !used[0]; }}\n"


def version_of(program: Path) -> str:
    """What the linked probe prints; a cross-compiled one cannot be run here, and then it is not known."""
    try:
        return subprocess.run([program], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


setup(ext_modules=[Extension("fastverify._core", ["src/_core.pyx"])], cmdclass={"build_ext": BuildCore})
