"""The benchmark's progress on standard error, on a terminal and elsewhere."""

import io
from contextlib import redirect_stderr

import pytest

from fewloop_trainer.board import Board

DONE = {"state": "done", "hits": "1101"}
REFUSED = {"state": "n/a", "reason": "no classes"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def latest(terminal: Terminal) -> str:
    """The table as it was drawn last: each begins with its title."""
    return terminal.getvalue().rsplit(" cells, ", 1)[-1]


def test_on_a_terminal_a_table_is_drawn_anew(terminal):
    with redirect_stderr(terminal), Board(["a-pet", "a-tf-idf", "b-pet"]) as board:
        board.begin("a-pet", "pet")
        board.end("a-pet", DONE)
        board.begin("a-tf-idf", "tf-idf")
        board.end("a-tf-idf", REFUSED)
        board.begin("b-pet", "pet")
        board._live.refresh()
        assert "2 of 3 cells, " in terminal.getvalue()
        during = latest(terminal)
        for row in (("a-pet", "75.0"), ("a-tf-idf", "n/a: no classes"), ("b-pet", "…")):
            assert any(all(part in line for part in row) for line in during.splitlines()), row
        assert "1 left" in during
        board.end("b-pet", DONE)
    assert "3 of 3 cells, " in terminal.getvalue()
    assert "…" not in latest(terminal)
    assert "1/3" not in terminal.getvalue(), "no line a cell beside the table"


def test_a_long_table_shows_the_latest_cells(terminal):
    names = [f"cell-{number:03}" for number in range(30)]
    with redirect_stderr(terminal), Board(names) as board:
        for name in names:
            board.begin(name, "pet")
            board.end(name, DONE)
    assert "cell-029" in latest(terminal) and "cell-010" in latest(terminal)
    assert "cell-009" not in latest(terminal)


def test_elsewhere_there_is_a_line_a_cell(capsys):
    with Board(["a-pet", "b-pet"]) as board:
        for name, result in (("a-pet", DONE), ("b-pet", REFUSED)):
            board.begin(name, "pet")
            board.end(name, result)
    assert capsys.readouterr().err.splitlines() == ["1/2 a-pet: 75.0, 1 left", "2/2 b-pet: n/a: no classes, 0 left"]
