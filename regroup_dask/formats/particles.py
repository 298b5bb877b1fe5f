"""Tables of particles as fragments: what every file format offers, and the plan by which they are regrouped.

A *source* is a small picklable description of one or several particle files: names and types of the columns,
the classes its posteriors speak of, and a list of *fragments*. A fragment is a range of rows that reads
itself, on any machine that sees the files; nothing else of a table ever travels. For people a source behaves
like a ``pyarrow.dataset.Dataset`` (`schema`, `count_rows`, `get_fragments`, `head`, `to_table`,
`to_batches`).

Each format is a side of its own (``formats.cryosparc``, ``formats.relion``, ``formats.parquet_particles``),
and its module of outputs offers the same three functions, so that a task need not know which it serves::

    create_outputs(source, plan, counts, folder) -> OutputFiles             # driver: headers, files sized
    write_fragment(source, fragment, table, assignment, plan, outputs, counts_before)   # task per fragment
    finish_outputs(source, plan, outputs, counts, maps) -> tuple[str, ...]  # driver: groups, models; paths

``folder`` is the whole output folder; a side makes its own part of it (``cryosparc/``, ``relion/``,
``particles/`` and ``remaining/``), and writes only paths relative to its files, because the folder may be
renamed when complete. ``counts`` is i64[n_fragments, K + 1]: rows of each fragment per superclass, the last
column the remaining ones. ``counts_before`` is i64[K + 1]: the sum over the fragments before this one, hence
where its rows begin in each file. `write_fragment` gets ``table = fragment.read()`` with all columns, writes
nothing but its own rows, and may run twice.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.regroup_plan import (
    Assignment,
    ClassPose,
    MovePoses,
    OutputFiles,
    RegroupPlan,
    SuperclassMaps,
    assigned_order,
)

__all__ = [
    "Assignment",
    "ClassPose",
    "MovePoses",
    "OutputFiles",
    "ParticleFragment",
    "ParticleSource",
    "RegroupPlan",
    "SuperclassMaps",
    "assigned_order",
    "open_particles",
    "output_functions",
    "particle_kind",
]

ParticleKind = Literal["cryosparc", "relion", "parquet"]


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

    def particle_poses(
        self, table: pa.Table, class_index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
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


MAGIC_CRYOSPARC = (b"\x93NUMPY", b"\x95CSDAT", b"\x94CSDAT")
FRAGMENT_BYTES = 64 * 2**20
"""Aimed size of a fragment in its file; reading and writing one takes a few times as much memory."""


def open_particles(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    passthrough: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    class_prefix: str = "auto",
    fragment_rows: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    run: RunPieces = in_this_process,
) -> ParticleSource:
    """Open particle files of any of the known formats, told apart by what is in them.

    Parameters
    ----------
    source : path or sequence of paths
        CryoSPARC ``.cs`` (both encodings) or a ``.csg`` group, RELION ``.star``, parquet files or a folder
        of them, cryoDRGN's ``labels.pkl``; globs are expanded. Several files of one kind are read as one table.
    passthrough : path or sequence of paths
        CryoSPARC passthrough files, in any row order.
    class_prefix : str
        CryoSPARC: which alignment slots hold the class posteriors: ``alignments_class3D_``,
        ``alignments_class_``, ``alignments3D_multi`` or ``auto``.
    fragment_rows : int, optional
        Rows of a fragment; by default as many as take about 64 MB in the file.
    scratch : path, optional
        Folder for indices and converted copies, seen by all workers; by default a temporary one.
    storage_options : dict, optional
        For URLs, as fsspec's file systems take them; used by this process from now on.
    run : RunPieces
        Runs the work of opening, piece by piece: by default in this process; `tasks.particles.on_cluster` has it done
        by workers.

    Raises
    ------
    InputError
        A file is missing or of no known kind, kinds are mixed, or the format's own demands are not met.
    """
    if storage_options is not None:
        storage.use_storage_options(storage_options)
    paths = _expand(source, "particles")
    passthrough_paths = _expand(passthrough, "passthrough") if passthrough else ()
    kinds = {path: particle_kind(path) for path in paths}
    kind = kinds[paths[0]]
    other = next((path for path in paths if kinds[path] != kind), None)
    if other is not None:
        raise InputError(
            f"particle files of different kinds cannot be read together: {paths[0]} is {kind}, "
            f"{other} is {kinds[other]}"
        )
    if passthrough_paths and kind != "cryosparc":
        raise InputError(
            f"passthrough files belong to CryoSPARC particles, but {paths[0]} is {kind}: leave them away"
        )
    if fragment_rows is not None and fragment_rows < 1:
        raise InputError(f"a fragment needs at least 1 row, not {fragment_rows}")
    scratch_folder = None if scratch is None else str(scratch)
    if kind == "cryosparc":
        from regroup_dask.formats.cryosparc.particles import open_cryosparc_particles

        return open_cryosparc_particles(
            paths,
            passthrough=passthrough_paths,
            class_prefix=class_prefix,
            fragment_rows=fragment_rows,
            scratch=scratch_folder,
            run=run,
        )
    if kind == "relion":
        from regroup_dask.formats.relion.particles import open_relion_particles

        return open_relion_particles(paths, fragment_rows=fragment_rows, scratch=scratch_folder, run=run)
    from regroup_dask.formats.parquet_particles import open_parquet_particles

    if any(path.endswith(".pkl") for path in paths):
        from regroup_dask.formats.cryodrgn import open_labels

        return open_labels(paths, fragment_rows=fragment_rows, scratch=scratch_folder)
    return open_parquet_particles(paths, fragment_rows=fragment_rows, scratch=scratch_folder, run=run)


def output_functions(
    kind: ParticleKind,
) -> tuple[Callable[..., OutputFiles], Callable[..., None], Callable[..., tuple[str, ...]]]:
    """Return (create_outputs, write_fragment, finish_outputs) of a format's own side."""
    module = {
        "cryosparc": "regroup_dask.formats.cryosparc.outputs",
        "relion": "regroup_dask.formats.relion.outputs",
        "parquet": "regroup_dask.formats.parquet_particles",
    }[kind]
    side = importlib.import_module(module)
    return side.create_outputs, side.write_fragment, side.finish_outputs


