import numpy as np
from scipy.spatial.transform import Rotation

from regroup_dask.steps.pair_table import collect_pairs

SHELLS = 5


def tile(pairs, seed):
    random = np.random.default_rng(seed)
    n = len(pairs)
    scalars = ("correlation", "correlation_other_hand", "confidence", "hand_lead")
    shells = ("cross_power", "power_fixed", "power_moving")
    return {
        "pairs": np.array(pairs),
        "rotation": Rotation.random(n, random_state=seed).as_matrix(),
        "shift_angstrom": random.normal(size=(n, 3)),
        "mirrored": random.random(n) < 0.5,
        **{name: random.random(n) for name in scalars},
        **{name: random.random((n, SHELLS)) for name in shells},
    }


def test_both_triangles_hold_poses_that_undo_each_other():
    results = [tile([(0, 1), (0, 2)], 1), tile([(1, 2), (0, 3)], 2), tile([(1, 3), (2, 3)], 3)]
    table = collect_pairs(4, results)
    points = np.random.default_rng(0).normal(size=(20, 3))
    for i in range(4):
        for j in range(4):
            there = points * (-1 if table.mirrored[i, j] else 1) @ table.rotation[i, j].T + table.shift_angstrom[i, j]
            back = there * (-1 if table.mirrored[j, i] else 1) @ table.rotation[j, i].T + table.shift_angstrom[j, i]
            np.testing.assert_allclose(back, points, atol=1e-12)
    np.testing.assert_array_equal(table.correlation, table.correlation.T)
    np.testing.assert_array_equal(np.diag(table.correlation), 1)
    np.testing.assert_array_equal(table.power_fixed, np.swapaxes(table.power_moving, 0, 1))
    np.testing.assert_array_equal(table.rotation[1, 2], results[1]["rotation"][0])
    np.testing.assert_array_equal(table.cross_power[3, 1], results[2]["cross_power"][0])


def test_the_order_of_tiles_does_not_matter():
    results = [tile([(0, 1)], 1), tile([(0, 2)], 2), tile([(1, 2)], 3)]
    for one, other in zip(collect_pairs(3, results), collect_pairs(3, results[::-1]), strict=True):
        np.testing.assert_array_equal(one, other)
