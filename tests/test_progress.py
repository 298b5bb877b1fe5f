import io

import pytest
from rich.console import Console

from regroup_dask.progress import Message, PlainLines, RichBars, StageClock, StageFinished, StageStarted, listener_for


def test_a_clock_tells_of_every_stage_and_adds_up_its_time():
    events = []
    clock = StageClock(events.append)
    for _ in range(2):
        with clock.stage("Reading", 3) as advance:
            advance(2)
            advance(1, restored=1)
    assert [type(event) for event in events[:1] + events[-1:]] == [StageStarted, StageFinished]
    assert sum(getattr(event, "count", 0) for event in events) == 6
    assert list(clock.seconds) == ["Reading"]
    assert clock.seconds["Reading"] >= 0


def test_plain_lines_end_each_stage_with_one_line():
    stream = io.StringIO()
    clock = StageClock(PlainLines(stream))
    with clock.stage("Reading", 2) as advance:
        advance(2)
    clock.say("Note: [bold] is no markup")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Reading: done in ")
    assert lines[1] == "Note: [bold] is no markup"


@pytest.mark.parametrize("terminal", [True, False])
def test_listeners_take_every_event_on_a_terminal_or_off_it(terminal):
    stream = io.StringIO()
    with listener_for(Console(file=stream, force_terminal=terminal)) as listener:
        assert isinstance(listener, RichBars if terminal else PlainLines)
        clock = StageClock(listener)
        with clock.stage("Empty", 0):
            pass
        with clock.stage("Reading", 1) as advance:
            advance()
        listener(Message("a [sentence]"))
    assert "a [sentence]" in stream.getvalue()


def test_quiet_says_only_notes():
    stream = io.StringIO()
    with listener_for(Console(file=stream), quiet=True) as listener:
        clock = StageClock(listener)
        with clock.stage("Reading", 1) as advance:
            advance()
        clock.say("12 maps of box 64")
        clock.say("Note: a voxel size differs", is_note=True)
    assert stream.getvalue() == "Note: a voxel size differs\n"
