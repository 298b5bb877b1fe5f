"""Alignment finds the pose that made the maps, for odd and even boxes, either hand, and its numbers are Pearson's."""

import numpy as np
import pytest
from scipy.fft import irfftn, rfftn
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError
from regroup_dask.science import align
from regroup_dask.science.fourier import shell_power
from regroup_dask.science.noise import shell_index
from regroup_dask.science.pair_problem import pair_problem, refine_over
from regroup_dask.science.pair_search import search_pair
from regroup_dask.science.poses import CandidatePoses
from regroup_dask.science.rotations import rotation_angle_degrees
from tests.science.particles import blobs, random_rotation, random_shift, render

VOXEL = 3.0


def _plan(box, radius=16.0, hand="off"):
    return align.plan_alignment(
        box=box,
        voxel_size_angstrom=VOXEL,
        particle_radius_angstrom=(radius + 3) * VOXEL,
        maximum_shift_angstrom=0.25 * box * VOXEL,
        hand=hand,
    )


def _pair(seed, box, *, radius=16.0, hand="off", mirrored=False, snr=None, shift=6.0):
    rng = np.random.default_rng(seed)
    centres, masses = blobs(rng, radius=radius)
    rotation, moved = random_rotation(rng), random_shift(rng, shift)
    moving = render(centres, masses, box=box)
    fixed = render(centres, masses, box=box, rotation=rotation, shift=moved, mirrored=mirrored)
    if snr is not None:
        inside = moving > 0.02 * moving.max()
        sigma = np.sqrt(moving[inside].var() / snr)
        fixed = fixed + rng.normal(scale=sigma, size=fixed.shape).astype(np.float32)
        moving = moving + rng.normal(scale=sigma, size=moving.shape).astype(np.float32)
    plan = _plan(box, radius, hand)
    return (
        align.prepare_map(fixed, plan),
        align.prepare_map(moving, plan),
        plan,
        rotation,
        moved,
        fixed,
        moving,
    )


@pytest.mark.parametrize(
    ("seed", "box", "radius"), [(1, 64, 20.0), (2, 65, 16.0), (3, 56, 14.0), (4, 32, 9.0)]
)
def test_clean_copies_superpose(seed, box, radius):
    fixed, moving, plan, rotation, shift, *_ = _pair(seed, box, radius=radius, shift=0.1 * box)
    found = align.align_pair(fixed, moving, plan)
    assert rotation_angle_degrees(found.rotation, rotation) < (0.1 if box > 32 else 0.3)
    np.testing.assert_allclose(found.shift_angstrom / VOXEL, shift, atol=0.03)
    assert found.correlation > 0.99
    assert not found.mirrored
    assert found.confidence > 5


def test_noisy_copies_superpose():
    fixed, moving, plan, rotation, shift, *_ = _pair(5, 64, radius=20.0, snr=0.1)
    found = align.align_pair(fixed, moving, plan)
    assert rotation_angle_degrees(found.rotation, rotation) < 2.0
    assert np.linalg.norm(found.shift_angstrom / VOXEL - shift) < 0.5


@pytest.mark.parametrize("seed", [41, 46, 49])
def test_clean_copies_superpose_whatever_noise_they_were_taken_to_have(seed):
    """A particle that leaves no solvent is taken for noise: the search sees four shells, and the pose is degrees off."""
    fixed, moving, plan, rotation, *_ = _pair(seed, 64, radius=25.0, shift=2.0)
    reliability = np.where(np.arange(len(moving.reliability)) < 3, moving.reliability, 0.0)
    reliability[3] = 0.05
    found = align.align_pair(fixed, moving._replace(reliability=reliability), plan)
    assert rotation_angle_degrees(found.rotation, rotation) < 0.1


@pytest.mark.parametrize("hand", ["off", "detect"])
def test_the_search_of_faint_maps_misses_no_true_pose(hand):
    """Where noise is seven times the signal the truth need not be found, but it must not score better than what is."""
    for seed in range(23, 27):
        fixed, moving, plan, rotation, shift, *_ = _pair(seed, 64, radius=14.0, hand=hand, snr=0.02, shift=9.0)
        problem = pair_problem(fixed, moving, plan)
        truth = CandidatePoses(
            rotation[None], (shift - problem.centre_term(rotation, 1.0))[None], np.ones(1), np.zeros(1)
        )
        found, *_ = search_pair(problem)
        best = CandidatePoses(*(field[:1] for field in found))
        scores = [refine_over(problem, pose, plan.finest_shell, 12, 0.01).score[0] for pose in (best, truth)]
        assert scores[0] > scores[1] - 0.05 * problem.chance(plan.finest_shell), seed


