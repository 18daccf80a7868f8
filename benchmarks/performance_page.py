"""Puts measured figures into docs/performance.md and README.md.

    python benchmarks/performance_page.py [--bench bench.json] [--ddp ddp.json] [--data data.json]

Tables stand between `<!-- bench:NAME -->` and `<!-- /bench -->`; NAME is a section of `aqr bench --out`, `summary` (the
figures that have a target), `about` (device, versions, date, command), `ddp` or `data`. Blocks whose figures were not
given stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from aqr.bench.results import number

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md")
BLOCK = re.compile(r"(<!-- bench:([a-z_]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def row_cells(row: dict[str, Any]) -> list[str]:
    """What, median, target, floor."""
    value = row["note"] or "not measured" if row["value"] is None else f"{number(row['value'])} {row['unit']}".strip()
    target = ""
    if row["target"] is not None:
        target = f"{'≥' if row['more_is_better'] else '≤'} {number(row['target'])}"
        target += "" if row["reached"] is None else f" {'✓' if row['reached'] else '✗'}"
    floor = "" if row["floor"] is None else number(row["floor"])
    return [row["what"].strip(), value, target, floor]


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def blocks(bench: dict[str, Any] | None, ddp: dict[str, Any] | None, data: dict[str, Any] | None) -> dict[str, str]:
    """Every block by name."""
    heading = ["what", "median", "target", "floor"]
    found: dict[str, str] = {}
    aimed = []
    for name, section in ({} if bench is None else bench["sections"]).items():
        rows, columns = [row_cells(row) for row in section["rows"]], heading
        if name == "growth":
            rows = [[what, value, row["note"]] for (what, value, *_), row in zip(rows, section["rows"], strict=True)]
            columns = ["what", "median", "peak memory"]
        remarks = "".join(f"\n{remark}\n" for remark in section["remarks"])
        found[name] = f"**{section['title']}**\n\n{table(columns, rows)}{remarks}"
        if name not in ("accuracy", "loop"):
            aimed += [row_cells(row) for row in section["rows"] if row["target"] is not None]
    if bench is not None:
        found["summary"] = table(heading, aimed)
        found["about"] = (
            f"{bench['device']}, {bench['date']}, torch {bench['torch']}, triton {bench['triton']}; "
            f"`{bench['command']}`\n"
        )
    if ddp is not None:
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
    if data is not None:
        rows = [[what.strip(), f"{number(ms)} ms"] for what, ms in data["ms"].items()]
        rows += [[f"{n} workers", f"{number(rate)} samples/s"] for n, rate in data["samples_per_s"].items()]
        rows.append(["cores for one GPU at 50 ms a step of 4", str(data["cores_needed"])])
        found["data"] = table(["what", "per sample and core"], rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bench", "ddp", "data"):
        parser.add_argument(f"--{name}", type=Path)
    arguments = parser.parse_args()
    given = [arguments.bench, arguments.ddp, arguments.data]
    found = blocks(*(None if path is None else json.loads(path.read_text()) for path in given))

    def fill(match: re.Match[str]) -> str:
        text = found.get(match[2])
        return match[0] if text is None else f"{match[1]}\n{text}\n{match[3]}"

    for page in PAGES:
        page.write_text(BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
