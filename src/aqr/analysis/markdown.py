"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aqr.analysis.language import Translator
from aqr.analysis.tables import (
    Table,
    class_tables,
    overall_table,
    recommendation_table,
    run_table,
    study_tables,
    whatif_table,
)


def markdown_report(data: Mapping[str, Any], t: Translator) -> str:
    """The text of report.md."""
    title = t("What AQR did") if data["runs"] else t("What the search found")
    parts = [f"# {title}", *data["verdict"]]
    overall = overall_table(data, t)
    tables = (overall, *study_tables(data, t), *class_tables(data, t))
    parts += [_table(table) for table in tables if table is not None]
    if data["findings"]:
        words = {"critical": t("critical"), "warning": t("warning"), "info": t("note")}
        lines = [
            f"- **{words[one['severity']]}: {_plain(one['title'])}**"
            + (f" [{_plain(one['run'])}]" if one["run"] not in (None, data["main_run"]) else "")
            + ("" if one["title"].endswith(("?", "？")) else ".")
            + f" {_plain(one['detail'])} (`{one['id']}`, {_plain(one['source'])})"
            for one in data["findings"]
        ]
        parts += [f"## {t('Findings')}", "\n".join(lines)]
    others = (recommendation_table(data, t), whatif_table(data, t), run_table(data, t))
    parts += [_table(table) for table in others if table is not None]
    notes = [f"- {_plain(run['name'])}: {_plain(note)}" for run in data["runs"] for note in run["notes"]]
    if notes:
        parts += [f"## {t('What the sources lack')}", "\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rule = ["---"] + ["---:" if table.numeric else "---"] * (len(table.head) - 1)
    rows = [table.head, tuple(rule), *table.rows]
    lines = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    return "\n\n".join([f"## {table.title}", "\n".join(lines), *([table.note] if table.note else [])])


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
