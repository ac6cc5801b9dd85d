"""Following restorations until they are over: a watch that survives its connection, and a table that is redrawn."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from restoration_cli.access import Restorations
from restoration_cli.errors import ConnectionLostError
from restoration_cli.rows import row
from restoration_cli.tables import live_table
from restoration_cli.view import Restoration

Key = tuple[str, str]
State = dict[Key, Restoration]

RECONNECT_SECONDS: Final = 2.0
RECONNECTS: Final = 60


def states(restorations: Restorations, *, name: str | None = None, selector: str | None = None) -> Iterator[State]:
    """What exists, once at the beginning and again after every change. Ends never; read it as long as you like.

    Raises:
        CommandError: the cluster refuses, or cannot be reached at the beginning or for two minutes later on.
    """
    fields = None if name is None else f"metadata.name={name}"
    failures, began = 0, False
    while True:
        try:
            listed = restorations.list(selector=selector, fields=fields)
            began, failures = True, 0
            state = {it.key: it for it in listed.items}
            yield dict(state)
            for change in restorations.changes(listed.resource_version, selector=selector, fields=fields):
                if change.deleted:
                    state.pop(change.restoration.key, None)
                else:
                    state[change.restoration.key] = change.restoration
                yield dict(state)
        except ConnectionLostError:
            failures += 1
            if not began or failures > RECONNECTS:
                raise
            time.sleep(RECONNECT_SECONDS)


def follow(
    restorations: Restorations,
    console: Console,
    *,
    names: Sequence[str] = (),
    selector: str | None = None,
    with_namespace: bool = False,
) -> tuple[State, frozenset[Key]]:
    """Show restorations until all of them are over.

    Without `names`: all that are unfinished at the beginning or begin meanwhile.

    Returns:
        The last state, and which of it was followed; a followed one that is missing from the state was deleted.
    """
    followed = {(restorations.namespace, name) for name in names}
    only = names[0] if len(names) == 1 else None
    latest: State = {}

    def wanted() -> list[Restoration]:
        return [it for key, it in sorted(latest.items()) if key in followed]

    with _display(console, wanted, with_namespace=with_namespace) as show:
        for latest in states(restorations, name=only, selector=selector):
            if not names:
                followed |= {key for key, it in latest.items() if not it.finished}
            show(wanted())
            if all(key not in latest or latest[key].finished for key in followed):
                break
    return latest, frozenset(followed)


class _display:  # noqa: N801 - used as a context manager only
    """A live table on a terminal; elsewhere (logs, pipes) a line whenever something worth telling has changed."""

    def __init__(self, console: Console, wanted: Callable[[], list[Restoration]], *, with_namespace: bool) -> None:
        self._console, self._told = console, dict[Key, tuple[str, ...]]()
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:

            def draw() -> Table:
                return live_table([row(it, datetime.now(UTC)) for it in wanted()], with_namespace=with_namespace)

            self._live = Live(console=console, get_renderable=draw, refresh_per_second=2)

    def __enter__(self) -> Callable[[list[Restoration]], None]:
        if self._live is not None:
            self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self, shown: list[Restoration]) -> None:
        if self._live is not None:
            return  # it redraws itself, for ages and times left as well
        for it in shown:
            now = row(it, datetime.now(UTC))
            told = (now.phase, now.why, now.progress)
            if self._told.get(it.key) != told:
                self._told[it.key] = told
                self._console.print("  ".join(word for word in (it.name, *told) if word), soft_wrap=True)
