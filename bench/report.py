"""Writes the tables of the documentation from the JSON that the benchmarks wrote.

    python bench/report.py [--results bench/results] [PAGE ...]

In a page (default: README.md, docs/performance.md and docs/scaling.md) a table stands between two comments and is
replaced as a whole:

    <!-- figures: peers -->

    | ... |

    <!-- end of figures -->

A table whose benchmark left no JSON stays as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import targets

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "scaling.md"]
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)
NOT_VERSIONS = ("machine", "Python", "load at the start")

Documents = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("pages", metavar="PAGE", nargs="*", type=Path, default=PAGES)
    arguments = parser.parse_args()
    documents = harness.read_results(arguments.results)
    for page in arguments.pages:
        before = page.read_text("utf-8")
        after = filled(before, documents)
        if after != before:
            page.write_text(after, "utf-8")
        print(f"{page}: {'written' if after != before else 'as it was'}")
    print("\n" + targets.table({name: document["results"] for name, document in documents.items()}))
    return 0


def filled(page: str, documents: Documents) -> str:
    def table(place: re.Match[str]) -> str:
        begin, name, old, end = place.groups()
        try:
            return f"{begin}\n{TABLES[name](documents)}\n\n{end}"
        except KeyError:
            return begin + old + end

    return PLACE.sub(table, page)


# --- tables, by name ---


def peers(documents: Documents) -> str:
    """Everybody by algorithm, and how far ahead of the fastest of them we are."""
    groups = documents["peers"]["results"]["python"]
    fullest_first = sorted(groups.values(), key=len, reverse=True)
    names = list(dict.fromkeys(name for rows in fullest_first for name in rows if name != "no-op call"))
    others = [name for name in names if not name.startswith(("fastverify", "raw", "len"))]
    body = [[bold(name), *(micro(rows, name) for rows in groups.values())] for name in names]
    for ours in ("lazy", "dict"):
        ahead = [lead(rows, f"fastverify, {ours}", others) for rows in groups.values()]
        body.append([f"*fastest peer / fastverify, {ours}*", *ahead])
    return markdown(["µs of CPU a call", *groups], body)


def readme(documents: Documents) -> str:
    """The same turned round, of fewer columns."""
    groups = documents["peers"]["results"]["python"]
    columns = {
        "fastverify, cached": "cached",
        "fastverify, lazy": "cold",
        "fastverify, dict": "cold, as a dict",
        "raw libcrypto": "libcrypto alone",
        "ryjwt": "ryjwt",
        "oxyjwt": "oxyjwt",
        "joserfc": "joserfc",
        "PyJWT": "PyJWT",
    }
    used = {name: title for name, title in columns.items() if any(name in rows for rows in groups.values())}
    return markdown(
        ["", *used.values()], [[group, *(micro(rows, name) for name in used)] for group, rows in groups.items()]
    )


def node(documents: Documents) -> str:
    groups = documents["peers"]["results"]["node"]
    names = list(dict.fromkeys(name for rows in groups.values() for name in rows if name != "no-op call"))
    return markdown(["µs of CPU a call", *groups], [[n, *(micro(rows, n) for rows in groups.values())] for n in names])


def session(documents: Documents) -> str:
    rows = documents["peers"]["results"]["session"]
    call = harness.cpu(rows["no-op call"])
    body = [[name, harness.short(harness.cpu(row)), f"{harness.cpu(row) / call:.1f}"] for name, row in rows.items()]
    return markdown(["", "µs of CPU", "no-op calls"], body)


def scaling(documents: Documents) -> str:
    groups = documents["threads"]["results"]["scaling"]
    names = list(next(iter(groups.values())))
    body = [[name, *(f"{rows[name]['ratio']:.2f}" for rows in groups.values())] for name in names]
    return markdown(["two threads / one", *groups], body)


def harms(documents: Documents) -> str:
    """Median and 99th percentile of both."""
    results = documents["threads"]["results"]
    body = []
    for what in ("latency", "subscriber"):
        for algorithm, modes in results[what].items():
            for mode, callers in modes.items():
                cells = [f"{harness.short(row['p50'])} / {harness.short(row['p99'])}" for row in callers.values()]
                body.append([f"{what}, {algorithm}", setting(mode), *cells])
    return markdown(
        ["µs, median / 99th percentile", "release_gil", "from the main thread", "from another thread"], body
    )


def pool(documents: Documents) -> str:
    body = [
        [algorithm, setting(mode), f"{row['rate']:,.0f}", harness.short(row["p50"]), harness.short(row["p99"])]
        for algorithm, modes in documents["threads"]["results"]["requests"].items()
        for mode, row in modes.items()
    ]
    return markdown(["", "release_gil", "requests/s", "µs, median", "µs, 99th percentile"], body, left=2)


def revoked(documents: Documents) -> str:
    """What a table adds, by its size."""
    results = documents["revoked"]["results"]
    lookups, cold, hits = results["lookups"], results["cold"], results["hits"]
    call = harness.cpu(lookups["no-op call"])
    sizes = [name.removesuffix(": absent") for name in lookups if name.endswith(": absent")]

    def more(name: str) -> str:
        return f"{1e3 * (harness.cpu(lookups[name]) - call):.0f} ns"

    body = [["`lookup()` of random targets, absent", *(more(f"{size}: absent") for size in sizes)]]
    body += [
        [f"{algorithm} cold, {tokens}", *(f"{100 * rows[size]['share']['median']:+.1f} %" for size in sizes)]
        for algorithm, groups in cold.items()
        for tokens, rows in groups.items()
    ]
    body += [
        [
            f"a hit, {number}, after a change",
            *(f"{rows[f'{size}: after a change']['nanoseconds_more']['median']:+.1f} ns" for size in sizes),
        ]
        for number, rows in hits.items()
    ]
    return markdown(["added by a table of", *sizes], body)


def filling(documents: Documents) -> str:
    body = [
        [
            name,
            f"{row['entries'] / row['cpu_seconds']:,.0f}",
            f"{row['resident']:.1f}",
            f"{row['most_resident']:.1f}",
        ]
        for name, row in documents["revoked"]["results"]["filling"].items()
    ]
    return markdown(["", "entries/s", "bytes an entry", "at most, while it grows"], body)


def stalls(documents: Documents) -> str:
    body = [
        [name, f"{row['calls'] / row['seconds']:,.0f}", f"{row['net']['max']:,.0f}"]
        for name, row in documents["revoked"]["results"]["stalls"].items()
    ]
    return markdown(["while another thread does this", "hits/s", "longest interruption, µs"], body)


def memory(documents: Documents) -> str:
    results = documents["memory"]["results"]
    cache, growth = results["cache"], results["growth"]
    bounded = cache["bounded"]

    def an_entry(row: Mapping[str, float]) -> list[str]:
        return [f"{row[name] / row['entries']:,.0f}" for name in ("resident_bytes", "bytes")]

    body = [
        [
            f"an entry of a cache of {cache['plain']['entries']:,}, tokens of {cache['token_bytes']} bytes",
            *an_entry(cache["plain"]),
        ],
        ["an entry with its `Session`, in a `SessionVerifier`", *an_entry(cache["session"])],
        [
            f"a cache with `cache_bytes={bounded['bytes_bound']}`",
            f"{bounded['resident_bytes']:,}",
            f"{bounded['bytes']:,}",
        ],
        [f"growth over {growth['verifies']:,} calls of every kind", f"{growth['growth_mb'] * 1e6:,.0f}", ""],
        ["slope of a line through it, a 10 million calls", f"{growth['slope_mb_a_10_million'] * 1e6:,.0f}", ""],
    ]
    return markdown(["bytes", "of the resident set", "by `cache_info()`"], body)


def refresh(documents: Documents) -> str:
    """Rates and shares by kind of client, of each number of processes."""
    body = []
    for number, found in documents["refresh"]["results"].items():
        for kind, share in found["shares"].items():
            rates = [
                f"{1e6 / found['times'][f'{what}, {kind}']['wall']['median']:,.0f}" for what in ("EVALSHA", "refresh")
            ]
            cells = [f"{share[clock]['median']:.0f} %" for clock in ("wall", "cpu")]
            body.append([f"{number} process{'es' if number != '1' else ''}, {kind}", *rates, *cells])
    return markdown(["a second", "bare EVALSHA", "refresh", "share", "share by client CPU"], body)


def http_requests(documents: Documents) -> str:
    results = documents["http_requests"]["results"]
    body = []
    for name, row in results["rows"].items():
        share = results["shares"].get(name)
        shares = [f"{share[kind]['median']:.0f} %" for kind in ("wall", "cpu")] if share else ["", ""]
        body.append([name, f"{harness.cpu(row):.1f}", f"{1e6 / row['wall']['median']:,.0f}", *shares])
    return markdown(["", "CPU of the server, µs a request", "requests a second", "of bare", "by CPU"], body)


def reach(documents: Documents) -> str:
    names = ("p50", "p90", "p99", "max")
    body = [
        [mode, *(harness.short(row[name]) for name in names)]
        for mode, row in documents["revocations"]["results"]["reach"].items()
    ]
    return markdown(["ms, from acknowledged to refused in another process", *names], body)


def bootstrap(documents: Documents) -> str:
    loaded = documents["revocations"]["results"]["bootstrap"]
    run = sorted(loaded["runs"], key=lambda each: each["seconds"])[len(loaded["runs"]) // 2]
    body = [
        [f"until a gateway is ready, of {run['entries']:,} entries", f"{run['seconds']:.1f} s"],
        ["its CPU time", f"{run['cpu_seconds']:.1f} s"],
        ["revocations a second meanwhile", f"{run['writes_a_second']:,.0f}"],
        ["its memory, an entry", f"{run['resident_bytes'] / run['entries']:.1f} bytes"],
        ["the most that the process took", f"{run['most_process_bytes'] / 1e6:,.0f} MB"],
        ["the store's memory, an entry", f"{loaded['store_bytes_an_entry']:.1f} bytes"],
    ]
    return markdown(["bootstrap", ""], body)


def growth(documents: Documents) -> str:
    body = [
        [
            name,
            *(f"{row[clock]['median']:,.0f}" for clock in ("wall", "cpu")),
            f"{row['server_us_a_call']:.0f}",
            *(f"{row[key]:,.0f}" for key in ("store_bytes_a_session", "record_bytes", "index_bytes")),
        ]
        for name, row in documents["growth"]["results"]["refresh"].items()
    ]
    head = ["in the store", "refresh, µs", "of them client CPU", "server, µs a call"]
    return markdown([*head, "store, bytes a session", "record", "index"], body)


def costs(documents: Documents) -> str:
    keys = ("server_us", "bytes_in", "bytes_out", "file_bytes", "memory_bytes")
    rows = documents["growth"]["results"]["costs"].items()
    body = [[name, *(f"{row[key]:,.0f}" if key in row else "" for key in keys)] for name, row in rows]
    head = ["the server spends on", "CPU, µs", "bytes in", "bytes out", "bytes of the file", "bytes of memory"]
    return markdown(head, body)


def soak(documents: Documents) -> str:
    """A run: what it was of, and every operation."""
    results = documents["soak"]["results"]
    seconds = 60 * results["given"]["minutes"]
    body = [
        [name, f"{row['number'] / seconds:,.0f}", *(milliseconds(row[key]) for key in ("p50", "p99", "max"))]
        for name, row in results["whole"].items()
    ]
    return markdown(["ms", "a second", "p50", "p99", "max"], body)


def asked(documents: Documents, *, harder: bool = False) -> str:
    results = {name: document["results"] for name, document in documents.items()}
    rows = list(targets.rows(results, harder=harder))
    if not rows:
        raise KeyError("nothing was measured")
    return markdown(["", "target", "asked", "measured", ""], rows, left=2)


def harder(documents: Documents) -> str:
    return asked(documents, harder=True)


def environment(documents: Documents) -> str:
    seen: dict[str, str] = {}
    for name, document in documents.items():
        here = document["environment"]
        seen |= {"the tests' Python": here["Python"]} if name == "verify_here" else here
    versions = ", ".join(f"{name} {value}" for name, value in seen.items() if name not in NOT_VERSIONS)
    missing = documents["peers"]["results"]["missing"] if "peers" in documents else {}
    absent = "".join(f" Missing: {name} ({reason})." for name, reason in missing.items())
    return f"{seen['Python']}; {seen['machine']}; {versions}.{absent}"


TABLES: dict[str, Callable[[Documents], str]] = {
    "peers": peers,
    "readme": readme,
    "node": node,
    "session": session,
    "scaling": scaling,
    "harms": harms,
    "pool": pool,
    "revoked": revoked,
    "filling": filling,
    "stalls": stalls,
    "memory": memory,
    "refresh": refresh,
    "http": http_requests,
    "reach": reach,
    "bootstrap": bootstrap,
    "growth": growth,
    "costs": costs,
    "soak": soak,
    "targets": asked,
    "harder": harder,
    "environment": environment,
}


# --- cells ---


def markdown(head: Sequence[str], body: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """The first columns to the left, the others to the right."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def micro(rows: Mapping[str, Any], name: str) -> str:
    return harness.short(harness.cpu(rows[name])) if name in rows else ""


def milliseconds(microseconds: float) -> str:
    return harness.short(microseconds / 1e3)


def lead(rows: Mapping[str, Any], ours: str, others: Sequence[str]) -> str:
    """How many times as fast as the fastest of the others."""
    ratio = min(harness.cpu(rows[name]) for name in others if name in rows) / harness.cpu(rows[ours])
    return f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"


def setting(mode: str) -> str:
    return f"`{mode}`"


def bold(name: str) -> str:
    return f"**{name}**" if name.startswith("fastverify") else name


if __name__ == "__main__":
    sys.exit(main())
