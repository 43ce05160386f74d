from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tunelab.data.scene_settings import FILLS, SOILS, SyntheticSettings
from tunelab.data.scenes import LABEL_MARGIN, scenes
from tunelab.data.soils import stones_in
from tunelab.data.synthetic import EMBEDDED
from tunelab.data.waves import reflection
from tunelab.errors import UsageError

MANY = SyntheticSettings(scans=600, traces=24, samples=60, shortest=0.6, seed=1)
CLEAN = replace(MANY, scans=40, noise_db=200.0, jitter=0, gain_drift=0, wow=0, lost=0)
SLOW = {"frequency": (400e6, 400e6)}


def only(soil: str) -> tuple[float, ...]:
    return tuple(float(name == soil) for name in SOILS)


@pytest.fixture(scope="module")
def many():
    return list(scenes(MANY))


def test_soils_and_objects_come_as_often_as_they_should(many):
    for soil, chance in zip(SOILS, MANY.soils, strict=True):
        assert np.mean([s.soil == soil for s in many]) == pytest.approx(chance, abs=0.05)
    for count, chance in enumerate(MANY.objects):
        assert np.mean([len(s.objects) == count for s in many]) == pytest.approx(chance, abs=0.05)
    kinds = [o.kind for s in many for o in s.objects]
    for kind in FILLS:
        assert kinds.count(kind) / len(kinds) == pytest.approx(MANY.kinds.count(kind) / len(MANY.kinds), abs=0.05)


def test_the_embedded_set_has_its_soils_in_gprmax_s_proportions():
    drawn = [s.soil for s in scenes(EMBEDDED)]
    for soil, count in zip(SOILS, (30, 18, 15, 13, 8), strict=True):
        assert drawn.count(soil) / 200 == pytest.approx(count / 84, abs=0.02)


@pytest.mark.parametrize("soil", SOILS)
def test_a_soil_has_what_makes_it_that_and_nothing_else(soil):
    for scene in scenes(replace(MANY, scans=20, soils=only(soil))):
        assert scene.soil == soil
        assert (scene.under.layer is not None) == (soil == "two_layers")
        assert (scene.under.variation is not None) == (soil == "heterogeneous")
        assert bool(scene.under.gap.any()) == (soil == "rough") == bool(scene.under.surface.any())
        assert (scene.under.gap >= 0).all()
        assert np.isfinite(scene.traces).all()


@pytest.mark.parametrize("soil", SOILS)
def test_labels_are_about_objects_alone(soil):
    for scene in scenes(replace(MANY, scans=30, soils=only(soil))):
        expected = [any(abs(x - o.x) <= o.radius + LABEL_MARGIN for o in scene.objects) for x in scene.x]
        np.testing.assert_array_equal(scene.labels, expected)


@pytest.mark.parametrize("soil", SOILS)
def test_a_scan_depends_on_settings_seed_and_number_alone(soil):
    settings = replace(MANY, scans=9, soils=only(soil))
    few, more = list(scenes(settings)), list(scenes(replace(settings, scans=12)))
    for one, two in zip(few, more, strict=False):
        np.testing.assert_array_equal(one.traces, two.traces)
        np.testing.assert_array_equal(one.labels, two.labels)
    other = next(scenes(replace(settings, seed=2)))
    assert not np.array_equal(other.x, few[0].x)


def test_frequencies_gather_where_gprmax_s_set_has_them(many):
    frequencies = np.array([s.frequency for s in many])
    assert frequencies.min() < 402e6
    assert frequencies.max() > 800e6
    assert np.quantile(frequencies, 0.75) == pytest.approx(558e6, abs=25e6)


def test_two_objects_are_apart_and_may_lie_beyond_the_ends(many):
    pairs = [(s, *s.objects) for s in many if len(s.objects) == 2]
    for scene, one, two in pairs:
        room = scene.x[-1] - scene.x[0] + 2 * MANY.beyond
        assert two.x - one.x >= min(MANY.apart, room) - 1e-9
    assert min(two.x - one.x for _, one, two in pairs) < MANY.apart + 0.05  # close enough for hyperbolas to cross
    beyond = [max(s.x[0] - o.x, o.x - s.x[-1]) for s in many for o in s.objects]
    assert 0 < max(beyond) <= MANY.beyond


def test_deep_and_weak_objects_are_labelled_though_hardly_visible():
    settings = replace(CLEAN, objects=(0.0, 1.0, 0.0), soils=only("homogeneous"), window=24e-9, samples=100, beyond=0)
    loud = replace(settings, kinds=("metal",), cover=(0.1, 0.1), sigma=(0.001, 0.001))
    faint = replace(settings, kinds=("concrete",), cover=(0.75, 0.8), sigma=(0.02, 0.02), eps=(7.5, 8.0))

    def target(some):
        late = [s.traces[:, 40:] - s.traces[:, 40:].mean(0) for s in scenes(some)]
        return np.median([np.abs(part).max() for part in late])

    assert all(s.labels.any() for s in scenes(faint))
    assert 20 * np.log10(target(loud) / target(faint)) > 30


