import pytest
import typer
from rich.console import Console

from safe_diffusion_agent.cli import display


@pytest.fixture
def clock(monkeypatch):
    """No terminal, and a clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(display, "console", Console(force_terminal=False))
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_progress_is_plain_lines(clock, capsys):
    with display.progress_bars() as progress:
        for done in range(1, 61):
            clock[0] += 1.0
            progress("train", done, 60, loss=0.12345)
        clock[0] += 4.0
        progress("train", 1, 4)  # the next stage
        clock[0] += 10.0
        progress("train", 2, 4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train  11/60  1/s  0:00:45 left  loss 0.123"
    assert [line.split()[1] for line in lines] == [
        *("11/60", "21/60", "31/60", "41/60", "51/60", "60/60"),
        "2/4",
    ]
    assert lines[-1] == "train  2/4  720/h  0:00:10 left"


def test_an_interruption_says_how_to_continue(clock, capsys):
    with pytest.raises(typer.Exit) as ended, display.progress_bars():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert "Run the same command again" in capsys.readouterr().out
