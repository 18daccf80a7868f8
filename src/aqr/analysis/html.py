"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from aqr.analysis.figures import Figure, figures
from aqr.analysis.language import Translator
from aqr.analysis.tables import (
    NOTHING,
    Table,
    class_tables,
    overall_table,
    recommendation_table,
    run_table,
    study_tables,
    whatif_table,
)
from aqr.errors import InputError

_HERE: Final = Path(__file__).parent
_FEW: Final = 4
"""Columns that fit on a phone."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def html_report(data: Mapping[str, Any], pictures: Sequence[Path], t: Translator) -> str:
    """The whole page.

    Args:
        data: what report.json holds.
        pictures: PNG files, embedded.
        t: shows texts in the report's language.

    Raises:
        InputError: where a picture cannot be read or is no PNG.
    """
    parts = [
        _verdict(data, t),
        _table(overall_table(data, t), t),
        *(_table(table, t) for table in study_tables(data, t)),
        _charts(list(figures(data, t)), t),
        _table(recommendation_table(data, t), t),
        _findings(data, t),
        _gallery(pictures, t),
        *(_table(table, t) for table in class_tables(data, t)),
        _table(run_table(data, t), t),
        _table(whatif_table(data, t), t),
        _notes(data, t),
    ]
    names = ", ".join(one["name"] for one in (*data["runs"], *data["studies"]))
    return f"""<!DOCTYPE html>
<html lang="{"zh-Hans" if t.language == "zh" else t.language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AQR · {escape(names)}</title>
<link rel="icon" href="data:,">
<style>{(_HERE / "report.css").read_text(encoding="utf-8")}</style>
<script>{_plotly()}</script>
</head>
<body>
<main>
{"".join(part for part in parts if part)}
</main>
<script>{(_HERE / "report.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


@cache
def _plotly() -> str:
    """plotly.js as shipped with the Python package, which is found without importing it."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package plotly is not installed; install it with: pip install plotly")
    source = Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return source.read_text(encoding="utf-8").replace("</script", "<\\/script")


def _verdict(data: Mapping[str, Any], t: Translator) -> str:
    sentences = "".join(f"<p>{_prose(sentence)}</p>" for sentence in data["verdict"])
    names = " · ".join(_breakable(one["name"]) for one in (*data["runs"], *data["studies"]))
    title = escape(t("What AQR did") if data["runs"] else t("What the search found"))
    return f'<header><h1>{title}</h1><p class="runs">{names}</p><div class="verdict">{sentences}</div></header>'


def _table(table: Table | None, t: Translator) -> str:
    if table is None or not table.rows:
        return ""
    numeric = ' class="number"' if table.numeric else ""
    head = f"<th>{_breakable(table.head[0])}</th>" + "".join(
        f"<th{numeric}>{_breakable(cell)}</th>" for cell in table.head[1:]
    )
    body = "".join(
        f'<tr><th scope="row">{_breakable(row[0])}</th>'
        + "".join(
            f'<td{numeric} data-label="{escape(label)}"{" data-none" if cell == NOTHING else ""}>{_prose(cell)}</td>'
            for label, cell in zip(table.head[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    few = ' class="few"' if len(table.head) <= _FEW else ""
    grid = f'<div class="scroll"><table{few}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.note:
        grid += f'<p class="note">{_prose(table.note)}</p>'
    title = f"<h2>{escape(table.title)}</h2>"
    if table.folded:
        return f'<section id="{table.name}"><details><summary>{title}</summary>{grid}</details></section>'
    return f'<section id="{table.name}">{title}{grid}</section>'


def _prose(shown: str) -> str:
    """Text in which no per cent sign begins a line."""
    return escape(shown).replace(" %", "\u00a0%")


def _breakable(name: str) -> str:
    """A name that may break after underscores."""
    return escape(name).replace("_", "_<wbr>")


def _findings(data: Mapping[str, Any], t: Translator) -> str:
    if not data["findings"]:
        return ""
    words = {"critical": t("critical"), "warning": t("warning"), "info": t("note")}
    items = []
    for one in data["findings"]:
        where = (
            f' <span class="run">{_breakable(one["run"])}</span>' if one["run"] not in (None, data["main_run"]) else ""
        )
        severity = f'<span class="severity">{escape(words[one["severity"]])}</span>'
        items.append(
            f'<li class="{one["severity"]}"><h3>{severity} {_prose(one["title"])}{where}</h3>'
            f"<p>{_prose(one['detail'])}</p>"
            f'<p class="source"><code>{escape(one["id"])}</code> · {_prose(one["source"])}</p></li>'
        )
    title = escape(t("Findings"))
    return f'<section id="findings"><h2>{title}</h2><ol class="findings">{"".join(items)}</ol></section>'


def _charts(charts: Sequence[Figure], t: Translator) -> str:
    if not charts:
        return ""
    shown = []
    for chart, wide in zip(charts, _wide(charts), strict=True):
        plot = json.dumps(chart.plot, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
        title = escape(t.show(chart.title))
        shown.append(
            f'<figure id="{chart.name}"{" class=wide" if wide else ""}><h3>{title}</h3>'
            f'<div class="chart" role="img" aria-label="{title}"></div>'
            f'<script type="application/json">{plot}</script>'
            f"<figcaption>{_prose(t.show(chart.caption))}</figcaption></figure>"
        )
    return f'<section id="charts"><h2>{escape(t("Curves"))}</h2><div class="charts">{"".join(shown)}</div></section>'


def _wide(charts: Sequence[Figure]) -> list[bool]:
    """Which charts span both columns: those that ask for it, and those that would stand alone in their row."""
    out: list[bool] = []
    beside = False
    for place, chart in enumerate(charts):
        last = place + 1 == len(charts) or charts[place + 1].wide
        out.append(chart.wide or (last and not beside))
        beside = not out[-1] and not beside
    return out


def _gallery(pictures: Sequence[Path], t: Translator) -> str:
    shown = []
    for path in pictures:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a PNG picture") from None
        if not content.startswith(_PNG):
            raise InputError(f"{path}: is no PNG picture; convert it or leave it out")
        name = escape(path.stem.replace("_", " "))
        shown.append(
            f'<figure><img alt="{name}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
            f"<figcaption>{name}</figcaption></figure>"
        )
    if not shown:
        return ""
    return (
        f'<section id="pictures"><h2>{escape(t("Pictures"))}</h2><div class="gallery">{"".join(shown)}</div></section>'
    )


def _notes(data: Mapping[str, Any], t: Translator) -> str:
    lines = [(run["name"], note) for run in data["runs"] for note in run["notes"]]
    if not lines:
        return ""
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(note)}</li>" for name, note in lines)
    return f'<section id="notes"><h2>{escape(t("What the sources lack"))}</h2><ul>{items}</ul></section>'
