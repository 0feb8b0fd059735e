"""Draws the figures: SVG for the documentation, PNG for looking at, from the JSON that the benchmarks wrote.

    python bench/plot.py [--results bench/results] [--pictures docs/pictures]

What has no JSON is not drawn. The PNGs go beside the JSON. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

import harness

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
INK, QUIET, PALE = "#1d2733", "#66717e", "#e3e7eb"
OURS, CACHED, PEER, LIMIT = "#0f766e", "#5eb8ae", "#aab4bf", "#c2410c"
#: Of lines that are told apart by colour alone.
SEVERAL = (OURS, LIMIT, "#1d4ed8", "#a16207", "#7e22ce", "#475569", "#be185d", "#65a30d")
#: Rows of peers.py that are no contender.
LIMITS = {"raw libcrypto": "raw libcrypto", "node:crypto": "node:crypto alone"}
LEFT_OUT = ("no-op call", "len() of the token", "fastverify, cached, dict", "fastverify, cached, same str")

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "svg.fonttype": "none",  # text stays text: small files, and readable by machines
    "svg.hashsalt": "fastverify",  # the same picture is the same file
    "figure.dpi": 110,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    documents = harness.read_results(arguments.results)
    if not documents:
        print(f"nothing to draw in {arguments.results}: run make bench")
        return 0
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, figure in figures(documents).items():
            svg, png = arguments.pictures / f"{name}.svg", arguments.results / f"{name}.png"
            figure.savefig(svg, metadata={"Date": None})
            svg.write_text(smaller(svg.read_text("utf-8")), "utf-8")
            figure.savefig(png)
            plt.close(figure)
            print(f"{svg} ({svg.stat().st_size // 1024} KB), {png}")
    return 0


def smaller(svg: str) -> str:
    """Without millionths of a point, turns by nothing, empty groups, clips of what sticks out nowhere, and indents."""
    needless = r' transform="rotate\(-0 [^"]*\)"| clip-path="[^"]*"|<g id="\w+"/>\n| id="(line2d|patch|text)_\d+"'
    lean = re.sub(r"\s*\n\s*", "\n", re.sub(needless, "", svg))
    return re.sub(r'"[^"]*"', lambda value: re.sub(r"\d+\.\d{3,}", rounded, value[0]), lean)


def rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def figures(documents: Mapping[str, Any]) -> dict[str, Figure]:
    drawn = {}
    if "peers" in documents:
        peers = documents["peers"]
        results, machine = peers["results"], peers["environment"]
        python = [machine["Python"], machine["libcrypto of fastverify"], machine["machine"]]
        drawn["peers"] = bars(results["python"], "Verifying one access token", python)
        if results["node"]:
            node = [f"Node {machine['Node']}", machine["libcrypto of Node"], machine["machine"]]
            drawn["node"] = bars(results["node"], "The same token on Node", node)
    if "threads" in documents:
        results = documents["threads"]["results"]
        drawn["threads"] = scaling(results["scaling"])
        drawn["gil"] = harms(results)
    if "revocations" in documents:
        drawn["reach"] = reach(documents["revocations"]["results"]["reach"])
    if "soak" in documents:
        drawn["soak"] = soak(documents["soak"]["results"])
    return drawn


# --- microseconds a call ---


def bars(groups: Mapping[str, Mapping[str, Any]], title: str, machine: list[str]) -> Figure:
    """A panel for each algorithm, all on one log axis: shorter is better."""
    panels = {algorithm: contenders(rows) for algorithm, rows in groups.items()}
    values = [value for rows in panels.values() for _, value in rows]
    # The axis of a log scale has no zero; the bars begin at a third of the shortest.
    low, high = min(values) / 3, max(values) * 4.5
    heights = [len(panels[name]) for name in panels]
    columns = 2
    lines = -(-len(panels) // columns)
    ratios = [max(heights[line * columns : (line + 1) * columns]) + 2 for line in range(lines)]
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(10, max(3, 0.25 * sum(ratios) + 0.35 * lines + 0.4)),
        height_ratios=ratios,
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    places = iter(grid.flat)
    for algorithm, rows in panels.items():
        panel(next(places), algorithm, rows, limit_of(groups[algorithm]), (low, high))
    for place in places:
        explain(place, machine)
    return figure


def contenders(rows: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = [(name, harness.cpu(row)) for name, row in rows.items() if name not in LIMITS and name not in LEFT_OUT]
    return sorted(found, key=lambda row: row[1])


def limit_of(rows: Mapping[str, Any]) -> tuple[str, float] | None:
    return next(((LIMITS[name], harness.cpu(row)) for name, row in rows.items() if name in LIMITS), None)


def panel(
    axes: Axes,
    algorithm: str,
    rows: Sequence[tuple[str, float]],
    limit: tuple[str, float] | None,
    span: tuple[float, float],
) -> None:
    names, values = [name for name, _ in rows], [value for _, value in rows]
    # From the edge, as a log axis has no zero.
    lengths = [value - span[0] for value in values]
    axes.barh(range(len(rows)), lengths, 0.72, span[0], color=[colour(name) for name in names], zorder=2)
    axes.set_yticks(range(len(rows)), [name.replace("fastverify, ", "fastverify: ") for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name.startswith("fastverify") else "normal")
    for position, value in enumerate(values):
        text = axes.text(value * 1.1, position, harness.short(value), va="center", fontsize=8, color=INK, zorder=4)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # over the line of the limit
    axes.set_xscale("log")
    axes.set_xlim(*span)
    axes.set_ylim(len(rows) - 0.4, -0.6 - (0.9 if limit else 0))
    axes.set_title(algorithm, loc="left", fontsize=10, fontweight="bold")
    axes.grid(axis="x", color=PALE, linewidth=0.8, zorder=0)
    axes.tick_params(axis="both", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    if limit:
        name, value = limit
        axes.axvline(value, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
        axes.text(
            value * 0.93, -0.75, f"{name} {harness.short(value)}", ha="right", va="center", fontsize=8, color=LIMIT
        )


def explain(axes: Axes, machine: list[str]) -> None:
    axes.axis("off")
    lines = [
        "Microseconds of CPU a call, on a log axis: shorter is better.",
        "13 claims in 480 bytes; signature, iss, aud and exp checked.",
        "Medians of rounds in which all take turns; one thread.",
        "",
        *machine,
    ]
    axes.text(0, 0.97, "\n".join(lines), va="top", fontsize=8.5, color=QUIET, linespacing=1.5, transform=axes.transAxes)


def colour(name: str) -> str:
    if "cached" in name:
        return CACHED
    return OURS if name.startswith("fastverify") else PEER


# --- threads ---


def scaling(groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    colours = {
        "fastverify, GIL released": OURS,
        "fastverify, verify_many": CACHED,
        "fastverify, GIL held": "#c8d5d3",
        "PyJWT": PEER,
    }
    figure, axes = plt.subplots(figsize=(10, 3.2), layout="constrained")
    width = 0.8 / len(colours)
    for place, (name, tint) in enumerate(colours.items()):
        for group, rows in enumerate(groups.values()):
            if name in rows:
                x, value = group + (place - (len(colours) - 1) / 2) * width, rows[name]["ratio"]
                label = name.replace("fastverify, ", "fastverify: ") if group == 0 else None
                axes.bar(x, value, width * 0.9, color=tint, label=label, zorder=2)
                axes.text(x, value + 0.03, f"{value:.2f}", ha="center", fontsize=7.5)
    axes.axhline(2, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    axes.text(len(groups) - 0.45, 2.03, "two cores", ha="right", va="bottom", fontsize=8, color=LIMIT)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.5, len(groups) - 0.45)
    axes.set_ylim(0, 2.3)
    axes.grid(axis="y", color=PALE, linewidth=0.8, zorder=0)
    axes.tick_params(length=0)
    axes.set_title(
        "Two threads in one process: verifications a second, times those of one", loc="left", fontweight="bold", pad=26
    )
    axes.legend(loc="lower left", bbox_to_anchor=(-0.005, 1.0), ncols=4, frameon=False, fontsize=8.5, handlelength=1)
    return figure


def harms(results: Mapping[str, Any]) -> Figure:
    """What holding and what releasing costs: median and 99th percentile, on a log axis."""
    modes = {"False": ("held", "#9fb3b0"), "True": ("released", OURS), '"auto"': ("auto", CACHED)}
    panels = {
        "A verification beside a thread that computes": results["latency"]["ES256"],
        "Until a woken thread runs, beside verifications": results["subscriber"]["ES256"],
    }
    edge = 3
    figure, grid = plt.subplots(1, 2, figsize=(10, 3), layout="constrained", sharex=True, sharey=True)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        places: dict[float, str] = {}
        for gap, caller in enumerate(("main thread", "another thread")):
            for mode, (name, tint) in modes.items():
                y, row = len(places) + gap * 0.5, rows[mode][caller]
                places[y] = f"{caller}: {name}"
                axes.barh(y, row["p99"] - edge, 0.72, edge, color=tint, alpha=0.4, linewidth=0, zorder=2)
                axes.barh(y, row["p50"] - edge, 0.72, edge, color=tint, zorder=3)
                text = f"{harness.short(row['p50'])} / {harness.short(row['p99'])}"
                axes.text(row["p99"] * 1.15, y, text, va="center", fontsize=8)
        axes.set_yticks(list(places), list(places.values()))
        axes.set_xscale("log")
        axes.set_xlim(edge, 300_000)
        axes.grid(axis="x", color=PALE, linewidth=0.8, zorder=0)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel("microseconds: median solid, 99th percentile pale", fontsize=8)
    grid[0].invert_yaxis()
    return figure


# --- revocations ---


def reach(modes: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How many revocations took how long to another process: a histogram of each mode, on one log axis."""
    longest = max(row["max"] for row in modes.values())
    low, high = 0.1, max(10.0, longest * 1.5)
    edges = [low * (high / low) ** (step / 60) for step in range(61)]
    figure, grid = plt.subplots(len(modes), 1, figsize=(10, 1.3 * len(modes) + 0.7), layout="constrained", sharex=True)
    for axes, (mode, row) in zip(grid, modes.items(), strict=True):
        axes.hist([min(max(value, low), high) for value in row["milliseconds"]], edges, color=OURS, zorder=2)
        for name in ("p50", "p99"):
            axes.axvline(max(row[name], low), color=LIMIT, linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
        text = f"p50 {harness.short(row['p50'])}, p99 {harness.short(row['p99'])}, max {harness.short(row['max'])} ms"
        axes.set_title(f"{mode}: {text}", loc="left", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.grid(axis="x", color=PALE, linewidth=0.8, zorder=0)
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("milliseconds from acknowledged to refused in another process", fontsize=8)
    figure.suptitle("How soon a revocation is enforced elsewhere", x=0.012, ha="left", fontsize=12, fontweight="bold")
    return figure


# --- soak ---


def soak(results: Mapping[str, Any]) -> Figure:
    """Each operation's times, what went wrong, and memory, over the minutes of a run; faults are red bands."""
    series = results["series"]
    minutes = [row["seconds"] / 60 for row in series]
    figure, (times, wrong, memory) = plt.subplots(
        3, 1, figsize=(10, 8), height_ratios=(3, 1.2, 2), layout="constrained", sharex=True
    )
    tints = dict(zip(results["whole"], SEVERAL, strict=False))
    for name, tint in tints.items():
        rows = [row["operations"].get(name, {}) for row in series]
        for key, style in (("p50", "-"), ("p99", ":")):
            values = [row[key] / 1e3 if key in row else float("nan") for row in rows]
            times.plot(minutes, values, style, color=tint, linewidth=1.3, label=f"{name}, {key}")
    times.set_yscale("log")
    times.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    times.set_title("Milliseconds an operation, median and 99th percentile", loc="left", fontsize=10, fontweight="bold")
    counted = sorted({name for row in series for name, number in row["counts"].items() if number})
    for name, tint in zip(counted, SEVERAL, strict=False):
        wrong.plot(minutes, [row["counts"].get(name, 0) for row in series], color=tint, linewidth=1.2, label=name)
    wrong.set_title("Counted in each interval", loc="left", fontsize=10, fontweight="bold")
    for name, tint in zip(series[-1]["resident_mb"], SEVERAL, strict=False):
        values = [row["resident_mb"].get(name, float("nan")) for row in series]
        memory.plot(minutes, values, color=tint, linewidth=1.3, label=name)
    memory.set_ylim(bottom=0)
    memory.set_title("Resident, MB", loc="left", fontsize=10, fontweight="bold")
    memory.set_xlabel("minutes", fontsize=8)
    for axes in (times, wrong, memory):
        for fault in results["faults"]:
            axes.axvspan(fault["at"] / 60, (fault["at"] + fault["seconds"]) / 60, color=LIMIT, alpha=0.2, zorder=0)
        axes.grid(axis="y", color=PALE, linewidth=0.8, zorder=0)
        axes.tick_params(length=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7.5, handlelength=1.5)
    given = results["given"]
    title = f"{given['sessions']:,} sessions and {given['entries']:,} revoked ones, for {given['minutes']:g} minutes"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    return figure


if __name__ == "__main__":
    sys.exit(main())
