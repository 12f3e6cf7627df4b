"""Projections in the box: scipy's, closed forms, and the edges."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from attacks.box_projection import l2_projection, linf_projection

SIGNATURE = [
    tf.TensorSpec([None, None], tf.float32),
    tf.TensorSpec([None, None], tf.float32),
    tf.TensorSpec([None], tf.float32),
]
PROJECTIONS = {
    "linf": tf.function(linf_projection, input_signature=SIGNATURE),
    "l2": tf.function(l2_projection, input_signature=SIGNATURE),
}
ORDERS = {"linf": np.inf, "l2": 2}
each_norm = pytest.mark.parametrize("norm", PROJECTIONS)


def project(norm, points, normals, excesses):
    """float64 of what the compiled function makes of float32."""
    arrays = [np.asarray(x, np.float32) for x in (points, normals, excesses)]
    return PROJECTIONS[norm](*arrays).numpy().astype(np.float64)


def random_cases(count=40, values=12):
    """Points, some of them at bounds, and hyperplanes that meet the box."""
    generator = np.random.default_rng(5)
    points = generator.random((count, values))
    points[generator.random(points.shape) < 0.25] = 0.0
    points[generator.random(points.shape) < 0.15] = 1.0
    normals = generator.normal(size=points.shape)
    normals[generator.random(points.shape) < 0.1] = 0.0
    normals *= np.exp(generator.normal(size=(count, 1)))
    # Through a point of the box, near a corner for many values to be full.
    through = generator.random(points.shape) ** 0.2
    points, normals, through = (
        x.astype(np.float32).astype(np.float64)
        for x in (points, normals, np.where(normals > 0, through, 1 - through))
    )
    excesses = (normals * (points - through)).sum(-1)
    return points, normals, excesses


def least_linf(point, normal, excess):
    """min r with |d| <= r, normal . d = -excess, point + d in the box."""
    size = len(point)
    ones = np.ones((size, 1))
    found = scipy.optimize.linprog(
        np.append(np.zeros(size), 1.0),
        A_ub=np.block([[np.eye(size), -ones], [-np.eye(size), -ones]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.append(normal, 0.0)[None],
        b_eq=[-excess],
        bounds=[*zip(-point, 1.0 - point, strict=True), (0.0, None)],
    )
    assert found.success
    return found.fun


def least_l2(point, normal, excess):
    """The change from the dual problem, which has one unknown."""

    def change(m):
        return np.clip(point - m * normal, 0.0, 1.0) - point

    m = scipy.optimize.brentq(
        lambda m: normal @ change(m) + excess, -1e4, 1e4, xtol=1e-13
    )
    return change(m)


def test_no_change_in_linf_is_smaller():
    cases = random_cases()
    changes = project("linf", *cases)
    least = [least_linf(*case) for case in zip(*cases, strict=True)]
    np.testing.assert_allclose(np.abs(changes).max(-1), least, atol=2e-6)


def test_no_change_in_l2_is_smaller():
    cases = random_cases()
    changes = project("l2", *cases)
    least = [least_l2(*case) for case in zip(*cases, strict=True)]
    np.testing.assert_allclose(changes, least, atol=2e-6)


def test_a_quadratic_program_agrees_in_l2():
    points, normals, excesses = (x[:6] for x in random_cases())
    changes = project("l2", points, normals, excesses)
    for i in range(6):
        found = scipy.optimize.minimize(
            lambda d: d @ d,
            np.zeros(12),
            jac=lambda d: 2.0 * d,
            method="SLSQP",
            bounds=list(zip(-points[i], 1.0 - points[i], strict=True)),
            constraints={
                "type": "eq",
                "fun": lambda d, i=i: normals[i] @ d + excesses[i],
                "jac": lambda d, i=i: normals[i],
            },
            options={"ftol": 1e-14},
        )
        assert found.success
        np.testing.assert_allclose(changes[i], found.x, atol=1e-5)


@each_norm
def test_the_hyperplane_is_reached_inside_the_box(norm):
    points, normals, excesses = random_cases()
    changes = project(norm, points, normals, excesses)
    reached = (normals * changes).sum(-1) + excesses
    scale = np.abs(normals).sum(-1)
    np.testing.assert_allclose(reached / scale, 0.0, atol=1e-6)
    assert (points + changes).min() >= -1e-7
    assert (points + changes).max() <= 1.0 + 1e-7


@each_norm
def test_far_from_the_bounds_it_is_the_closed_form(norm):
    generator = np.random.default_rng(6)
    normals = generator.normal(size=(5, 30))
    excesses = np.array([0.3, -0.3, 0.01, -0.01, 1e-6])
    changes = project(norm, np.full((5, 30), 0.5), normals, excesses)
    dual = 1 if norm == "linf" else 2
    np.testing.assert_allclose(
        np.linalg.norm(changes, ORDERS[norm], axis=-1),
        np.abs(excesses) / np.linalg.norm(normals, dual, axis=-1),
        rtol=1e-5,
    )


@each_norm
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_hyperplane_beyond_the_box_takes_all_to_their_bounds(norm, sign):
    points, normals, _ = random_cases()
    excesses = np.full(len(points), 1e3 * sign)
    changes = project(norm, points, normals, excesses)
    corner = np.where(sign * normals > 0, 0.0, 1.0)
    expected = np.where(normals == 0, points, corner)
    np.testing.assert_allclose(points + changes, expected, atol=1e-6)


@each_norm
def test_a_hyperplane_at_the_corner_is_still_reached(norm):
    points = np.full((1, 4), 0.25)
    # In float32 without rounding: 0.25 * (1 + 2) + 0.75 * (1 + 4).
    changes = project(norm, points, [[1.0, 2.0, -1.0, -4.0]], [4.5])
    np.testing.assert_array_equal(changes, [[-0.25, -0.25, 0.75, 0.75]])


@each_norm
@pytest.mark.parametrize("excess", [0.0, 2.0, -np.inf])
def test_without_a_normal_nothing_moves(norm, excess):
    points = np.linspace(0.0, 1.0, 6).reshape(1, 6)
    changes = project(norm, points, np.zeros((1, 6)), [excess])
    np.testing.assert_array_equal(changes, np.zeros((1, 6)))


@each_norm
def test_a_point_on_the_hyperplane_stays(norm):
    points, normals, _ = random_cases()
    changes = project(norm, points, normals, np.zeros(len(points)))
    np.testing.assert_array_equal(changes, np.zeros_like(points))


@each_norm
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_scale_of_a_normal_plays_no_part(norm, scale):
    points, normals, excesses = random_cases()
    np.testing.assert_allclose(
        project(norm, points, scale * normals, scale * excesses),
        project(norm, points, normals, excesses),
        atol=1e-5,
    )


@each_norm
def test_others_help_when_a_value_is_at_its_bound(norm):
    points = np.array([[0.25, 0.5, 0.5]])
    normals = np.array([[1.0, 2.0**-6, 0.0]])
    changes = project(norm, points, normals, [0.25 + 0.375 * 2.0**-6])
    np.testing.assert_allclose(changes, [[-0.25, -0.375, 0.0]], rtol=1e-6)


@each_norm
def test_a_point_is_projected_alone_as_among_others(norm):
    cases = random_cases()
    together = project(norm, *cases)
    alone = [project(norm, *(x[[i]] for x in cases)) for i in range(40)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


@each_norm
def test_broken_rows_end_and_leave_the_others_alone(norm):
    points, normals, excesses = random_cases(4)
    expected = project(norm, points, normals, excesses)
    normals[1, 2], excesses[2] = np.nan, np.nan
    changes = project(norm, points, normals, excesses)
    assert np.isnan(changes[2]).any()
    np.testing.assert_array_equal(changes[[0, 3]], expected[[0, 3]])


@each_norm
def test_no_points_are_no_work(norm):
    changes = project(norm, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    assert changes.shape == (0, 3)