def particle_kind(path: str) -> ParticleKind:
    """Tell which format a particle file has, by its first bytes, and for text by its content.

    Raises
    ------
    InputError
        The file cannot be read or is of no known kind.
    """
    if storage.is_folder(path):
        if any(name.endswith(".parquet") for name in storage.files_below(path)):
            return "parquet"
        raise InputError(
            f"{path} is a folder without parquet files: give particle files, or run it as a job folder"
        )
    try:
        with storage.open_reading(path, buffering=65536) as stream:
            start = stream.read(65536)
    except OSError as error:
        raise InputError(f"cannot read the particle file {path}: {error.strerror}") from None
    if start.startswith(MAGIC_CRYOSPARC) or path.endswith(".csg"):
        return "cryosparc"
    if start.startswith(b"PAR1") or path.endswith(".pkl"):
        return "parquet"
    if path.endswith(".star") or any(line.startswith(b"data_") for line in start.splitlines()):
        return "relion"
    raise InputError(
        f"{path} is no particle file known here: expected a CryoSPARC .cs or .csg, a RELION .star or a "
        "parquet file"
    )


def _expand(source: Any, what: str) -> tuple[str, ...]:
    """Expand globs (sorted) and make paths absolute; the order of a list is kept."""
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths: list[str] = []
    for item in given:
        text = storage.given(item)
        found = storage.matching(text) if glob.has_magic(text) and not storage.exists(text) else [text]
        if not found:
            raise InputError(f"no {what} file matches {text}")
        paths += [storage.absolute(path) for path in found]
    if not paths:
        raise InputError(f"no {what} files were given")
    missing = next((path for path in paths if not storage.exists(path)), None)
    if missing is not None:
        raise InputError(f"the {what} file {missing} does not exist")
    return tuple(paths)
