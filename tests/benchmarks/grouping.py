"""Adjusted Rand index of grouping methods on generated problems.

Run ``python -m tests.benchmarks.grouping [--problems 200] [--seed 1] [--quick] [--json FILE]``.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science import fourier, noise
from regroup_dask.science.clustering import spectral
from regroup_dask.science.grouping import group_classes
from regroup_dask.science.local_covariance import LocalCovariance, local_covariance
from regroup_dask.science.masks import squared_radius
from regroup_dask.science.similarity import Similarity, estimate_similarity
from regroup_dask.steps import places
from tests.benchmarks.grouping_problems import BOX, Problem, make_problem, oracle_labels, soft_sphere

METHODS = (
    "oracle",
    "correlation_spectral",
    "correlation_average_linkage",
    "similarity_spectral",
    "ours_whole_box",
    "ours",
)


class Measured(NamedTuple):
    """What a run measures of a problem's maps before it groups them."""

    cross_power: NDArray[np.float64]
    power_fixed: NDArray[np.float64]
    power_moving: NDArray[np.float64]
    solvent_power: NDArray[np.float64]
    solvent_fraction: NDArray[np.float64]
    mask_volume_fraction: NDArray[np.float64]
    mask_spectrum: NDArray[np.float64]
    half_map_fsc: NDArray[np.float64] | None
    ssnr: NDArray[np.float64] | None
    volumes: NDArray[np.float32]
    statistics: tuple[noise.MapStatistics, ...]


