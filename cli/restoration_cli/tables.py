"""Rows as tables: plain columns like kubectl's, and the live one of `watch`."""

from collections.abc import Iterable
from typing import Final

from rich.table import Table
from rich.text import Text

from restoration_api.resources import Phase
from restoration_cli.rows import Row

STYLES: Final[dict[str, str]] = {
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.RETRYING: "yellow",
    Phase.RUNNING: "cyan",
    Phase.ASSEMBLING: "cyan",
    Phase.SUSPENDED: "dim",
}


def plain_table(rows: Iterable[Row], *, with_namespace: bool) -> Table:
    """The table of `list`."""
    table = _table("PHASE", "PROGRESS", "TRIES", "AGE", "WHY", with_namespace=with_namespace)
    for item in rows:
        _add(table, item, _phase(item), item.progress, item.tries, item.age, item.why, with_namespace=with_namespace)
    return table


def live_table(rows: Iterable[Row], *, with_namespace: bool) -> Table:
    """The table of `watch`: with speed and time left."""
    columns = ("PHASE", "PROGRESS", "SPEED", "LEFT", "TRIES", "AGE", "WHY")
    table = _table(*columns, with_namespace=with_namespace)
    for item in rows:
        cells = (_phase(item), item.progress, item.speed, item.left, item.tries, item.age, item.why)
        _add(table, item, *cells, with_namespace=with_namespace)
    return table


def _table(*columns: str, with_namespace: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for column in ("NAMESPACE", "NAME", *columns) if with_namespace else ("NAME", *columns):
        table.add_column(column, no_wrap=True)
    return table


def _phase(item: Row) -> Text:
    return Text(item.phase, style=STYLES.get(item.phase, ""))


def _add(table: Table, item: Row, *cells: str | Text, with_namespace: bool) -> None:
    table.add_row(*((item.namespace,) if with_namespace else ()), item.name, *cells)
