"""Puts measured figures into docs/performance.md and README.md.

    python benchmarks/performance_page.py [--bench bench.json ...] [--ddp ddp.json] [--data data.json] [--keep]

Of several files of `--bench`, of one device and the same versions, a later one's sections take the place of an
earlier one's; `profile_step.py` writes such files as well. AQR's share of a training step is computed here where AQR
and the step were timed in different runs. `--keep` writes what is given to `benchmarks/results` as well. Without
arguments the figures are those of `benchmarks/results`, and both pages come out as they are. Tables stand between
`<!-- bench:NAME -->` and `<!-- /bench -->`; NAME is a section of `aqr bench --out`, `summary` (the figures that have a
target), `headline` (six of the figures), `about` (device, versions, date, command), `ddp` or `data`.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from aqr.bench.bench import ALONE
from aqr.bench.detector import FASTEST, FASTEST_INFERENCE, alone_share
from aqr.bench.inputs import FIRST_SHAPE
from aqr.bench.modulation import COMPILED_GRAPH
from aqr.bench.results import Row, number
from aqr.bench.timing import Timing
from aqr.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = {
    "bench": RESULTS / "bench-h200.json",
    "ddp": RESULTS / "ddp-h200.json",
    "data": RESULTS / "data-cpu.json",
}
SAME = ("device", "python", "torch", "triton")
"""What runs have in common whose sections may stand on one page."""
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
BLOCK = re.compile(r"(<!-- bench:([a-z_]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


TRAINING_SHAPE, ONE_SAMPLE = (
    f"forward + backward, {FIRST_SHAPE}",
    f"forward, inference, {replace(FIRST_SHAPE, batch=1)}",
)
SAME_AS_BEFORE = "the same "
"""How a row begins that is another way to run what the row before it measures."""
TARGET_EFFICIENCY = 95.0
"""Percent, of four GPUs."""
HEADLINE = (
    ("aqr", TRAINING_SHAPE, COMPILED_GRAPH, "AQR by itself, forward and backward, 4 samples"),
    ("step_graphs", "", f"training step without AQR, {FASTEST}", "training step without AQR, 4 samples"),
    ("step_graphs", "", f"training step with AQR, {FASTEST}", "training step with AQR, 4 samples"),
    ("aqr", ONE_SAMPLE, COMPILED_GRAPH, "AQR by itself, inference, one sample"),
    ("inference", "", f"inference without AQR, {FASTEST_INFERENCE}", "inference without AQR, one sample"),
    ("inference", "", f"inference with AQR, {FASTEST_INFERENCE}", "inference with AQR, one sample"),
)
"""Section, the row after which to look, row, and its name in README.md. All of them compiled, as CUDA graphs."""


def figure(row: dict[str, Any]) -> str:
    """The value with its unit."""
    return "not measured" if row["value"] is None else f"{number(row['value'])} {row['unit']}".strip()


def aim(row: dict[str, Any]) -> str:
    """The target, and whether it is reached."""
    if row["target"] is None:
        return ""
    target = f"{'≥' if row['more_is_better'] else '≤'} {number(row['target'])}"
    return target if row["reached"] is None else f"{target} {'✓' if row['reached'] else '✗'}"


def spread(row: dict[str, Any]) -> str:
    """10th to 90th percentile."""
    return "" if row["low"] is None or row["high"] is None else f"{number(row['low'])} … {number(row['high'])}"


def rows_table(rows: list[dict[str, Any]], note: str = "note") -> str:
    """All that is known of the rows; columns in which nothing stands are left out."""
    columns = {
        "what": [row["what"].strip() for row in rows],
        "median": [figure(row) for row in rows],
        "p10 … p90": [spread(row) for row in rows],
        "target": [aim(row) for row in rows],
        "floor": ["" if row["floor"] is None else number(row["floor"]) for row in rows],
        note: [row["note"] for row in rows],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    return table(list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)])


def headline(sections: dict[str, Any], aimed: list[dict[str, Any]]) -> str:
    """Six figures, and how many of all reach their targets."""
    lines = []
    for name, after, what, label in HEADLINE:
        rows = sections[name]["rows"] if name in sections else []
        start = next((place for place, row in enumerate(rows) if row["what"] == after), 0)
        row = next((row for row in rows[start:] if row["what"] == what), None)
        lines.append([label, "not measured" if row is None else figure(row), "" if row is None else aim(row)])
    known = [row["reached"] for row in aimed if row["reached"] is not None]
    unknown = [row["what"] for row in aimed if row["reached"] is None]
    count = f"{sum(known)} of the {len(aimed)} [targets](docs/performance.md#against-the-targets) are reached"
    missing = f"; not measured: {', '.join(unknown)}" if unknown else ""
    return table(["compiled, as CUDA graphs", "median", "target"], lines) + f"\n{count}{missing}.\n"


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def blocks(bench: dict[str, Any], ddp: dict[str, Any], data: dict[str, Any]) -> dict[str, str]:
    """Every block by name."""
    found: dict[str, str] = {}
    aimed = []
    for name, section in bench["sections"].items():
        text = rows_table(section["rows"], "peak memory" if name == "growth" else "note")
        remarks = "".join(f"\n{remark}\n" for remark in section["remarks"])
        found[name] = f"**{section['title']}**\n\n{text}{remarks}"
        if name not in ("accuracy", "loop"):
            aimed += [row for row in in_full(section["rows"]) if row["target"] is not None]
    aimed.append(scaling(ddp))
    found["summary"] = rows_table(aimed)
    found["headline"] = headline(bench["sections"], aimed)
    found["about"] = (
        f"{bench['device']}, {bench['date']}, torch {bench['torch']}, triton {bench['triton']}; `{bench['command']}`\n"
    )
    rows = [
        [
            str(run["ranks"]),
            f"{number(run['step_ms'])} ms",
            "" if run["efficiency"] is None else f"{100 * run['efficiency']:.1f} %",
            *("yes" if run[key] else "NO" for key in ("weights_equal", "nan_skipped_everywhere")),
        ]
        for run in ddp["runs"]
    ]
    columns = ["GPUs", "step", "efficiency", "weights equal on all ranks", "a NaN on one rank skips on all"]
    found["ddp"] = f"{ddp['device']}, torch {ddp['torch']}\n\n{table(columns, rows)}"
    rows = [[what.strip(), f"{number(ms)} ms"] for what, ms in data["ms"].items()]
    rows += [
        ["1 worker" if n == "1" else f"{n} workers", f"{number(rate)} samples/s"]
        for n, rate in data["samples_per_s"].items()
    ]
    rows.append(["cores for one GPU at 50 ms a step of 4", str(data["cores_needed"])])
    found["data"] = table(["what", "per sample and core"], rows)
    return found


def in_full(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that can stand alone: what is "the same" as a row before is named after that row."""
    found, first = [], ""
    for row in rows:
        way = row["what"].removeprefix(SAME_AS_BEFORE)
        if way != row["what"]:
            row = {**row, "what": f"AQR {first}; {way}"}
        elif row["unit"] == "ms":
            first = row["what"]
        found.append(row)
    return found


