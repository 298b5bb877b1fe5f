"""A map made ready for many alignments: spectra, derivatives and harmonic coefficients, once per map."""

from __future__ import annotations

from typing import NamedTuple

import finufft
import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.science.alignment_plan import (
    OVERSAMPLING,
    AlignmentPlan,
    particle_coefficients,
    shift_bank,
)
from regroup_dask.science.fourier import (
    centred_spectrum,
    sampled_spectrum,
    shell_counts,
    shell_power,
    shell_sums,
)
from regroup_dask.science.fourier_interpolation import shortened
from regroup_dask.science.masks import estimate_extent, soft_edge, solvent_level, squared_radius
from regroup_dask.science.shell_statistics import PADDING, shell_coefficients
from regroup_dask.science.spherical_harmonics import analysis_matrix, sphere_grid


class PreparedMap(NamedTuple):
    """What alignment needs of one map; every field an array of a shape that the plan fixes.

    Attributes
    ----------
    spectrum : numpy.ndarray
        complex64 (c,), of the whole working map about the origin voxel, at `shell_coefficients`.
    padded : numpy.ndarray
        uint16 (2 r + 1, 2 r + 1, r + 1, 2), its spectrum on a grid finer by `PADDING`, `shortened`.
    shell_power : numpy.ndarray
        float64 (n // 2 + 1,), sum of ``|F|^2`` per shell.
    centre_voxels : numpy.ndarray
        float64 (3,), whole numbers: where the particle box is centred, from the origin voxel.
    cube : numpy.ndarray
        complex64, oversampled spectrum of the particle box.
    coefficients : numpy.ndarray
        float32 (8, c), real and imaginary parts of F and of k x grad F in the particle box.
    curvature : numpy.ndarray
        float64 (finest + 1, 6, 6), per shell the sum of products of the derivatives.
    power : numpy.ndarray
        float64 (finest + 1,), mean ``|F|^2`` per coefficient of the particle box's shells.
    reliability : numpy.ndarray
        float64 (finest + 1,), part of that power which is signal, 0 to 1.
    coarse_bank : numpy.ndarray
        complex64 ((L + 1)^2, shells, shifts), Hartley values, map shifted by minus the bank's shifts.
    amplitudes : numpy.ndarray
        complex64 ((L + 1)^2, half shells), of ``|F|``.
    """

    spectrum: np.ndarray
    padded: np.ndarray
    shell_power: np.ndarray
    centre_voxels: np.ndarray
    cube: np.ndarray
    coefficients: np.ndarray
    curvature: np.ndarray
    power: np.ndarray
    reliability: np.ndarray
    coarse_bank: np.ndarray
    amplitudes: np.ndarray


def _cube_reach(plan: AlignmentPlan) -> int:
    return int(np.floor(OVERSAMPLING * (plan.finest_shell + 0.5))) + 1


