"""Following restorations: through lost connections and forgotten versions, on a terminal and in a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from tests.builders.resources import make_vr
from tests.builders.statuses import failed, make_status, running, succeeded

from restoration_cli import watching
from restoration_cli.access import Change, Listing
from restoration_cli.errors import CommandError, ConnectionLostError
from restoration_cli.view import Restoration

LOST = ConnectionLostError("the API server cannot be reached")
REFUSED = CommandError("you may not")


def vr(status: Any, name: str = "clip") -> Restoration:
    return Restoration.of(make_vr(name=name) | {"status": status})


class Script:
    """An API server that answers by the book: a list is a list of restorations, a watch ends after its changes."""

    namespace = "default"

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def list(self, **_: Any) -> Listing:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Listing(tuple(answer), "1")

    def changes(self, _: str, **__: Any) -> Iterator[Change]:
        for answer in self._answers.pop(0):
            if isinstance(answer, Exception):
                raise answer
            yield answer


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RECONNECT_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm-256color")  # whatever terminal the tests run in


def follow(script: Script, *names: str, terminal: bool = False) -> tuple[dict[str, bool], set[str], str]:
    """Which of the followed are left and succeeded, which were followed, and what was printed."""
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=terminal, highlight=False, markup=False)
    latest, followed = watching.follow(script, console, names=names)  # type: ignore[arg-type]
    kept = {name: it.succeeded for (_, name), it in latest.items()}
    return kept, {name for _, name in followed}, text.getvalue()


QUEUED = make_status("Queued", Scheduled="False/Queued")
DONE = Change(False, vr(succeeded()))


@pytest.mark.parametrize(
    "answers",
    [
        ([vr(succeeded())],),
        ([vr(running(1))], [DONE]),
        ([vr(running(1))], [], [vr(succeeded())]),  # the watch was over, or its version forgotten
        ([vr(running(1))], [LOST], [vr(succeeded())]),
        ([vr(running(1))], [Change(False, vr(running(2))), LOST], LOST, LOST, [vr(running(3))], [DONE]),
    ],
    ids=["over already", "change", "list again", "lost", "lost for long"],
)
def test_it_ends_with_the_restoration(answers: Any) -> None:
    kept, followed, printed = follow(Script(*answers), "clip")
    assert (kept, followed) == ({"clip": True}, {"clip"})
    assert printed.splitlines()[-1] == "clip  Succeeded"


@pytest.mark.parametrize(
    ("answers", "error"),
    [((LOST,), LOST), (([vr(running(1))], [REFUSED]), REFUSED), (([vr(running(1))], [], *[LOST] * 100), LOST)],
    ids=["never reached", "refused", "gone for good"],
)
def test_it_gives_up_with_a_sentence(answers: Any, error: Exception) -> None:
    with pytest.raises(CommandError, match=str(error)):
        follow(Script(*answers), "clip")


def test_what_is_deleted_is_missing_from_what_is_left() -> None:
    assert follow(Script([vr(running(1))], [Change(True, vr(running(1)))]), "clip")[:2] == ({}, {"clip"})


def test_without_names_it_follows_what_is_under_way_and_what_begins_meanwhile() -> None:
    old, new = vr(failed("InvalidInput", "no video"), "old"), vr(running(1), "new")
    end = [Change(False, new), DONE, Change(False, vr(succeeded(), "new"))]
    kept, followed, printed = follow(Script([old, vr(running(1))], end))
    assert kept == {"old": False, "clip": True, "new": True}
    assert followed == {"clip", "new"}
    assert "old" not in printed


def test_a_pipe_gets_a_line_for_each_change_and_no_other() -> None:
    changes = [Change(False, vr(status)) for status in (QUEUED, running(50), running(50))]
    printed = follow(Script([vr(QUEUED)], [*changes, DONE]), "clip")[2]
    assert printed.splitlines() == ["clip  Queued  Queued", "clip  Running  50% 50/100", "clip  Succeeded"]


def test_a_terminal_gets_a_table_that_ends_with_the_last_state() -> None:
    printed = follow(Script([vr(running(50))], [DONE]), "clip", terminal=True)[2]
    assert "NAME   PHASE" in printed
    assert "Succeeded" in printed.splitlines()[-2]  # the last line shows the cursor again


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    printed = follow(Script([vr(running(50))], [DONE]), "clip", terminal=True)[2]
    assert "NAME   PHASE" not in printed
    assert "Succeeded" in printed.splitlines()[-1]