def scaling(ddp: dict[str, Any]) -> dict[str, Any]:
    """Efficiency on four GPUs beside its target."""
    known = {run["ranks"]: run["efficiency"] for run in ddp["runs"] if run["efficiency"] is not None}
    value = 100 * known[4] if 4 in known else None
    note = "" if 4 in known else "; ".join(f"on {ranks}: {100 * share:.1f} %" for ranks, share in known.items())
    return Row("efficiency on 4 GPUs", value, "%", TARGET_EFFICIENCY, more_is_better=True, note=note).as_dict()


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One bench of several; a later one's sections take the place of an earlier one's.

    Raises:
        ValueError: where device or versions differ.
    """
    first = runs[0]
    for run in runs[1:]:
        differing = [key for key in SAME if run[key] != first[key]]
        if differing:
            values = " and ".join(repr(bench[differing[0]]) for bench in (first, run))
            raise ValueError(f"--bench: {differing[0]} differs: {values}; measure both in one place")
    sections = with_shares({name: section for run in runs for name, section in run["sections"].items()})
    left_out = {name: reason for run in runs for name, reason in run["not_measured"].items() if name not in sections}
    joined = {key: "; ".join(dict.fromkeys(run[key] for run in runs)) for key in ("date", "command")}
    return {**first, **joined, "sections": sections, "not_measured": left_out}


def with_shares(sections: dict[str, Any]) -> dict[str, Any]:
    """AQR's shares of the training step, where AQR and the step were timed in different runs."""
    alone = {row["what"]: row["value"] for row in reversed(sections.get("aqr", {"rows": []})["rows"])}
    found = {}
    for name, section in sections.items():
        values = {row["what"]: row["value"] for row in section["rows"]}
        filled_in = {}
        for how, what in ALONE.items():
            step, time = values.get(f"training step with AQR, {how}"), alone.get(what)
            if step is not None and time is not None:
                share = alone_share(time, Timing(step, step, step, 1), how)
                filled_in[share.what] = share.as_dict()
        rows = [filled_in.get(row["what"], row) if row["value"] is None else row for row in section["rows"]]
        found[name] = {**section, "rows": rows}
    return found


def filled(page: str, found: dict[str, str]) -> str:
    """A page with its blocks; those that are not found stay as they are."""

    def fill(match: re.Match[str]) -> str:
        text = found.get(match[2])
        return match[0] if text is None else f"{match[1]}\n{text}\n{match[3]}"

    return BLOCK.sub(fill, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kept in KEPT.items():
        parser.add_argument(f"--{name}", type=Path, default=[kept], nargs="+" if name == "bench" else 1)
    parser.add_argument("--keep", action="store_true")
    arguments = vars(parser.parse_args())
    read = {name: [json.loads(path.read_text(encoding="utf-8")) for path in arguments[name]] for name in KEPT}
    try:
        bench = merged(read["bench"])
    except ValueError as error:
        parser.error(str(error))
    figures = {"bench": bench, "ddp": read["ddp"][0], "data": read["data"][0]}
    if arguments["keep"]:
        for name, kept in KEPT.items():
            write_json(kept, figures[name])
    found = blocks(**figures)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