def test_stones_reach_5_to_50_percent_of_a_target_and_lie_near_it_but_not_in_it():
    x, target = np.linspace(0, 1.5, 48), (0.7, 0.4, 0.05)
    settings = replace(MANY, stones=400.0)
    stones = stones_in(settings, x, [target], np.random.default_rng(0))
    assert len(stones.x) > 300
    from_axis = np.hypot(stones.x - target[0], stones.cover + stones.radius - target[1])
    assert (from_axis > stones.radius + target[2]).all()
    assert np.mean(np.abs(stones.x - target[0]) < 0.25) > 1.2 * 0.5 / 1.9  # more than if spread evenly
    # at the same depth, against metal of 5 cm: contrast and the root of the radii
    share = np.abs([reflection(7.0, eps) for eps in stones.eps]) * np.sqrt(stones.radius / 0.05)
    assert 0.05 < np.quantile(share, 0.75) < 0.5
    assert np.quantile(share, 0.99) < 0.5
    assert np.mean(share > 0.05) > 0.4


def test_rough_ground_moves_the_direct_wave_and_flat_ground_does_not():
    def unrest(soil):
        empty = replace(CLEAN, objects=(1.0, 0.0, 0.0), soils=only(soil), diffractors=0, stones=0, relief=0, **SLOW)
        return [float(s.traces.std(0).max() / np.abs(s.traces).max()) for s in scenes(empty)]

    assert max(unrest("homogeneous")) < 1e-6
    assert max(unrest("two_layers")) < 1e-6
    assert min(unrest("rough")) > 0.01
    assert min(unrest("heterogeneous")) > 0.005


def test_diffractors_and_stones_are_clutter_that_can_be_left_out():
    def residual(soil, **changes):
        empty = replace(CLEAN, objects=(1.0, 0.0, 0.0), soils=only(soil), **SLOW)
        late = [s.traces[:, 28:] for s in scenes(replace(empty, **changes))]
        return np.median([np.abs(part - part.mean(0)).max() for part in late])

    assert residual("stones") > 1e3 * residual("stones", stones=0)
    assert residual("heterogeneous") > 100 * residual("heterogeneous", diffractors=0)


def test_lost_traces_hold_noise_alone_or_repeat_the_one_before():
    settings = replace(MANY, scans=20, lost=0.2, noise_db=30.0, wow=0.0)
    repeated = dead = traces = 0
    for scene in scenes(settings):
        same = [np.array_equal(one, two) for one, two in zip(scene.traces, scene.traces[1:], strict=False)]
        peak = np.abs(scene.traces).max(1)
        repeated, dead, traces = repeated + sum(same), dead + int((peak < peak.max() / 10).sum()), traces + len(peak)
        assert (scene.traces.std(1) > 0).all()  # none is silent
    assert repeated / traces == pytest.approx(0.1, abs=0.05)
    assert dead / traces == pytest.approx(0.1, abs=0.06)
    whole = list(scenes(replace(settings, lost=0.0)))
    assert not any(np.array_equal(a, b) for s in whole for a, b in zip(s.traces, s.traces[1:], strict=False))


def test_one_trace_is_a_scan_in_every_soil():
    for soil in SOILS:
        for scene in scenes(replace(MANY, scans=5, traces=1, soils=only(soil), objects=(0.0, 0.0, 1.0))):
            assert scene.traces.shape == (1, 60)
            assert np.isfinite(scene.traces).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"soils": (0.5, 0.5)}, r"soils = \(0.5, 0.5\): five chances that add up to 1, not 2 of them"),
        ({"soils": (0.5, 0.5, 0.5, 0.0, 0.0)}, "five chances that add up to 1, not 1.5"),
        ({"soils": (1.5, -0.5, 0.0, 0.0, 0.0)}, "five chances that add up to 1"),
        ({"objects": (1.0, 0.0)}, "three chances that add up to 1, not 2 of them"),
        ({"line": (0.0, 2.0)}, r"line = \(0.0, 2.0\): two positive numbers, the lower one first"),
        ({"stone_eps": (9.0, 4.0)}, r"stone_eps = \(9.0, 4.0\): two positive numbers"),
        ({"roughness": (-0.1, 0.1)}, r"roughness = \(-0.1, 0.1\)"),
        ({"variation": (0.1, 0.5)}, r"variation = \(0.1, 0.5\): up to 0.2, beyond which rays bend"),
        ({"interface": (0.2, float("inf"))}, "interface = "),
        ({"diffractors": -1.0}, "diffractors = -1.0: a number from 0 up"),
        ({"apart": float("nan")}, "apart = nan: a number from 0 up"),
        ({"beyond": -0.1}, "beyond = -0.1: a number from 0 up"),
        ({"noise_reach": 0}, "noise_reach = 0: at least 1"),
        ({"lost": 2.0}, "lost = 2.0: a chance from 0 to 1"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(MANY, **changes)
