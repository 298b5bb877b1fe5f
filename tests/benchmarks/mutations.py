"""Damaged and hostile particle files: a clear error or a right answer, never a traceback, a hang or a partial output.

    python -m tests.benchmarks.mutations [--count 10000] [--seed 0] [--keep FOLDER]

Small files of every format are mutated (cut, bytes flipped, inserted, repeated or zeroed, numbers and names replaced by
hostile ones), opened, read, regrouped and written. Allowed are InputError, which a person sees as one sentence, and an
answer in which every row that the source counts is there exactly once. Anything else is listed with the seed that
makes it again; the exit code is then 1. Names that would lead out of their folder must not make a file there.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import InputError
from regroup_dask.formats import parquet_particles
from regroup_dask.formats.cryosparc.result_group import ResultSlot, write_result_group
from regroup_dask.formats.model_star import read_model_classes, read_model_ssnr
from regroup_dask.formats.particles import open_particles, output_functions
from regroup_dask.formats.pickled_arrays import read_array, write_array
from tests.formats.cryosparc.making import make_particles, save
from tests.formats.relion.regrouping import assign, plan_for, random_pose, write_star

SECONDS = 20
ROWS = 12
HOSTILE = [
    *(b"../../../../etc/passwd", b"/etc/passwd", b">../outside.cs", b">/tmp/x.cs", b"..\\..\\x", b"\0", b"%s%n", b"$(id)"),
    *(b"nan", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"\xff\xfe", b"'", b'"', b"#", b"loop_", b"data_"),
    *(b"!!python/object/apply:os.system ['id']", b"&a [*a]", b"'|O'", b"('<u8', (1000000000,))", b"2147483648", b"True"),
]


class TooSlowError(Exception):
    """A file took longer than `SECONDS`."""


def originals(folder: Path) -> dict[str, bytes]:
    """Small sound files of every kind, by name."""
    rng = np.random.default_rng(0)
    for generation in ("multi", "class3D", "class", "hard"):
        records, _ = make_particles(ROWS, 3, generation, rng)
        save(folder / f"{generation}.cs", records)
    write_group(folder, "multi.cs")
    write_star(folder / "a.star", n=ROWS, n_classes=3)
    table = {"uid": np.arange(ROWS), "class_id": np.arange(ROWS) % 3, "name": [f"image {i}" for i in range(ROWS)]}
    pq.write_table(pa.table(table), folder / "a.parquet")
    write_array(folder / "labels.pkl", np.arange(ROWS) % 3)
    columnar(folder / "columns.cs", folder / "multi.cs")
    model = "data_model_general\n_rlnPixelSize 1.5\n_rlnOriginalImageSize 64\n\ndata_model_classes\nloop_\n"
    model += "_rlnReferenceImage\n_rlnClassDistribution\n_rlnEstimatedResolution\na.mrc 0.5 8\nb.mrc 0.5 inf\n"
    model += "\ndata_model_class_1\nloop_\n_rlnSpectralIndex\n_rlnSsnrMap\n0 5\n1 -nan\n"
    (folder / "model.star").write_text(model)
    names = [path.name for path in sorted(folder.iterdir())]
    return {name: (folder / name).read_bytes() for name in names}


def write_group(folder: Path, metafile: str) -> None:
    slots = {"alignments3D_multi": ResultSlot(metafile, ROWS, "particle.alignments3D")}
    write_result_group(str(folder / "a.csg"), name="a", title="A", description="", type="particle", slots=slots)


def columnar(path: Path, source: Path) -> None:
    """The same table in CryoSPARC's columnar encoding, written by cryosparc-tools."""
    from cryosparc.dataset import Dataset

    Dataset.load(source).save(path, format=Dataset.__dict__.get("COMPRESSED", 2))


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One or a few random damages."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        n = len(data)
        place, size = int(rng.integers(0, n + 1)), int(rng.integers(1, 64))
        header = rng.random() < 0.3
        if header:  # where the structure is
            place = int(rng.integers(0, min(n, 1500) + 1))
        kind = int(rng.choice(8, p=[0.1, 0.3, 0.05, 0.05, 0.15, 0.05, 0.15, 0.15]))
        if kind == 0:
            data = data[:place]
        elif kind == 1 and n:
            flipped = bytearray(data)
            for position in rng.integers(0, n, int(rng.integers(1, 6))).tolist():
                flipped[position if not header else min(position, place, n - 1)] ^= 1 << int(rng.integers(0, 8))
            data = bytes(flipped)
        elif kind == 2:
            data = data[:place] + rng.bytes(size) + data[place:]
        elif kind == 3:
            data = data[:place] + data[place + size :]
        elif kind == 4:
            data = data[:place] + bytes(size) + data[place + size :]
        elif kind == 5:
            data = data[: place + size] + data[place:]
        elif kind == 6:
            text = HOSTILE[int(rng.integers(0, len(HOSTILE)))]
            data = data[:place] + text + data[place + (len(text) if rng.random() < 0.7 else 0) :]
        else:
            data = swap_words(data, rng)
    return data


