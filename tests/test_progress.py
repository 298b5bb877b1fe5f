import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from regroup_dask.progress import (
    Message,
    PlainLines,
    RemainingTime,
    RichBars,
    StageClock,
    StageFinished,
    StageStarted,
    UnitsDone,
    listener_for,
    words_of_time,
)


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


@given(
    total=st.integers(3, 2000),
    share=st.floats(0.1, 0.95),
    seconds_each=st.floats(0.001, 100),
    restored=st.integers(0, 500),
    first_wait=st.floats(0, 100),
)
def test_at_a_steady_pace_the_remaining_time_is_right_whatever_came_before(total, share, seconds_each, restored, first_wait):
    """What was restored and how long the first unit took do not spoil the estimate once half of the rest is done."""
    left = RemainingTime(total + restored, 0.0)
    left.add(restored, restored, 0.0)
    computed = max(2, int(share * total))
    now = first_wait
    for _ in range(computed):
        now += seconds_each
        left.add(1, 0, now)
    truth = (total - computed) * seconds_each
    estimate = left.seconds(now)
    assert estimate is not None
    # With the marks thinned, the beginning of the latter half is known to a few hundredths; the wait of the first
    # unit is inside it only while fewer than four are done.
    if computed >= 4:
        assert estimate == pytest.approx(truth, rel=0.02)
    else:
        assert estimate >= truth * 0.99


def test_nothing_is_promised_before_two_units_and_while_nothing_comes_the_estimate_grows():
    left = RemainingTime(10, 0.0)
    left.add(5, 5, 0.0)
    assert left.seconds(30.0) is None
    left.add(1, 0, 31.0)
    assert left.seconds(31.0) is None
    left.add(1, 0, 32.0)
    assert left.seconds(32.0) == pytest.approx(3.0)
    assert left.seconds(60.0) > 50
    left.add(3, 0, 61.0)
    assert left.seconds(61.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (7.4, "7 s"), (33, "35 s"), (58, "1 min"), (600, "10 min"), (3590, "1 h"), (12000, "3 h 20 min")],
)
def test_times_are_said_as_exactly_as_an_estimate_deserves(seconds, words):
    assert words_of_time(seconds) == words


def test_plain_lines_say_how_far_a_long_stage_is_and_what_was_restored():
    stream, clock = io.StringIO(), [0.0]
    lines = PlainLines(stream, now=lambda: clock[0])
    lines(StageStarted("Aligning pairs", 100))
    lines(UnitsDone("Aligning pairs", 40, 40))
    for _ in range(30):
        clock[0] += 1
        lines(UnitsDone("Aligning pairs", 1))
    lines(StageFinished("Aligning pairs", 30.0))
    assert stream.getvalue().splitlines() == [
        "Aligning pairs: 40 of 100 were finished before; not run again",
        "Aligning pairs: 51 of 100, about 50 s left",
        "Aligning pairs: 62 of 100, about 40 s left",
        "Aligning pairs: done in 30.0 s",
    ]


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_bars_fit_the_terminal(width):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, legacy_windows=False, color_system=None)
    with RichBars(console) as bars:
        bars(StageStarted("Polishing the poses", 12000))
        bars(UnitsDone("Polishing the poses", 6000))
        bars(UnitsDone("Polishing the poses", 10))
        drawn = Console(file=io.StringIO(), width=width)
        drawn.print(bars._progress.get_renderable())
    rows = drawn.file.getvalue().splitlines()
    assert len(rows) == 1
    assert len(rows[0]) <= width
    assert rows[0].startswith("Polish")
    assert "6010/12000" in rows[0]
    assert rows[0].rstrip().endswith("left")
