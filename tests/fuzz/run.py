"""Fuzzing the core with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer: `make fuzz SECONDS=60`.

    PYTHONPATH=tests python tests/fuzz/run.py [--seconds 60] [--json] [TARGET ...]
    PYTHONPATH=tests python tests/fuzz/run.py --replay FILE TARGET      (make fuzz ARGS="--replay FILE TARGET")

Targets (targets.py): base64url, json, header, claims, verify, signature, request. Each gets its time, one after the
other. A crash, a hang, a leak, an exception that is no InvalidToken and a disagreement with the oracle are findings:
the input is kept in build/fuzz/findings, and the run fails. What opened new ways through the code stays in
build/fuzz/corpus for the next run.

The core is built by clang in build/fuzz/tree, with the entries of entries.pyx (../instrumented.py), and loaded by
driver.c, which is libFuzzer with this interpreter's library inside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import corpus
from instrumented import FLAGS, ROOT, build_core, leak_options, say

HERE = Path(__file__).resolve().parent
FOLDER = ROOT / "build" / "fuzz"
TREE, DRIVER, SEEDS, FINDINGS = (FOLDER / name for name in ("tree", "driver", "seeds", "findings"))
#: Every function is called through the type that Python gives it; newer versions of clang would mind.
CORE_FLAGS = (*FLAGS, "-fno-sanitize=function", "-fsanitize=fuzzer-no-link")
ADDRESS_SANITIZER = ("detect_stack_use_after_return=1", "allocator_may_return_null=1", "quarantine_size_mb=64")
INPUT_SECONDS = 10
MEMORY_MB = 2048
EXCERPT = 60  # lines of what is said about a finding

NO_CLANG = """
Fuzzing needs clang and the runtime library of its libFuzzer; a small program failed (above).
  Debian 12:           apt-get install clang libclang-rt-14-dev
  Debian 13, Ubuntu:   apt-get install clang libclang-rt-dev
  Fedora, RHEL:        dnf install clang compiler-rt
CC names another clang.
"""

NO_PYTHON = """
Fuzzing needs Python as a library, to be linked with libFuzzer: libpython{version}, shared or static.
  Debian, Ubuntu:  apt-get install libpython3-dev
  Fedora, RHEL:    dnf install python3-devel
