import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.formats.relion.star_columns import BINARY, FLOAT, INTEGER, STRING, rows_to_table, types_of_rows
from regroup_dask.formats.relion.star_text import split_rows


def tokens_of(*values):
    return split_rows(b"".join(value + b"\n" for value in values), 1, path="x.star", first_line=1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"12", INTEGER),
        (b"-7", INTEGER),
        (b"0", INTEGER),
        (b"123456789012345", INTEGER),
        (b"1234567890123456", STRING),
        (b"0012", STRING),
        (b"0x1f", STRING),
        (b"0.5", FLOAT),
        (b"-.5", FLOAT),
        (b"5.", FLOAT),
        (b"1e5", FLOAT),
        (b"1.5E-05", FLOAT),
        (b"-nan", FLOAT),
        (b"inf", FLOAT),
        (b"Infinity", FLOAT),
        (b"1e", STRING),
        (b".", STRING),
        (b"-", STRING),
        (b"1_000", STRING),
        (b"1.2.3", STRING),
        (b"nano", STRING),
        (b'""', STRING),
        ("é".encode(), STRING),
        (b"\xff", BINARY),
    ],
)
def test_type_of_a_value(text, kind):
    assert types_of_rows(tokens_of(text), [INTEGER]) == (kind,)
    assert types_of_rows(tokens_of(b"1", text, b"2"), [INTEGER]) == (kind,)


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(), st.floats(-1e6, 1e6).map(lambda x: round(x, 6))), min_size=1, max_size=20))
def test_numbers_are_read_to_the_last_bit(values):
    texts = [repr(value).encode() for value in values]
    table = rows_to_table(tokens_of(*texts), ["x"], [FLOAT])
    np.testing.assert_array_equal(table.column(0).to_numpy(), values)


@settings(deadline=None)
@given(st.lists(st.from_regex(rb"-?[0-9]{1,12}\.[0-9]{0,12}(e[-+]?[0-9]{1,3})?", fullmatch=True), min_size=1))
def test_numbers_in_any_notation(texts):
    table = rows_to_table(tokens_of(*texts), ["x"], [FLOAT])
    np.testing.assert_array_equal(table.column(0).to_numpy(), [float(text) for text in texts])


def test_texts_lose_their_quotes_only():
    table = rows_to_table(tokens_of(b'"two words"', b"it's", "é".encode()), ["x"], [STRING])
    assert table.column(0).to_pylist() == ["two words", "it's", "é"]
    assert rows_to_table(tokens_of(b"\xff"), ["x"], [BINARY]).column(0).to_pylist() == [b"\xff"]


@pytest.mark.parametrize(("text", "kind"), [(b"1.5", INTEGER), (b"x", FLOAT), (b"1_0", FLOAT), (b"\xff", STRING)])
def test_a_value_that_does_not_fit(text, kind):
    with pytest.raises(ValueError, match=r"no whole number|no number|could not convert|not UTF-8"):
        rows_to_table(tokens_of(text), ["x"], [kind])


def test_no_rows_and_no_columns():
    assert rows_to_table(tokens_of(), ["x"], [FLOAT]).schema == pa.schema([("x", pa.float64())])
    assert rows_to_table(tokens_of(b"1", b"2"), ["x"], [FLOAT], wanted=[]).num_columns == 0
