"""Reports that people read: sections of text, tables and figures, written as one Markdown page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "Section"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One heading of a report.

    Attributes:
        title: heading.
        text: paragraphs before the table.
        header: column names of the table, or empty.
        rows: cells of the table: text or numbers (shown with four significant digits).
        figures: figures by file name without suffix.
        notes: paragraphs after everything: what does not fit, and why.
    """

    title: str
    text: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """The section as JSON types, figures by name only."""
        return {
            "title": self.title,
            "text": list(self.text),
            "rows": [dict(zip(self.header, row, strict=True)) for row in self.rows],
            "figures": list(self.figures),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report.

    Attributes:
        title: heading of the page.
        summary: paragraphs under it.
        sections: the rest.
    """

    title: str
    summary: Sequence[str] = ()
    sections: Sequence[Section] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "title": self.title,
            "summary": list(self.summary),
            "sections": [section.to_dict() for section in self.sections],
        }

    def write(self, folder: Path, name: str) -> Path:
        """Write ``<name>.md`` and its figures, ``<name>-<figure>.png``, into ``folder``; returns the page.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# {self.title}", ""]
        lines += [part for paragraph in self.summary for part in (paragraph, "")]
        for section in self.sections:
            lines += [f"## {section.title}", ""]
            lines += [part for paragraph in section.text for part in (paragraph, "")]
            if section.rows:
                lines += _table(section.header, section.rows)
            for figure_name, figure in section.figures.items():
                file = f"{name}-{figure_name}.png"
                figure.savefig(folder / file, dpi=110)
                lines += [f"![{figure_name.replace('_', ' ')}]({file})", ""]
            lines += [part for paragraph in section.notes for part in (paragraph, "")]
        page = folder / f"{name}.md"
        page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
        return page


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    rule = ["---:" if number else "---" for number in numeric]
    body = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (list(header), rule, *body)] + [""]
