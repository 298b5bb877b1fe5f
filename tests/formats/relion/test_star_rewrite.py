import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.formats.relion.star_rewrite import NewValues, format_numbers, rewrite_rows
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
    zeros = np.zeros(n, np.uint8)
    written = format_numbers(
        np.array(values), decimals, zeros, np.zeros(n, int), np.ones(n, bool)
    ).to_pylist()
    for value, text in zip(values, written, strict=True):
        assert abs(float(text) - value) <= 0.5000001 * 10.0**-decimals + 1e-15 * abs(value)
        assert text.decode() == f"{float(text):.{decimals}f}".replace("-0.000000", "0.000000")
        assert not (float(text) == 0 and text.startswith(b"-"))


def test_padding_and_separators():
    separator = np.array([32, 32, 0, 9, 32], np.uint8)
    written = format_numbers(
        np.array([1.5, -12345.0, 2.0, 3.0, 4.0]),
        1,
        separator,
        np.array([6, 3, 9, 9, 9]),
        np.array([True] * 4 + [False]),
    )
    assert written.to_pylist() == [b"   1.5", b" -12345.0", b"2.0", b"\t3.0", b""]


def test_too_large_a_number():
    with pytest.raises(ValueError, match="too large"):
        format_numbers(np.array([1e10]), 6, np.zeros(1, np.uint8), np.zeros(1, int), np.ones(1, bool))


def test_fields_stay_aligned_and_rows_keep_their_comments():
    text = b"# first\n   1.000000 a 7\n\n  10.000000\tb 8\n 100.000000 c 9\n"
    tokens = split_rows(text, 3, path="x", first_line=1)
    change = np.array([True, True, False])
    rows = rewrite_rows(
        tokens,
        [NewValues(2, np.array([10, 5, 0]), 0, change), NewValues(0, np.array([2.0, 3.0, 0]), 6, change)],
    )
    assert bytes(rows.text(np.array([0, 1, 2]))) == (
        b"# first\n   2.000000 a 10\n\n  3.000000\tb 5\n 100.000000 c 9\n"
    )
    assert bytes(rows.text(np.array([2]))) == b" 100.000000 c 9\n"
    assert rows.text(np.array([], int)) == b""