@pytest.mark.parametrize("mirrored", [False, True])
def test_hand_is_found(mirrored):
    fixed, moving, plan, rotation, shift, *_ = _pair(6, 48, radius=13.0, hand="detect", mirrored=mirrored)
    found = align.align_pair(fixed, moving, plan)
    assert found.mirrored == mirrored
    assert rotation_angle_degrees(found.rotation, rotation) < 0.1
    np.testing.assert_allclose(found.shift_angstrom / VOXEL, shift, atol=0.03)
    assert found.correlation > found.correlation_other_hand + 0.01


def test_refine_from_a_near_pose_finds_it_again():
    fixed, moving, plan, rotation, shift, *_ = _pair(7, 48, radius=13.0)
    from scipy.spatial.transform import Rotation

    start = Rotation.from_rotvec(np.radians([5.0, -4.0, 3.0])).as_matrix() @ rotation
    found = align.refine_pair(fixed, moving, plan, rotation=start, shift_angstrom=(shift + 1.0) * VOXEL)
    assert rotation_angle_degrees(found.rotation, rotation) < 0.1


def test_a_map_that_is_not_to_be_searched_refines_the_same():
    fixed, moving, plan, rotation, shift, a, b = _pair(7, 32, radius=9.0)
    start = {"rotation": rotation, "shift_angstrom": (shift + 0.5) * VOXEL}
    quick = [align.prepare_map(volume, plan, to_search=False) for volume in (a, b)]
    expected, found = align.refine_pair(fixed, moving, plan, **start), align.refine_pair(*quick, plan, **start)
    np.testing.assert_array_equal(found.rotation, expected.rotation)
    assert found.correlation == expected.correlation


def test_measure_is_exact_at_the_identity():
    fixed, moving, plan, _, _, a, b = _pair(8, 33, radius=9.0, snr=1.0)
    found = align.measure_pair(fixed, moving, plan)
    a, b = a.astype(float) - a.mean(), b.astype(float) - b.mean()
    # shells beyond box // 2 are left out of the sums: compare with maps without them
    np.testing.assert_allclose(found.power_fixed[1:], shell_power(a)[1:], rtol=1e-4)
    np.testing.assert_allclose(found.power_moving[1:], shell_power(b)[1:], rtol=1e-4)
    same = align.measure_pair(fixed, fixed, plan)
    assert same.correlation == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(same.cross_power, same.power_fixed, rtol=1e-5)


def test_measure_with_whole_voxel_shift_is_exact():
    _, moving, plan, *_, b = _pair(9, 32, radius=8.0)
    rolled = align.prepare_map(np.roll(b, (1, -2, 3), axis=(0, 1, 2)), plan)
    found = align.measure_pair(rolled, moving, plan, shift_angstrom=np.array([3.0, -2.0, 1.0]) * VOXEL)
    assert found.correlation == pytest.approx(1.0, abs=1e-5)


def test_measure_rotated_agrees_with_the_pose_that_made_the_map():
    fixed, moving, plan, rotation, shift, *_ = _pair(10, 48, radius=13.0)
    found = align.measure_pair(fixed, moving, plan, rotation=rotation, shift_angstrom=shift * VOXEL)
    assert found.correlation == pytest.approx(1.0, abs=2e-3)
    strong = found.power_fixed > 1e-3 * found.power_fixed.max()
    np.testing.assert_allclose(found.power_moving[strong], found.power_fixed[strong], rtol=0.02)


