import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.formats.relion import star_text
from regroup_dask.formats.relion.star_text import locate_blocks, read_lines, read_small_block, split_rows

words = st.text("ab0.-_#'\"é@/[,", min_size=1, max_size=12).filter(lambda word: word[0] not in "\"'#")
quoted = words.filter(lambda word: '"' not in word).map(lambda word: f'"{word} and {word}"')
blanks = st.text(" \t", min_size=1, max_size=4)


def values(tokens):
    text = tokens.text.tobytes()
    return [
        [text[a:b].decode() for a, b in zip(starts, stops, strict=True)]
        for starts, stops in zip(tokens.starts, tokens.stops, strict=True)
    ]


@settings(deadline=None)
@given(data=st.data(), n_columns=st.integers(1, 5), n_rows=st.integers(0, 6))
def test_every_value_of_every_row_is_found(data, n_columns, n_rows):
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    rows = [[data.draw(st.one_of(words, quoted)) for _ in range(n_columns)] for _ in range(n_rows)]
    text = ""
    for row in rows:
        if data.draw(st.booleans()):
            text += data.draw(st.sampled_from(["", "   ", "# a comment", "  #x y z"])) + newline
        text += data.draw(st.sampled_from(["", " "])) + data.draw(blanks).join(row)
        text += data.draw(st.sampled_from(["", " "])) + newline
    tokens = split_rows(text.encode(), n_columns, path="x.star", first_line=1)
    assert values(tokens) == rows


@pytest.mark.parametrize(
    ("text", "line", "count"),
    [
        ("1 2\n3\n", 12, 1),
        ("1 2\n\n# c c\n3 4 5\n", 14, 3),
        ("1\n2\n", 11, 1),
        ("1 2 3 4\n", 11, 4),
        ('1 "a b\n', 11, 3),
    ],
)
def test_wrong_number_of_values_names_the_line(text, line, count):
    with pytest.raises(
        InputError, match=f"x.star, line {line}: {count} values where the table has 2 columns"
    ):
        split_rows(text.encode(), 2, path="x.star", first_line=11)


def test_quotes_within_a_word_are_letters():
    text = b"5'-end it's \"two words\" \"open 'a\"b c'\n"
    tokens = split_rows(text, 5, path="x.star", first_line=1)
    assert values(tokens) == [["5'-end", "it's", '"two words"', '"open', "'a\"b c'"]]


def test_blocks_of_all_kinds(tmp_path):
    path = tmp_path / "a.star"
    path.write_bytes(
        b"\xef\xbb\xbfdata_general\n_rlnA 1\n_rlnB 'two words'\r\n\ndata_\nloop_\n_rlnName #1 [what it is]\n"
        b"\n# c\n_rlnX #2\ndata_1/stack.mrcs 5\n  data_2 6\n\n data_empty # nothing\n"
    )
    blocks = locate_blocks(str(path))
    assert [(block.name, block.kind, block.columns) for block in blocks] == [
        ("general", "pairs", ("rlnA", "rlnB")),
        ("", "loop", ("rlnName", "rlnX")),
        ("empty", "empty", ()),
    ]
    assert blocks[1].labels_stop_line == 11
    assert read_small_block(str(path), blocks[0]) == [{"rlnA": "1", "rlnB": "two words"}]
    assert read_small_block(str(path), blocks[1]) == [
        {"rlnName": "data_1/stack.mrcs", "rlnX": "5"},
        {"rlnName": "data_2", "rlnX": "6"},
    ]


@settings(deadline=None)
@given(text=st.binary(max_size=400), chunk=st.integers(1, 50))
def test_lines_come_whole_and_once(tmp_path_factory, text, chunk):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star_text, "CHUNK_BYTES", chunk)
        chunks = list(read_lines(str(path), 0, len(text), first_line=3))
    joined = b"".join(piece.text for piece in chunks)
    assert joined == text if text.endswith(b"\n") or not text else joined == text + b"\n"
    assert all(piece.text.endswith(b"\n") for piece in chunks)
    lines = np.cumsum([3, *(piece.text.count(b"\n") for piece in chunks)])
    assert [piece.first_line for piece in chunks] == lines[:-1].tolist()


@pytest.mark.parametrize("text", ["", "nothing here\n", "\x93NUMPY data_x y\n"])
def test_no_star_file(tmp_path, text):
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(InputError, match="is not a star file"):
        locate_blocks(str(tmp_path / "a.star"))


def test_a_column_given_twice(tmp_path):
    (tmp_path / "a.star").write_text("data_particles\nloop_\n_rlnX #1\n_rlnX #2\n1 2\n")
    with pytest.raises(InputError, match="data_particles has the column _rlnX twice"):
        locate_blocks(str(tmp_path / "a.star"))
