"""Tables of particles as fragments: what every file format offers.

A *source* is a small picklable description of one or several particle files: names and types of the columns,
the classes its posteriors speak of, and a list of *fragments*. A fragment is a range of rows that reads
itself, on any machine that sees the files; nothing else of a table ever travels. For people a source behaves
like a ``pyarrow.dataset.Dataset`` (`schema`, `count_rows`, `get_fragments`, `head`, `to_table`,
`to_batches`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

ParticleKind = Literal["cryosparc", "relion", "parquet"]

FRAGMENT_BYTES = 64 * 2**20
"""Aimed size of a fragment in its file; reading and writing one takes a few times as much memory."""


class ParticleFragment(Protocol):
    """A range of rows of a source that reads itself; small and picklable."""

    @property
    def index(self) -> int:
        """Position among the fragments of the source, from 0."""
        ...

    @property
    def first_row(self) -> int:
        """Rows of the source before this fragment: row i of the table read is row ``first_row + i``."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of the fragment."""
        ...

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, in file order; ``columns=None`` means all, in the order of the schema."""
        ...


class FragmentRows(NamedTuple):
    """The rows of a fragment, read once for everything that is made of them."""

    table: pa.Table
    own: Any = None
    """for `write_fragment` of the format's own side: what it would read again"""


@dataclass(frozen=True, kw_only=True)
class ParticleSource:
    """Particles of one or several files, as fragments; base of the source of each format.

    Attributes
    ----------
    kind : {"cryosparc", "relion", "parquet"}
    files : tuple of str
        Every file that is read, absolute.
    schema : pyarrow.Schema
        Columns by the names they have in the files.
    fragments : tuple of ParticleFragment
    class_ids : tuple of int
        The classes that the posteriors speak of, sorted, zero-based.
    posterior_columns : tuple of str
        The columns `class_posteriors` needs; enough to read for a survey.
    hard : bool
        The files hold one class per particle and no posteriors; `class_posteriors` is one-hot then.
    voxel_size_angstrom : float or None
        Pixel of the poses' shifts, where the files say it.
    particle_columns : tuple of str
        Columns that identify a particle for people (``uid``, or ``rlnImageName``); may be empty.
    lines : tuple of str
        What was found and assumed, one sentence each, for the person who runs it.
    passthrough_files : tuple of str
        Those of `files` that only add columns to the others.
    """

    kind: ParticleKind
    files: tuple[str, ...]
    schema: pa.Schema
    fragments: tuple[Any, ...]
    class_ids: tuple[int, ...]
    posterior_columns: tuple[str, ...]
    hard: bool = False
    voxel_size_angstrom: float | None = None
    particle_columns: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    passthrough_files: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of particles."""
        return sum(fragment.n_rows for fragment in self.fragments)

    def count_rows(self) -> int:
        """Number of particles, as ``pyarrow.dataset`` calls it."""
        return self.n_rows

    def get_fragments(self) -> Iterator[ParticleFragment]:
        """Iterate over the fragments, in row order."""
        return iter(self.fragments)

    def to_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read one fragment after another, never more than one at a time."""
        for fragment in self.fragments:
            yield from fragment.read(columns).to_batches()

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all particles into one table; for small files and few columns."""
        tables = [fragment.read(columns) for fragment in self.fragments]
        if not tables:
            return self._columns_of_schema(columns).empty_table()
        return pa.concat_tables(tables)

    def head(self, num_rows: int = 5, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the first rows."""
        tables: list[pa.Table] = []
        missing = num_rows
        for fragment in self.fragments:
            if missing <= 0:
                break
            tables.append(fragment.read(columns).slice(0, missing))
            missing -= tables[-1].num_rows
        return pa.concat_tables(tables) if tables else self._columns_of_schema(columns).empty_table()

    def class_posteriors(self, table: pa.Table) -> np.ndarray:
        """Return the posterior of every class for each row of a table read with `posterior_columns`.

        Returns
        -------
        f32[n, n_classes]
            Columns in the order of `class_ids`; one-hot when `hard`. A row that is NaN or all zero says
            nothing about its class.
        """
        raise NotImplementedError

    def read_for_writing(self, fragment: Any) -> FragmentRows:
        """Read a fragment with all columns, and what else the format's own side needs to write its rows."""
        return FragmentRows(fragment.read())

    def class_counts(self, fragment: Any) -> np.ndarray | None:
        """Rows of a fragment per class, where opening the files has told them already.

        Returns
        -------
        i64[n_classes + 1] or None
            In the order of `class_ids`; the last is of rows without a class.
        """
        return None

    def particle_poses(self, table: pa.Table, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the pose that each row has against its class, or None where the files have no poses.

        Parameters
        ----------
        table : pyarrow.Table
            Rows with all columns.
        class_index : int[n]
            Index into `class_ids` of the class of each row, for files with a pose per class; -1 for none.

        Returns
        -------
        rotation f64[n, 3, 3], shift_angstrom f64[n, 2] or f64[n, 3]
            The rotation takes the particle's frame to the volume's; the image moves by +shift to centre it.
            NaN where a row has no pose.
        """
        return None

    def _repr_html_(self) -> str:
        """What a notebook shows; nothing is read for it."""
        from regroup_dask.formats.notebook_html import html_box, html_fold, html_list, html_rows, shortened

        names = {"cryosparc": "CryoSPARC", "relion": "RELION", "parquet": "parquet"}
        how = "one class per particle" if self.hard else "posteriors over classes"
        rows: list[tuple[str, object]] = [
            ("files", shortened([os.path.basename(path.rstrip("/")) for path in self.files], 6)),
            ("classes", f"{len(self.class_ids)}: {shortened(self.class_ids)} ({how})"),
            ("told apart by", shortened(self.particle_columns) or "their row"),
            ("parts", f"{len(self.fragments)}, each read by itself"),
        ]
        if self.voxel_size_angstrom:
            rows.append(("pixel of the shifts", f"{self.voxel_size_angstrom:.4g} Å"))
        columns = html_rows((field.name, field.type) for field in self.schema)
        return html_box(
            f"{self.n_rows:,} particles",
            names[self.kind],
            [html_rows(rows), html_list(self.lines), html_fold(f"{len(self.schema)} columns", columns)],
        )

    def _columns_of_schema(self, columns: Sequence[str] | None) -> pa.Schema:
        return self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
