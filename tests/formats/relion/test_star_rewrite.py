import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.formats.relion.star_rewrite import APPENDED, NewValues, rewrite_rows
from regroup_dask.formats.relion.star_text import split_rows

numbers = st.one_of(
    st.floats(-9e8, 9e8),
    st.floats(-1e-5, 1e-5),
    st.integers(-(10**8), 10**8).map(float),
    st.just(-0.0),
    st.just(9.9999999),
)


@settings(deadline=None)
@given(values=st.lists(numbers, min_size=1, max_size=30), decimals=st.sampled_from([0, 1, 6]))
def test_numbers_are_written_as_python_writes_them(values, decimals):
    n = len(values)
    tokens = split_rows(b"x\n" * n, 1, path="x", first_line=1)
    rows = rewrite_rows(tokens, [NewValues(0, np.array(values), decimals, np.ones(n, bool))], (0,))
    written = bytes(rows.text(np.arange(n))).splitlines()
    for value, text in zip(values, written, strict=True):
        assert abs(float(text) - value) <= 0.5000001 * 10.0**-decimals + 1e-15 * abs(value)
        assert text.decode() == f"{float(text):.{decimals}f}".replace("-0.000000", "0.000000")
        assert not (float(text) == 0 and text.startswith(b"-"))


def test_padding_and_separators():
    text = b"a     1\nb 2\nc\t3\nd 4\n"
    tokens = split_rows(text, 2, path="x", first_line=1)
    changed = np.array([True, True, True, False])
    rows = rewrite_rows(tokens, [NewValues(1, np.array([1.5, -12345, 3, 4]), 1, changed)], (0, 1))
    assert bytes(rows.text(np.arange(4))) == b"a   1.5\nb -12345.0\nc\t3.0\nd 4\n"
    appended = rewrite_rows(tokens, [NewValues(APPENDED, np.arange(4.0), 1, changed)], (0, 1))
    assert bytes(appended.text(np.arange(4))) == b"a     1          0.0\nb 2          1.0\nc\t3\t2.0\nd 4\n"


def test_too_large_a_number():
    tokens = split_rows(b"1\n", 1, path="x", first_line=1)
    with pytest.raises(ValueError, match="too large"):
        rewrite_rows(tokens, [NewValues(0, np.array([1e10]), 6, np.ones(1, bool))], (0,))


def test_fields_stay_aligned_and_rows_keep_their_comments():
    text = b"# first\n   1.000000 a 7\n\n  10.000000\tb 8\n 100.000000 c 9\n"
    tokens = split_rows(text, 3, path="x", first_line=1)
    change = np.array([True, True, False])
    rows = rewrite_rows(
        tokens,
        [NewValues(2, np.array([10, 5, 0]), 0, change), NewValues(0, np.array([2.0, 3.0, 0]), 6, change)],
        (0, 1, 2),
    )
    assert bytes(rows.text(np.array([0, 1, 2]))) == (
        b"# first\n   2.000000 a 10\n\n  3.000000\tb 5\n 100.000000 c 9\n"
    )
    assert bytes(rows.text(np.array([2]))) == b" 100.000000 c 9\n"
    assert bytes(rows.text(np.array([], int))) == b""