def test_what_a_steep_filter_took_away_does_not_come_back_by_turning():
    """The power of noise that a filter took away is not that of its neighbour shells, whichever way the map is turned."""
    box = 32
    plan = _plan(box, radius=10.0)
    rng = np.random.default_rng(2)
    shells = np.minimum(shell_index(box), box // 2)
    noise = rfftn(rng.normal(size=(box,) * 3)) / np.sqrt(1 + (shells / 6.0) ** 8)
    prepared = align.prepare_map(irfftn(noise, (box,) * 3).astype(np.float32), plan)
    for seed in range(3):
        turned = Rotation.random(random_state=seed).as_matrix()
        found = align.measure_pair(prepared, prepared, plan, rotation=turned)
        beyond = found.power_moving[9:] / found.power_fixed[9:]
        assert beyond.max() < 1.2
        np.testing.assert_allclose(found.power_moving[3:7], found.power_fixed[3:7], rtol=0.35)


def test_a_long_rod_turned_exactly_never_correlates_beyond_one():
    """Turning a rod moves its power between shells; the power of each is that of the turned map, as the fixed map has it."""
    rng = np.random.default_rng(1)
    rod = np.c_[rng.normal(size=(80, 2)) * 1.5, rng.uniform(-26, 26, 80)]
    plan = _plan(64, radius=26.0)
    moving = align.prepare_map(render(rod, np.ones(80), box=64), plan)
    for seed in range(3):
        rotation = random_rotation(np.random.default_rng(seed))
        fixed = align.prepare_map(render(rod, np.ones(80), box=64, rotation=rotation), plan)
        found = align.measure_pair(fixed, moving, plan, rotation=rotation)
        assert 0.99 < found.correlation <= 1.0
        shells = slice(1, 20)
        assert (found.cross_power[shells] / np.sqrt(found.power_fixed[shells] * found.power_moving[shells])).max() < 1.002


def test_a_background_changes_nothing_when_a_map_is_turned():
    fixed, moving, plan, rotation, shift, *_ = _pair(10, 48, radius=13.0)
    rng = np.random.default_rng(10)
    centres, masses = blobs(rng, radius=13.0)
    raised = align.prepare_map(render(centres, masses, box=48) + 500.0, plan)
    pose = {"rotation": rotation, "shift_angstrom": shift * VOXEL}
    assert align.measure_pair(fixed, raised, plan, **pose).correlation == pytest.approx(
        align.measure_pair(fixed, moving, plan, **pose).correlation, abs=2e-3
    )


def test_no_shift_is_longer_than_the_limit():
    """Particles whose centres lie further apart than maps may be shifted are brought as near as allowed."""
    rng = np.random.default_rng(13)
    centres, masses = blobs(rng, radius=9.0)
    moving = render(centres + np.array([7.0, 0.0, 0.0]), masses, box=48)
    fixed = render(centres - np.array([7.0, 0.0, 0.0]), masses, box=48)
    plan = align.plan_alignment(
        box=48, voxel_size_angstrom=VOXEL, particle_radius_angstrom=36.0, maximum_shift_angstrom=9.0, hand="detect"
    )
    found = align.align_pair(align.prepare_map(fixed, plan), align.prepare_map(moving, plan), plan)
    assert np.linalg.norm(found.shift_angstrom) < 9.0 + 1.01 * VOXEL


def test_same_inputs_give_the_same_bytes():
    fixed, moving, plan, *_ = _pair(11, 32, radius=8.0, snr=0.5)
    first, second = align.align_pair(fixed, moving, plan), align.align_pair(fixed, moving, plan)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("box", [32, 33, 64])
def test_prepared_shapes_are_those_of_prepared_maps(box):
    plan = _plan(box, radius=0.3 * box, hand="detect")
    prepared = align.prepare_map(render(*blobs(np.random.default_rng(12)), box=box), plan)
    shapes = align.prepared_shapes(plan)
    assert tuple(shapes) == prepared._fields
    for name, (shape, dtype) in shapes.items():
        assert getattr(prepared, name).shape == shape, name
        assert getattr(prepared, name).dtype == dtype, name


def test_bad_maps_are_refused():
    plan = _plan(32, 8.0)
    with pytest.raises(InputError, match="constant"):
        align.prepare_map(np.ones((32, 32, 32), np.float32), plan)
    with pytest.raises(InputError, match="shape"):
        align.prepare_map(np.ones((31, 32, 32), np.float32), plan)
    with pytest.raises(InputError, match="finite"):
        align.prepare_map(np.full((32, 32, 32), np.nan, np.float32), plan)
    with pytest.raises(InputError, match="too small"):
        align.plan_alignment(box=8, voxel_size_angstrom=1.0, maximum_shift_angstrom=1.0, hand="off")