"""

NO_VECTORS = """
!!! The test vectors are missing, so the seeds are but the few tokens that are made here: far less will be reached.
!!! Set FASTVERIFY_VECTORS to the folder that holds wycheproof/ and jsontestsuite/.
"""


@dataclass
class Result:
    """What became of one target."""

    target: str
    seeds: int
    runs: int = 0
    runs_per_second: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    peak_mb: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    """Build what is missing, run the targets asked for, draw the table; the exit status."""
    options = argparse.ArgumentParser(description="Fuzz the core.")
    options.add_argument("targets", nargs="*", metavar="TARGET", help="those to run (default: all)")
    options.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    options.add_argument("--json", action="store_true", help="the table as JSON, on standard output")
    options.add_argument("--replay", type=Path, metavar="FILE", help="run one input, and show what becomes of it")
    chosen = options.parse_args()
    if unknown := set(chosen.targets) - set(corpus.TARGETS):
        options.error(f"no such target: {', '.join(sorted(unknown))}")
    build()
    if chosen.replay:
        if len(chosen.targets) != 1:
            options.error("--replay needs the one target that the input is for")
        return subprocess.run([DRIVER, chosen.replay], env=environment(chosen.targets[0]), check=False).returncode
    counts = write_seeds()
    results = [fuzz(name, counts[name], chosen.seconds) for name in chosen.targets or corpus.TARGETS]
    print(f"\n{table(results)}", file=sys.stderr if chosen.json else sys.stdout)
    if chosen.json:
        report = {"versions": versions(), "seconds": chosen.seconds, "targets": [asdict(result) for result in results]}
        print(json.dumps(report, indent=2))
    return 1 if any(result.findings for result in results) else 0


def compiler() -> str:
    """The clang at work."""
    return os.environ.get("CC", "clang")


def build() -> None:
    """The instrumented core and the driver; stops with the names of the packages where that cannot be."""
    program = "int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { return n > 99 && *p; }"
    with tempfile.TemporaryDirectory() as scratch:
        command = [compiler(), "-x", "c", "-", "-fsanitize=fuzzer,address,undefined", "-o", f"{scratch}/probe"]
        try:
            subprocess.run(command, input=program, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{error}\n{NO_CLANG}") from None
    build_core(TREE, compiler(), CORE_FLAGS, HERE / "entries.pyx")
    include = sysconfig.get_path("include")
    command = [compiler(), str(HERE / "driver.c"), "-o", str(DRIVER), *FLAGS, "-fsanitize=fuzzer", f"-I{include}"]
    if subprocess.run([*command, *python_library()], check=False).returncode:
        raise SystemExit(NO_PYTHON.format(version=sysconfig.get_config_var("LDVERSION")))


def python_library() -> list[str]:
    """How a program is linked that has this Python inside: its shared library, or the static one (seldom PIC)."""
    named = sysconfig.get_config_vars("LIBDIR", "LIBPL", "LDVERSION", "LIBS", "SYSLIBS")
    folder, static_folder, version, *others = (value or "" for value in named)
    folders = [folder, static_folder, f"{sys.base_prefix}/lib"]
    paths = [flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    return [*paths, f"-lpython{version}", *shlex.split(" ".join(others)), "-rdynamic", "-no-pie"]


def environment(target: str) -> dict[str, str]:
    """Everything that the driver needs to run a target."""
    return os.environ | {
        "FASTVERIFY_FUZZ_PYTHON": sys.executable,
        "FASTVERIFY_FUZZ_TARGET": target,
        "PYTHONPATH": os.pathsep.join(map(str, (TREE, HERE, ROOT / "tests"))),
        "PYTHONMALLOC": "malloc",  # each object by itself, where a read past its end is seen
        "ASAN_OPTIONS": ":".join((*ADDRESS_SANITIZER, os.environ.get("ASAN_OPTIONS", ""))),
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LSAN_OPTIONS": leak_options(FOLDER),
    }


def write_seeds() -> dict[str, int]:
    """Make the seeds anew; returns how many each target has."""
    named = os.environ.get("FASTVERIFY_VECTORS")
    vectors = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if not vectors.is_dir():
        print(NO_VECTORS, file=sys.stderr)
    shutil.rmtree(SEEDS, ignore_errors=True)
    return corpus.write(SEEDS, vectors if vectors.is_dir() else None)


def fuzz(target: str, seeds: int, seconds: int) -> Result:
    """Run one target for so long, with a line of progress now and then."""
    result = Result(target, seeds)
    kept, log = FOLDER / "corpus" / target, FOLDER / "logs" / f"{target}.log"
    for folder in (FINDINGS, kept, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "max_total_time": seconds,
        "timeout": INPUT_SECONDS,
        "malloc_limit_mb": MEMORY_MB,
        "rss_limit_mb": 0,  # that would be watched by a thread, over which LeakSanitizer has been seen to stumble
        "max_len": corpus.MAX_SEED,
        "dict": SEEDS / "words",
        "artifact_prefix": f"{FINDINGS}/{target}-",
        "print_final_stats": 1,
        "detect_leaks": 0,  # not after each input, as Python keeps something now and then; at the end there is a look
    }
    command = [DRIVER, kept, SEEDS / target, *(f"-{name}={value}" for name, value in settings.items())]
    with log.open("w") as lines, start(command, target) as fuzzer:
        reader = threading.Thread(target=read_log, args=(fuzzer.stderr, lines, result))
        reader.start()
        try:
            while reader.is_alive():
                progress(result)
                reader.join(1 if sys.stderr.isatty() else 10)
        except BaseException:
            fuzzer.terminate()
            raise
    progress(result, last=True)
    if fuzzer.returncode and not result.findings:
        result.findings.append(f"exit status {fuzzer.returncode}")
    if result.findings:
        said = [line for line in log.read_text(errors="replace").splitlines() if not ROUTINE.match(line)]
        print("\n".join(said[:EXCERPT]), file=sys.stderr)
        say(f"{target}: {result.findings[0]}; more in {log.relative_to(ROOT)}")
    return result


def start(command: list[object], target: str) -> subprocess.Popen[str]:
    """The fuzzer, which says everything on standard error."""
    return subprocess.Popen(
        list(map(str, command)), env=environment(target), stderr=subprocess.PIPE, text=True, errors="replace"
    )


#: A line of libFuzzer's about its progress, and those that it ends with.
PULSE = re.compile(r"#(\d+)\s.* cov: (\d+) ft: (\d+) corp: (\d+)/")
FINAL = re.compile(r"stat::(\w+):\s+(\d+)")
ROUTINE = re.compile(r'#\d|INFO:|Dictionary:|"')
WRITTEN = re.compile(r"Test unit written to (\S+)")
LEAKS = re.compile("LeakSanitizer: detected memory leaks|LeakSanitizer has encountered a fatal error")
FIGURES = {"number_of_executed_units": "runs", "average_exec_per_sec": "runs_per_second", "peak_rss_mb": "peak_mb"}


def read_log(stderr: Iterable[str], log: IO[str], result: Result) -> None:
    """Copy what the fuzzer says to its log, and the figures in it to the result."""
    for line in stderr:
        log.write(line)
        if match := PULSE.match(line):
            result.runs, result.edges, result.features, result.corpus = map(int, match.groups())
        elif (match := FINAL.match(line)) and match[1] in FIGURES:
            setattr(result, FIGURES[match[1]], int(match[2]))
        elif match := LEAKS.search(line):
            result.findings.append(match[0])
        elif (match := WRITTEN.search(line)) and not result.findings:  # after a leak it is just the last input
            result.findings.append(os.path.relpath(match[1], ROOT))


def progress(result: Result, last: bool = False) -> None:
    """One line that says how far this target has come; on a terminal it replaces the one before."""
    text = (
        f"{result.target}: {result.runs:,} runs, {result.edges} edges" if result.runs else f"{result.target}: starting"
    )
    terminal = sys.stderr.isatty()
    print(f"{chr(13) * terminal}--> {text}", end="\n" if last or not terminal else "   ", file=sys.stderr, flush=True)


def table(results: list[Result]) -> str:
    """A line for each target."""
    row = "{:10} {:>6} {:>12} {:>8} {:>7} {:>9} {:>7} {:>8}  {}"
    heads = ("target", "seeds", "runs", "runs/s", "edges", "features", "corpus", "peak MB", "findings")
    rows = [
        (
            *(r.target, r.seeds, f"{r.runs:,}", f"{r.runs_per_second:,}", r.edges, r.features, r.corpus, r.peak_mb),
            ", ".join(r.findings) or "none",
        )
        for r in results
    ]
    return "\n".join(row.format(*cells) for cells in (heads, *rows))


def versions() -> dict[str, str]:
    """What the figures were made with."""
    clang = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    return {"python": platform.python_version(), "clang": clang.splitlines()[0], "machine": platform.machine()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