def pair_powers(
    maps: NDArray[np.float32], mask: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cross power and powers per pair and shell of maps in a common frame."""
    n, box = len(maps), maps.shape[1]
    n_shells = box // 2 + 1
    spectra = fft.rfftn(maps * mask, axes=(1, 2, 3)).reshape(n, -1).astype(np.complex128)
    weight = np.full((box, box, n_shells), 2.0)
    weight[..., 0] = 1
    if box % 2 == 0:
        weight[..., -1] = 1
    index = noise.shell_index(box).ravel()
    cross = np.zeros((n, n, n_shells))
    for s in range(n_shells):
        of_shell = np.flatnonzero(index == s)
        rows = spectra[:, of_shell] * np.sqrt(weight.ravel()[of_shell])
        cross[:, :, s] = (rows @ rows.conj().T).real
    power = cross[np.arange(n), np.arange(n)].copy()
    return cross, np.repeat(power[:, None], n, axis=1), np.repeat(power[None], n, axis=0)


def measure(problem: Problem) -> Measured:
    mask = soft_sphere(BOX, 14.0, 2.0)
    statistics = tuple(
        noise.map_statistics(volume, voxel_size_angstrom=problem.voxel_size_angstrom, mask=mask)
        for volume in problem.maps
    )
    return Measured(
        *pair_powers(problem.maps, mask),
        solvent_power=np.stack([s.solvent_power for s in statistics]),
        solvent_fraction=np.array([s.solvent_fraction for s in statistics]),
        mask_volume_fraction=np.array([s.mask_volume_fraction for s in statistics]),
        mask_spectrum=np.array([s.mask_spectrum for s in statistics]),
        half_map_fsc=problem.half_map_fsc,
        ssnr=problem.ssnr,
        volumes=problem.maps,
        statistics=statistics,
    )


def by_place(measured: Measured, similarity: Similarity, voxel_size_angstrom: float) -> LocalCovariance | None:
    """What `steps.places` measures of maps that lie in one frame."""
    signal = np.nan_to_num(similarity.signal_fraction)
    usable = signal > 0
    usable[:, 0] = False
    shared = np.flatnonzero(usable.sum(axis=0) > 1)
    if not len(shared) or len(signal) < 3:
        return None
    box = min(BOX, 2 * (int(shared[-1]) + 2))
    shells, voxel = box // 2 + 1, voxel_size_angstrom * BOX / box
    diagonal = np.arange(len(signal))
    power = measured.power_fixed[diagonal, diagonal] / (2 * noise.shell_coefficients(BOX)) * (box / BOX) ** 6
    radius = places.region_radius(measured.statistics, [None] * len(signal), voxel, box)
    return local_covariance(
        np.array([fourier.fourier_crop(volume, box) for volume in measured.volumes]),
        signal_power=(signal * power)[:, :shells],
        noise_power=((1 - signal) * power / measured.mask_volume_fraction[:, None])[:, :shells],
        noise_error=similarity.shells.reliability.scale_error,
        usable=usable[:, :shells],
        region=(squared_radius(box) < radius**2).astype(np.float32),
        spacing_voxels=places.window_spacing(measured.statistics, voxel),
    )


def similarity_of(measured: Measured) -> Similarity:
    powers = {name: value for name, value in measured._asdict().items() if name not in ("volumes", "statistics")}
    return estimate_similarity(**powers, coefficients=noise.shell_coefficients(BOX))


def distances_over_sigma(similarity: Similarity, labels: NDArray[np.int64]) -> dict[str, float]:
    """Mean and standard deviation of distance over sigma, of pairs of one structure: 0 and 1 if both are right."""
    i, j = np.triu_indices(len(labels), 1)
    same = labels[i] == labels[j]
    z = (similarity.distance[i, j] / similarity.distance_sigma[i, j])[same]
    z = z[np.isfinite(z)]
    return {"z_mean": float(z.mean()) if len(z) else np.nan, "z_deviation": float(z.std()) if len(z) > 1 else np.nan}


def run_methods(
    measured: Measured, similarity: Similarity, n_structures: int, voxel_size_angstrom: float
) -> dict[str, NDArray[np.int64]]:
    correlation = similarity.correlation
    tree = linkage(squareform(1 - correlation, checks=False), "average")
    options = {
        "distance": similarity.distance,
        "distance_sigma": similarity.distance_sigma,
        "shared_sigma": similarity.shared_sigma,
        "shells": similarity.shells,
        "information": similarity.information,
        "correlation": correlation,
        "local": by_place(measured, similarity, voxel_size_angstrom),
    }
    told = options | {"n_resamplings": 0}  # what resampling says of the stability is not looked at here
    return {
        "correlation_spectral": spectral(correlation, n_structures),
        "correlation_average_linkage": fcluster(tree, n_structures, "maxclust"),
        "similarity_spectral": spectral(similarity.similarity, n_structures),
        "ours_whole_box": group_classes(
            similarity.similarity, n_structures, **{**told, "local": None}
        ).labels,
        "ours": group_classes(similarity.similarity, n_structures, **told).labels,
        "ours_auto": group_classes(similarity.similarity, "auto", **options).labels,
    }


def solve(problem: Problem, measured: Measured | None = None) -> dict[str, float]:
    answers = {"oracle": oracle_labels(problem)}
    measured = measure(problem) if measured is None else measured
    similarity = similarity_of(measured)
    answers |= run_methods(measured, similarity, problem.n_structures, problem.voxel_size_angstrom)
    scores = {name: float(adjusted_rand_score(problem.labels, found)) for name, found in answers.items()}
    scores["auto_superclasses"] = float(len(np.unique(answers["ours_auto"])))
    return scores | distances_over_sigma(similarity, problem.labels)


def summarise(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    cuts: dict[str, Callable[[dict[str, object]], bool]] = {
        "all": lambda r: True,
        "equal noise": lambda r: bool(r["equal_noise"]),
        "unequal noise": lambda r: not r["equal_noise"],
        "coloured noise": lambda r: bool(r["coloured"]),
        "masked": lambda r: bool(r["masked"]),
        "unmasked": lambda r: not r["masked"],
        "misaligned": lambda r: bool(r["misaligned"]),
        "knows nothing": lambda r: r["known"] == "nothing",
        "knows half maps": lambda r: r["known"] == "half_maps",
        "knows SSNR": lambda r: r["known"] == "ssnr",
        "nothing, masked": lambda r: r["known"] == "nothing" and bool(r["masked"]),
        "up to 8 maps": lambda r: int(str(r["maps"])) <= 8,
        "oracle is right": lambda r: r["oracle"] == 1.0,
    }
    table = []
    for name, chosen in cuts.items():
        subset = [r for r in rows if chosen(r)]
        if subset:
            line: dict[str, object] = {"problems": name, "count": len(subset)}
            for method in (*METHODS, "ours_auto"):
                values = np.array([float(str(r[method])) for r in subset])
                line[method] = round(float(values.mean()), 3)
                if method == "ours":
                    line["error"] = round(float(values.std() / np.sqrt(len(values))), 3)
            worse = [float(str(r["ours"])) < float(str(r["correlation_spectral"])) for r in subset]
            line["worse_than_plain"] = int(sum(worse))
            right = [r["auto_superclasses"] == r["structures"] for r in subset]
            line["auto_right"] = round(float(np.mean(right)), 3)
            for name in ("z_mean", "z_deviation"):
                values = np.array([float(str(r[name])) for r in subset])
                line[name] = round(float(np.nanmean(values)), 2) if np.isfinite(values).any() else None
            table.append(line)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first problem")
    parser.add_argument("--seed", type=int, default=1, help="series of problems; tuning used other series")
    parser.add_argument("--quick", action="store_true", help="20 problems")
    parser.add_argument("--json", type=Path, help="write every problem and the table here")
    arguments = parser.parse_args()
    n_problems = 20 if arguments.quick else arguments.problems
    rows: list[dict[str, object]] = []
    started = time.perf_counter()
    for index in range(arguments.first, arguments.first + n_problems):
        problem = make_problem(arguments.seed, index)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append({"index": index, **problem.description, **solve(problem)})
    table = summarise(rows)
    columns = list(table[0])
    width = [max(len(str(line[c])) for line in [{c: c}, *table]) for c in columns]
    for line in [{c: c for c in columns}, *table]:
        print("  ".join(str(line[c]).rjust(w) for c, w in zip(columns, width, strict=True)))
    seconds = time.perf_counter() - started
    print(f"{n_problems} problems of series {arguments.seed} in {seconds:.0f} s")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"table": table, "problems": rows, "seconds": seconds}, indent=1)
        )


if __name__ == "__main__":
    main()