def _padded_reach(plan: AlignmentPlan) -> int:
    return int(np.floor(PADDING * (plan.box // 2 + 0.5))) + 1


def prepared_shapes(plan: AlignmentPlan) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and type of every field of a `PreparedMap` of this plan."""
    box, finest = plan.box, plan.finest_shell
    reach, wide = _cube_reach(plan), _padded_reach(plan)
    count = particle_coefficients(finest)[0].shape[1]
    complex64, float32, float64 = np.dtype(np.complex64), np.dtype(np.float32), np.dtype(np.float64)
    shifts = len(shift_bank(plan.bank_spacing, plan.bank_radius))
    return {
        "spectrum": ((len(shell_coefficients(box)[1]),), complex64),
        "padded": ((2 * wide + 1, 2 * wide + 1, wide + 1, 2), np.dtype(np.uint16)),
        "shell_power": ((plan.n_shells,), float64),
        "centre_voxels": ((3,), float64),
        "cube": ((2 * reach + 1, 2 * reach + 1, reach + 1), complex64),
        "coefficients": ((8, count), float32),
        "curvature": ((finest + 1, 6, 6), float64),
        "power": ((finest + 1,), float64),
        "reliability": ((finest + 1,), float64),
        "coarse_bank": (((plan.coarse_degree + 1) ** 2, plan.coarse_shells, shifts), complex64),
        "amplitudes": (((plan.amplitude_degree + 1) ** 2, plan.amplitude_shells), complex64),
    }


def cut_particle(
    volume: np.ndarray, centre: np.ndarray, plan: AlignmentPlan
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the particle box about an integer centre, level its rim to zero, and mask it softly.

    Returns
    -------
    particle, mask : numpy.ndarray
        float32 (m, m, m).
    """
    box, size = plan.box, plan.particle_box
    start = [int(c) + box // 2 - size // 2 for c in centre[::-1]]
    inside = tuple(slice(max(0, s), min(box, s + size)) for s in start)
    target = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, start, strict=True))
    particle = np.zeros((size, size, size), dtype=np.float32)
    valid = np.zeros((size, size, size), dtype=np.float32)
    particle[target] = volume[inside]
    valid[target] = 1.0
    radius = np.sqrt(squared_radius(size))
    mask = soft_edge(radius, min(plan.particle_radius_voxels, 0.5 * size - 1.0), 0.5 * size)
    rim = mask * (1.0 - mask) * valid
    total = float(rim.sum())
    level = float((rim * particle).sum()) / total if total > 0 else 0.0
    return (particle - np.float32(level)) * mask * valid, mask * valid


def _solvent(values: np.ndarray, centre: np.ndarray, plan: AlignmentPlan) -> np.ndarray:
    """Return where, outside the particle, the map shows its noise: not where a mask has faded it out.

    A mask about the origin leaves noise of one variance up to some radius; only radii near that variance
    count.
    """
    box = plan.box
    outside = squared_radius(box, centre) > (1.05 * plan.particle_radius_voxels + 2.0) ** 2
    ring = np.sqrt(squared_radius(box)).astype(np.int64)
    number = np.bincount(ring[outside], minlength=ring.max() + 1)
    total = np.bincount(ring[outside], weights=values[outside], minlength=ring.max() + 1)
    square = np.bincount(ring[outside], weights=values[outside] ** 2, minlength=ring.max() + 1)
    variance = square / np.maximum(number, 1) - (total / np.maximum(number, 1)) ** 2
    noisy = (number > 50) & (variance > 1e-7 * values.var())
    if not noisy.any():
        return np.zeros(values.shape, dtype=bool)
    order = np.argsort(variance[noisy], kind="stable")
    share = np.cumsum(number[noisy][order])
    level = variance[noisy][order][np.searchsorted(share, 0.6 * share[-1])]
    return outside & (noisy & (variance > 0.6 * level) & (variance < 2.5 * level))[ring]


def _noise_per_coefficient(
    volume: np.ndarray,
    mask: np.ndarray,
    centre: np.ndarray,
    plan: AlignmentPlan,
    noise_power: np.ndarray | None,
) -> np.ndarray:
    """Return the noise power per coefficient expected inside the particle mask, on the shells of the working box.

    Given noise powers count where they are finite; elsewhere the map outside the particle tells, where it is
    not blank.
    """
    box = plan.box
    counts = shell_counts(box)
    mask_energy = float((mask.astype(np.float64) ** 2).sum())
    values = np.asarray(volume, dtype=np.float64)
    solvent = _solvent(values, centre, plan)
    if solvent.sum() > 0.02 * box**3:
        spectrum = centred_spectrum(np.where(solvent, values - values[solvent].mean(), 0.0))
        estimate = (
            shell_sums(spectrum.real**2 + spectrum.imag**2, box) / counts * (mask_energy / solvent.sum())
        )
    else:
        # white noise no stronger than the faintest of the fine shells is compatible with the map
        power = shell_power(values) / counts
        estimate = np.full(plan.n_shells, power[int(0.6 * plan.n_shells) :].min())
    if noise_power is not None:
        given = np.asarray(noise_power, dtype=np.float64)
        if given.shape != (plan.n_shells,):
            raise InputError(
                f"noise_power has the shape {given.shape}, but the plan has {plan.n_shells} shells; "
                "give one value a shell"
            )
        scaled = given / counts * (mask_energy / max(float((values != values[0, 0, 0]).sum()), 1.0))
        estimate = np.where(np.isfinite(scaled) & (scaled >= 0), scaled, estimate)
    return estimate


def _reliability(power: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the signal's part of the power per shell; faint shells count as noise when nothing else is known."""
    top = float(power[1:].max()) if len(power) > 1 else 1.0
    floor = 1e-5 * max(top, 1e-300)
    signal = np.clip(power - noise, 0.0, None)
    smooth = signal.copy()
    smooth[1:-1] = 0.25 * signal[:-2] + 0.5 * signal[1:-1] + 0.25 * signal[2:]
    smooth = np.minimum(smooth, np.maximum(power, 0.0))
    ratio = smooth / (np.maximum(power, 1e-300) + floor)
    ratio[0] = 0.0
    return np.clip(ratio, 0.0, 1.0)


def _sphere_values(particle: np.ndarray, shells: np.ndarray, degree: int) -> np.ndarray:
    """Return the spectrum, complex (shells, p), on spheres of given radii (cycles per particle box)."""
    size = particle.shape[0]
    points, _ = sphere_grid(degree)
    angle = (2.0 * np.pi / size) * shells[:, None, None] * points[None]
    x, y, z = (np.ascontiguousarray(angle[..., axis].ravel()) for axis in range(3))
    # finufft counts modes from -size // 2, as the origin voxel size // 2 asks for
    modes = np.ascontiguousarray(particle.astype(np.complex128))
    values = finufft.nufft3d2(z, y, x, modes, isign=-1, eps=1e-6, nthreads=1)
    return values.reshape(len(shells), -1)


def prepare_map(
    volume: np.ndarray, plan: AlignmentPlan, *, noise_power: np.ndarray | None = None, to_search: bool = True
) -> PreparedMap:
    """Make a working map ready for alignment.

    Parameters
    ----------
    volume : numpy.ndarray
        real (n, n, n), the working map, masked as it will be compared.
    plan : AlignmentPlan
    noise_power : numpy.ndarray, optional
        float (n // 2 + 1,), noise power summed over each shell of the working map; NaN where not known.
    to_search : bool
        False leaves out what only the search over all rotations needs, half of the time: ``coarse_bank`` and
        ``amplitudes`` are empty then, and the map is for `refine_pair` and `measure_pair` alone.

    Returns
    -------
    PreparedMap

    Raises
    ------
    InputError
        when the map does not fit the plan, is not finite or is constant.
    """
    if volume.shape != (plan.box,) * 3:
        raise InputError(
            f"a map of shape {volume.shape} was given to an alignment planned for a box of {plan.box}"
        )
    volume = np.asarray(volume, dtype=np.float32)
    if not np.isfinite(volume).all():
        raise InputError("a map to be aligned has values that are not finite; mend or leave out that map")
    if float(volume.max()) == float(volume.min()):
        raise InputError("a map to be aligned is constant; leave out that map")
    box, size, finest = plan.box, plan.particle_box, plan.finest_shell
    # Zero-padded, a map whose solvent is not at zero is a cube of that density, which its spectrum between the nodes shows.
    volume = volume - solvent_level(volume)
    whole = centred_spectrum(volume.astype(np.float64))
    kx, ky, kz = shell_coefficients(box)[0].astype(np.int64)
    spectrum = whole[kz % box, ky % box, kx].astype(np.complex64)
    padded = shortened(sampled_spectrum(volume, spacing=1.0 / (PADDING * box), reach=_padded_reach(plan)))
    whole_power = shell_sums(whole.real**2 + whole.imag**2, box)

    limit = 0.5 * box - 0.35 * plan.particle_radius_voxels
    centre = np.rint(np.clip(estimate_extent(volume).centre_voxels, -limit, limit))
    particle, mask = cut_particle(volume, centre, plan)
    cube = sampled_spectrum(particle, spacing=1.0 / (OVERSAMPLING * size), reach=_cube_reach(plan))
    coefficients, curvature, power = particle_derivatives(particle, plan)
    noise = _noise_per_coefficient(volume, mask, centre, plan, noise_power)
    noise_here = np.interp(np.arange(finest + 1) * (box / size), np.arange(plan.n_shells), noise)
    reliability = _reliability(power, noise_here)

    coarse_bank, amplitudes = np.zeros((0, 0, 0), np.complex64), np.zeros((0, 0), np.complex64)
    if to_search:
        coarse_bank, amplitudes = _search_fields(particle, plan)
    return PreparedMap(
        spectrum,
        padded,
        whole_power,
        centre,
        cube,
        coefficients,
        curvature,
        power,
        reliability,
        coarse_bank,
        amplitudes,
    )


def _search_fields(particle: np.ndarray, plan: AlignmentPlan) -> tuple[np.ndarray, np.ndarray]:
    """Return ``coarse_bank`` and ``amplitudes`` of a `PreparedMap`."""
    size = plan.particle_box
    coarse_shells = np.arange(1, plan.coarse_shells + 1, dtype=np.float64)
    values = _sphere_values(particle, coarse_shells, plan.coarse_degree)
    points, _ = sphere_grid(plan.coarse_degree)
    shifts = shift_bank(plan.bank_spacing, plan.bank_radius)
    # a moving map shifted by t against the fixed one is a fixed one shifted by -t
    angle = (2.0 * np.pi / size) * np.einsum("s,pa,ba->spb", coarse_shells, points, shifts)
    shifted = values[:, :, None] * np.exp(1j * angle)
    hartley = shifted.real + shifted.imag
    coarse_bank = np.einsum("cp,spb->csb", analysis_matrix(plan.coarse_degree), hartley, optimize=True)

    half_shells = 1.5 + 0.5 * np.arange(plan.amplitude_shells)
    magnitude = np.abs(_sphere_values(particle, half_shells, plan.amplitude_degree))
    amplitudes = analysis_matrix(plan.amplitude_degree) @ magnitude.T
    return (
        np.ascontiguousarray(coarse_bank.astype(np.complex64)),
        np.ascontiguousarray(amplitudes.astype(np.complex64)),
    )


def particle_derivatives(particle: np.ndarray, plan: AlignmentPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return coefficients with rotational derivatives, curvature per shell and power per shell.

    The arrays are those of `PreparedMap`; the gradient in frequency is the transform of the map times -2 pi i
    x.
    """
    size = plan.particle_box
    frequency, shells, _ = particle_coefficients(plan.finest_shell)
    kx, ky, kz = frequency.astype(np.int64)
    index = (kz % size, ky % size, kx)

    def pick(values: np.ndarray) -> np.ndarray:
        return centred_spectrum(values)[index]

    double = particle.astype(np.float64)
    axis = np.arange(size) - size // 2
    value = pick(double)
    factor = -2j * np.pi / size
    gradient = np.stack(
        [
            factor * pick(double * axis[None, None, :]),
            factor * pick(double * axis[None, :, None]),
            factor * pick(double * axis[:, None, None]),
        ]
    )
    turn = np.cross(frequency.T.astype(np.float64), gradient.T).T  # k x grad F, (3, c)
    unit = 2j * np.pi / size
    tangent = np.concatenate([turn, unit * frequency * value])  # (6, c)
    curvature = np.zeros((plan.finest_shell + 1, 6, 6))
    power = np.zeros(plan.finest_shell + 1)
    power[0] = float(double.sum()) ** 2
    for shell in range(1, plan.finest_shell + 1):
        here = shells == shell
        curvature[shell] = (tangent[:, here].conj() @ tangent[:, here].T).real
        power[shell] = float(np.mean(np.abs(value[here]) ** 2))
    coefficients = np.empty((8, frequency.shape[1]), dtype=np.float32)
    for row, array in enumerate((value, *turn)):
        coefficients[2 * row] = array.real
        coefficients[2 * row + 1] = array.imag
    return coefficients, curvature, power
