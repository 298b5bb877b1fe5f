"""What a run will take, worked out before it starts: tasks, memory of a worker, time; refused when it cannot fit."""

from __future__ import annotations

import math
from typing import NamedTuple

from dask.utils import format_bytes
from distributed.system import MEMORY_LIMIT

from regroup_dask.errors import InputError
from regroup_dask.formats.particle_source import ParticleSource
from regroup_dask.formats.slabs import SLAB_BYTES
from regroup_dask.formats.volumes import VolumeSeries
from regroup_dask.progress import words_of_time
from regroup_dask.science import invariants
from regroup_dask.settings import Settings
from regroup_dask.steps import pair_list, pair_table, polishing
from regroup_dask.steps.listed import are_listed
from regroup_dask.steps.places import MOST_MAPS_BY_PLACE
from regroup_dask.tasks import cluster_settings, pairs, places, prepare
from regroup_dask.tasks.crew import WorkerResources

# Measured: a worker process with everything imported and its kernels compiled.
PROCESS_BYTES = 420 * 2**20
# Measured at the working box of 64: what one map prepared for comparing takes, and the work space of a comparison.
PREPARED_BYTES_PER_VOXEL = 52
PAIR_BYTES_PER_VOXEL = 260
# Measured: the driver with everything imported, and what the report takes.
DRIVER_BYTES = 450 * 2**20
# Arrow tables, records and text of a fragment together, in multiples of its bytes in the file.
PARTICLE_COPIES = 6
# CPU seconds on a core of 2020: a pair aligned at the working box of 64; a byte of a map read and reduced, or moved.
ALIGN_SECONDS = 0.02
MEASURE_SECONDS = 0.004
SECONDS_PER_VOXEL = 2.5e-7
# Measured, whatever the size: workers start, the driver groups the classes and draws the page.
REST_SECONDS = 15.0
# More pairs than this for each map, and those of the nearest maps would do.
PAIRS_OF_MANY = 100


class RunPlan(NamedTuple):
    """What a run will take.

    Attributes
    ----------
    n_maps, box, n_tiles, n_pairs, n_fragments
        Its size.
    bytes_per_process
        Memory of a worker process whatever it does, with its cache of prepared maps.
    bytes_per_thread
        Memory of the largest task of each kind, by name; each thread of a worker runs one.
    seconds
        CPU seconds of everything that grows with the maps, the pairs and the particles.
    driver_bytes
        Memory of the process that gives out the work: it holds what is known of every pair.
    """

    n_maps: int
    box: int
    n_tiles: int
    n_pairs: int
    n_fragments: int
    bytes_per_process: int
    bytes_per_thread: dict[str, int]
    seconds: float
    driver_bytes: int

    @property
    def largest_task(self) -> str:
        """Name of the kind of task that needs the most memory."""
        return max(self.bytes_per_thread, key=self.bytes_per_thread.__getitem__)

    def worker_bytes(self, n_threads: int) -> int:
        """Memory that a worker of so many threads needs."""
        return self.bytes_per_process + n_threads * self.bytes_per_thread[self.largest_task]