def swap_words(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a word that is in the file by another, or by a hostile one."""
    words = [b"<f4", b"<u4", b"<u8", b"|S40", b"class", b"uid", b"pose", b"shift", b"psize_A", b"posterior", b"Angst"]
    words += [b"rlnClassNumber", b"rlnAngleRot", b"metafile", b"results", b">multi.cs", b"particle", b"(3,)", b" 1 ", b"."]
    present = [word for word in words if word in data]
    if not present:
        return data
    old = present[int(rng.integers(0, len(present)))]
    others = [*words, *HOSTILE, b"<f8", b"|O", b">f4", b"<U4", b"<M8[s]", b"|V8", b"<c8", b"?"]
    return data.replace(old, others[int(rng.integers(0, len(others)))], int(rng.integers(1, 4)))


def use(path: Path, folder: Path) -> str:
    """Do with a file all that a run does; returns what came of it."""
    if path.name.endswith("model.star"):
        read_model_classes(path)
        read_model_ssnr(path)
        return "read"
    if path.suffix == ".pkl":
        read_array(path)
    source = open_particles(path, scratch=folder / "scratch", fragment_rows=5)
    n_classes = len(source.class_ids)
    labels = [*([0] * max(1, n_classes - 2)), *([1, -1][: max(0, n_classes - 1)])][:n_classes]
    poses = {source.class_ids[-1]: random_pose(1), source.class_ids[0]: random_pose(2)}
    plan = plan_for(source, labels, poses)
    tables = [fragment.read() for fragment in source.fragments]
    chosen = [assign(source, table, plan) for table in tables]
    k = plan.n_superclasses
    counts = np.array([np.bincount(np.where(a.superclass < 0, k, a.superclass), minlength=k + 1) for a in chosen])
    counts = counts.reshape(-1, k + 1)
    output = folder / "OUT"
    sides = [(parquet_particles.create_outputs, parquet_particles.write_fragment, parquet_particles.finish_outputs)]
    if source.kind != "parquet":
        sides.append(output_functions(source.kind))
    for create, write, finish in sides:
        outputs = create(source, plan, counts, str(output))
        for number, fragment in enumerate(source.fragments):
            before = counts[:number].sum(axis=0)
            write(source, fragment, tables[number], chosen[number], plan, outputs, before)
        finish(source, plan, outputs, counts, None)
    rows = np.concatenate(
        [
            pq.ParquetFile(file).read(columns=["input_row"]).column(0).to_numpy()
            for file in sorted(output.rglob("*.parquet"))
        ]
    )
    if sorted(rows.tolist()) != list(range(source.n_rows)):
        raise AssertionError(f"{source.n_rows} rows, but written are {sorted(rows.tolist())}")
    return "answered"


def run_mutations(count: int, seed: int, folder: Path, keep: Path | None = None) -> Iterator[tuple[int, str, str]]:
    """Yield (number, file, outcome); an outcome that is not allowed holds its traceback."""
    sound = folder / "sound"
    sound.mkdir(parents=True)
    files = originals(sound)
    names = list(files)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        work = folder / "work"
        work.mkdir()
        for other in ("multi.cs",):
            (work / other).write_bytes(files[other])
        path = work / name
        path.write_bytes(mutate(files[name], rng))
        outside = set(folder.iterdir())
        try:
            signal.alarm(SECONDS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = use(path, work)
        except InputError:
            outcome = "refused"
        except Exception:
            outcome = traceback.format_exc()
        finally:
            signal.alarm(0)
        if set(folder.iterdir()) != outside:
            outcome = f"made {set(folder.iterdir()) - outside}"
        if keep is not None and outcome not in ("answered", "read", "refused"):
            keep.mkdir(exist_ok=True)
            shutil.copy(path, keep / f"{number:06d}_{name}")
        shutil.rmtree(work)
        yield number, name, outcome


def too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError(f"longer than {SECONDS} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the files that are not dealt with here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, too_slow)
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong: dict[str, list[str]] = {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for number, name, outcome in run_mutations(arguments.count, arguments.seed, Path(folder), arguments.keep):
            allowed = outcome in ("answered", "read", "refused")
            outcomes[name, outcome if allowed else "WRONG"] += 1
            if not allowed:
                lines = outcome.strip().splitlines()
                place = next((line.strip() for line in reversed(lines) if "regroup_dask" in line), "")
                wrong.setdefault(f"{lines[-1][:150]} | {place}", []).append(f"{number}:{name}")
    for (name, outcome), n in sorted(outcomes.items()):
        print(f"{name:14} {outcome:10} {n}")
    for what, where in sorted(wrong.items(), key=lambda item: -len(item[1])):
        print(f"{len(where)} x {what}  (numbers {', '.join(where[:4])})")
    n_wrong = sum(map(len, wrong.values()))
    print(f"{arguments.count} files in {time.perf_counter() - began:.0f} s, {n_wrong} not as they should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
