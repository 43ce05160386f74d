from __future__ import annotations

import numpy as np
import pytest

from tunelab.data import waves
from tunelab.data.underground import Layer, Underground, Variation, level, refraction

GROUND = waves.Ground(eps=9.0, sigma=0.0, offset=0.0, pattern=0.0)
X = np.linspace(-1.0, 1.0, 41)
FLAT = np.zeros(X.size)
ONE = (np.array([0.0]), np.array([0.5]), np.array([0.05]))
"""A cylinder below the middle trace: position, depth of its axis, radius."""


def under(**changes) -> Underground:
    return Underground(**({"x": X, "ground": GROUND, "surface": FLAT, "gap": FLAT} | changes))


def layered(eps: float = 4.0, depth: float = 0.2, **changes) -> Underground:
    return under(layer=Layer(depth=np.full(X.size, depth), eps=eps, sigma=0.0), **changes)


def test_a_uniform_soil_is_that_of_waves():
    ground = waves.Ground(eps=6.0, sigma=0.01, offset=0.12)
    for ours, closed in zip(level(X, ground).cylinders(*ONE), waves.cylinder(X, *ONE, ground), strict=True):
        np.testing.assert_allclose(ours, closed, rtol=1e-12)


def test_the_bounce_moves_by_twice_the_height_over_c():
    gap = np.full(X.size, 0.03)
    gap[7] += 0.01
    times = under(gap=gap).bounce()
    assert times[0] == pytest.approx(2 * 0.03 / waves.LIGHT)
    assert times[7] - times[0] == pytest.approx(2 * 0.01 / waves.LIGHT)
    apart = under(gap=gap, ground=waves.Ground(eps=9.0, sigma=0.0, offset=0.08))
    assert apart.bounce()[0] == pytest.approx(2 * 0.05 / waves.LIGHT)  # 3, 4, 5


def test_rough_ground_delays_what_lies_below_by_soil_in_place_of_air():
    surface = np.zeros(X.size)
    surface[20] = 0.02
    rough = under(surface=surface, gap=0.03 - surface)
    flat = under(gap=np.full(X.size, 0.03))
    (times, _), (before, _) = rough.cylinders(*ONE), flat.cylinders(*ONE)
    moved = times - before
    assert moved[0, 20] == pytest.approx(2 * 0.02 * (1 / waves.speed(9) - 1 / waves.LIGHT))
    assert np.abs(np.delete(moved[0], 20)).max() == 0
    bounce = rough.bounce() - flat.bounce()
    assert bounce[20] == pytest.approx(-2 * 0.02 / waves.LIGHT)
    assert before[0, 20] == pytest.approx(2 * 0.45 / waves.speed(9) + 2 * 0.03 / waves.LIGHT)


@pytest.mark.parametrize("eps", [4.0, 9.0, 15.0])
def test_an_interface_changes_the_delay_below_it_and_not_above(eps):
    ground = layered(eps)
    times, _ = ground.cylinders(*ONE)
    assert times[0, 20] == pytest.approx(2 * (0.2 / waves.speed(9) + 0.25 / waves.speed(eps)), rel=1e-6)
    shallow = np.array([0.0]), np.array([0.15]), np.array([0.05])
    for ours, closed in zip(ground.cylinders(*shallow), under().cylinders(*shallow), strict=True):
        np.testing.assert_array_equal(ours, closed)
    down, loss = ground.overhead(np.zeros(2), np.array([0.1, 0.45]))
    np.testing.assert_allclose(down, [0.1 / waves.speed(9), 0.2 / waves.speed(9) + 0.25 / waves.speed(eps)])
    np.testing.assert_array_equal(loss, 0)


def test_equal_layers_are_one_soil():
    for ours, closed in zip(layered(9.0).cylinders(*ONE), under().cylinders(*ONE), strict=True):
        np.testing.assert_allclose(ours, closed, rtol=1e-6)


def test_rays_bend_by_snell_s_law_and_take_the_shortest_time():
    across, z1, z2 = np.array([0.0, 0.3, 1.0, 5.0]), np.full(4, 0.2), np.full(4, 0.4)
    near = refraction(across, z1, z2, 9.0, 4.0)
    sines = near / np.hypot(z1, near), (across - near) / np.hypot(z2, across - near)
    np.testing.assert_allclose(3 * sines[0], 2 * sines[1], atol=1e-9)
    every = np.linspace(0, 1, 10_001)[:, None] * across
    time = 3 * np.hypot(z1, every) + 2 * np.hypot(z2, across - every)
    np.testing.assert_allclose(3 * np.hypot(z1, near) + 2 * np.hypot(z2, across - near), time.min(0), rtol=1e-6)


def test_the_interface_reflects_and_lets_through_what_is_left():
    ground = layered(4.0)
    times, amplitudes = ground.interface()
    np.testing.assert_allclose(times, 2 * 0.2 / waves.speed(9))
    np.testing.assert_allclose(amplitudes, 0.2 / np.sqrt(0.4))  # (3 - 2) / (3 + 2)
    _, through = ground.cylinders(*ONE)
    _, alone = layered(9.0).cylinders(*ONE)
    assert through[0, 20] == pytest.approx((1 - 0.2**2) * alone[0, 20], rel=1e-6)
    absorbing = under(layer=Layer(depth=np.full(X.size, 0.2), eps=4.0, sigma=0.01))
    _, weak = absorbing.cylinders(*ONE)
    below = waves.Ground(eps=4.0, sigma=0.01, offset=0.0).absorption
    assert weak[0, 20] / through[0, 20] == pytest.approx(np.exp(-2 * 0.25 * below), rel=1e-6)
    assert [part.shape for part in under().interface()] == [(0, X.size)] * 2


def test_an_undulating_interface_is_seen_where_it_is():
    depth = 0.3 + 0.05 * np.sin(3 * X)
    times, _ = under(layer=Layer(depth=depth, eps=4.0, sigma=0.0)).interface()
    np.testing.assert_allclose(times[0], 2 * depth / waves.speed(9))


def test_slowness_along_a_ray_is_its_mean_there():
    variation = Variation(
        across=np.array([4.0, -9.0, 0.0]),
        down=np.array([7.0, 2.0, 0.0]),
        phase=np.array([0.3, 1.0, 0.0]),
        amplitude=np.array([0.02, 0.03, 0.01]),
    )
    ends = np.array([0.1]), np.array([0.0]), np.array([0.7]), np.array([0.5])
    share = (np.arange(100_000) + 0.5) / 100_000
    points = variation.at(ends[0] + share * 0.6, share * 0.5)
    assert variation.along(*ends)[0] == pytest.approx(points.mean(), abs=1e-9)
    times, _ = under(variation=variation).cylinders(*ONE)
    straight, _ = under().cylinders(*ONE)
    here = variation.along(np.zeros(1), np.zeros(1), np.zeros(1), np.full(1, 0.5))
    assert times[0, 20] == pytest.approx(straight[0, 20] * (1 + here[0]))
    even = Variation(across=np.zeros(1), down=np.zeros(1), phase=np.zeros(1), amplitude=np.full(1, 0.1))
    np.testing.assert_allclose(under(variation=even).cylinders(*ONE)[0], 1.1 * straight)


def test_what_is_given_stays_as_it_was():
    given = [array.copy() for array in ONE]
    depth = np.full(X.size, 0.2)
    under(layer=Layer(depth=depth, eps=4.0, sigma=0.01)).cylinders(*given)
    for array, before in zip(given, ONE, strict=True):
        np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(depth, 0.2)
