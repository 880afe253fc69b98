"""Tables, and reports that hold some: columns on a terminal, else text that can be parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from dlmdecode.console import terminal, without_controls


@dataclass(frozen=True)
class Table:
    """A head and rows of as many cells; `numeric` sets all columns but the first to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = False

    def markdown(self) -> str:
        rule = "|---|" + ("---:|" if self.numeric else "---|") * (len(self.head) - 1)
        head, *rows = (f"| {' | '.join(row)} |" for row in (self.head, *self.rows))
        return "\n".join([head, rule, *rows])

    def tabbed(self) -> str:
        """A line a row, with tabs between the cells, as `cut` and spreadsheets read it."""
        rows = (self.head, *self.rows)
        return "\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows)


GAP = 2  # columns between two cells

Report = Sequence[str | Table]
"""Paragraphs and tables; a paragraph may be a heading of Markdown."""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    return "\n\n".join(part if isinstance(part, str) else part.markdown() for part in report)


def show_table(table: Table) -> None:
    """Print a table: laid out on a terminal, with tabs in a pipe."""
    console = terminal(sys.stdout)
    if console.is_terminal:
        console.print(fitting(table, console))
    else:
        print(table.tabbed())


def show_report(report: Report) -> None:
    """Print a report: laid out on a terminal, as Markdown in a pipe."""
    console = terminal(sys.stdout)
    if not console.is_terminal:
        print(markdown(report))
        return
    for part in report:
        if isinstance(part, Table):
            console.print(fitting(part, console))
        else:
            heading = part.startswith("## ")
            console.print(literal(part.removeprefix("## "), "bold" if heading else ""), "")


def fitting(table: Table, console: Console) -> Grid:
    """The table in columns; where these would cut a word in two, one cell below the other."""
    rows = [list(map(without_controls, row)) for row in (table.head, *table.rows)]
    columns = list(zip(*rows, strict=True))
    whole = [max(map(cell_len, "\n".join(column).split("\n"))) for column in columns]
    least = [max(map(cell_len, " ".join(column).split())) for column in columns]
    spare = console.width - sum(least) - GAP * len(columns)
    if spare < 0:
        return blocks(table)
    wanted = [most - few for most, few in zip(whole, least, strict=True)]
    share = min(spare / max(sum(wanted), 1), 1)
    return grid(table, [few + int(share * more) for few, more in zip(least, wanted, strict=True)])


def grid(table: Table, widths: Sequence[int]) -> Grid:
    found = Grid(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for number, (name, width) in enumerate(zip(table.head, widths, strict=True)):
        justify: JustifyMethod = "right" if table.numeric and number else "left"
        found.add_column(literal(name), justify=justify, width=width, overflow="fold")
    for row in table.rows:
        found.add_row(*map(literal, row))
    return found


def blocks(table: Table) -> Grid:
    """Each row as a block: the name of a column, and the cell."""
    found = Grid.grid(padding=(0, GAP, 0, 0))
    found.add_column(style="dim", max_width=16)
    found.add_column(overflow="fold")
    for row in table.rows:
        for name, value in zip(table.head, row, strict=True):
            if value:
                found.add_row(
                    literal(name), literal(value, "bold" if name == table.head[0] else "")
                )
        found.add_row()
    return found


def literal(text: str, style: str = "") -> Text:
    """A text in which neither markup nor control characters mean anything."""
    return Text(without_controls(text), style)