def plan_run(n_maps: int, series: VolumeSeries, source: ParticleSource | None, settings: Settings) -> RunPlan:
    """Work out what a run will take.

    Parameters
    ----------
    n_maps
        Maps that take part.
    series
        The maps.
    source
        The particles, or None.
    settings
        Parameters of the run.
    """
    box = series.box
    voxels, working = box**3, prepare.working_box(box)
    n_pairs, n_tiles = _pairs_and_tiles(n_maps, settings.n_nearest)
    prepared = PREPARED_BYTES_PER_VOXEL * working**3
    compressed = any(reference.path.endswith((".gz", ".bz2", ".zst")) for reference in series.references)
    unpacked = 4 * voxels if compressed else 0
    tasks = {
        "reading a map": unpacked + 4 * SLAB_BYTES + 8 * box * working * (working // 2 + 1) * 2 + 40 * working**3,
        "preparing a map": PAIR_BYTES_PER_VOXEL * working**3,
        "comparing maps": PAIR_BYTES_PER_VOXEL * working**3,
        "averaging maps": unpacked + 4 * voxels + 6 * SLAB_BYTES + 32 * 8 * box * box * 3,
    }
    if settings.align and settings.mask is None:
        most = min(n_maps, polishing.MOST_IN_AVERAGE + polishing.MEMBERS_PER_UNIT)
        tasks["polishing poses"] = (2 * PAIR_BYTES_PER_VOXEL + 12 * most) * working**3
    if n_maps <= MOST_MAPS_BY_PLACE and settings.n_nearest is None:
        tasks["comparing places"] = places.places_bytes(n_maps, working)
    if not settings.align:
        tasks["correlating maps"] = pairs.correlation_bytes(n_maps, box, compressed=compressed)
    n_fragments, seconds = 0, 0.0
    if source is not None:
        n_fragments = len(source.fragments)
        rows = max((fragment.n_rows for fragment in source.fragments), default=0)
        tasks["writing particles"] = PARTICLE_COPIES * rows * _row_bytes(source)
        seconds += source.n_rows * 6e-6
    scale = (working / 64) ** 3
    seconds += n_pairs * scale * (ALIGN_SECONDS if settings.align else MEASURE_SECONDS)
    seconds += n_maps * (0.3 * scale + voxels * SECONDS_PER_VOXEL * (3 if settings.align else 1))
    cache = min(cluster_settings.n_bytes("map-cache") + prepared, n_maps * prepared)
    tables = pair_list.driver_bytes if are_listed(n_maps, settings) else pair_table.driver_bytes
    driver = DRIVER_BYTES + tables(n_maps, n_pairs, working // 2 + 1)
    return RunPlan(n_maps, box, n_tiles, n_pairs, n_fragments, PROCESS_BYTES + cache, tasks, seconds, driver)


def _pairs_and_tiles(n_maps: int, n_nearest: int | None) -> tuple[int, int]:
    """Pairs to compare and the tasks they make; of the nearest (and a few further ones), as many as there are at most."""
    if n_nearest is None or n_nearest >= n_maps - 1:
        tiles = pairs.tile_pairs(n_maps)
        return n_maps * (n_maps - 1) // 2, len(tiles)
    n_pairs = min(n_maps * (n_nearest + invariants.FAR_PAIRS), n_maps * (n_maps - 1) // 2)
    return n_pairs, math.ceil(n_pairs / pairs.PAIRS_PER_RUN)


def plan_lines(plan: RunPlan, workers: tuple[WorkerResources, ...]) -> tuple[str, ...]:
    """Say the plan in two sentences."""
    threads = sum(worker.threads for worker in workers) or 1
    per_worker = max((worker.threads for worker in workers), default=1)
    parts = "1 part" if plan.n_fragments == 1 else f"{plan.n_fragments} parts"
    particles = f", the particles in {parts}" if plan.n_fragments else ""
    whole = words_of_time(_rounded(plan.seconds / threads + REST_SECONDS))
    return (
        f"{plan.n_maps} maps of box {plan.box}: {plan.n_pairs} pairs in {plan.n_tiles} tiles{particles}.",
        f"{len(workers) or 1} worker(s) of {per_worker} thread(s), each within "
        f"{format_bytes(plan.worker_bytes(per_worker))} of memory, and the driver (this process) within "
        f"{format_bytes(plan.driver_bytes)}; up to about {whole} altogether, where nothing else runs.",
    )


def check_memory(
    plan: RunPlan, workers: tuple[WorkerResources, ...], *, driver_limit: int = MEMORY_LIMIT
) -> None:
    """Refuse a run whose largest task does not fit a worker, or whose tables do not fit the driver.

    Raises
    ------
    InputError
        The message says what does not fit, where, and what to do.
    """
    if plan.driver_bytes > driver_limit:
        instead = "; --pairs nearest keeps far fewer pairs" if plan.n_pairs > PAIRS_OF_MANY * plan.n_maps else ""
        raise InputError(
            f"This machine has {format_bytes(driver_limit)} of memory, but the driver needs up to "
            f"{format_bytes(plan.driver_bytes)} for the tables of {plan.n_pairs} pairs of {plan.n_maps} maps: run it where "
            f"there is that much, or leave out maps (--minimum-class-size, --exclude-classes){instead}."
        )
    for worker in workers:
        needed = plan.worker_bytes(worker.threads)
        if worker.memory_limit and needed > worker.memory_limit:
            remedy = f"give each worker {format_bytes(_round_up(needed))}"
            fewer = (worker.memory_limit - plan.bytes_per_process) // plan.bytes_per_thread[plan.largest_task]
            if fewer >= 1:
                remedy += f", or {fewer} thread(s)"
            raise InputError(
                f"The worker {worker.address} has {format_bytes(worker.memory_limit)} for {worker.threads} thread(s), "
                f"but {plan.largest_task} of box {plan.box} needs up to {format_bytes(needed)}: {remedy}."
            )


def _row_bytes(source: ParticleSource) -> int:
    """Bytes of a row in memory; text counts as 64."""
    total = 0
    for field in source.schema:
        kind, count = field.type, 1
        if hasattr(kind, "list_size"):
            count, kind = kind.list_size, kind.value_type
        try:
            total += count * kind.bit_width // 8
        except ValueError:
            total += 64
    return total


def _rounded(seconds: float) -> float:
    return 10 * math.ceil(seconds / 10) if seconds < 60 else seconds


def _round_up(n_bytes: int) -> int:
    step = 2**28
    return -(-n_bytes // step) * step
