"""Intervals, McNemar and AUP against values worked out elsewhere."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmdecode.evals.statistics import Paired, aup, interval, paired


def wilson(correct, total):
    """The textbook formula, z = 1.959964 for 95 %."""
    z, share = 1.959963984540054, correct / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return middle - reach / (1 + z * z / total), middle + reach / (1 + z * z / total)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(case):
    assert interval(*case) == pytest.approx(wilson(*case), abs=1e-12)


def exact_mcnemar(gained, lost):
    """Twice the smaller binomial tail, by counting."""
    total = gained + lost
    tail = sum(math.comb(total, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**total)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_two_sided_test(gained, lost):
    expected = exact_mcnemar(gained, lost)
    assert Paired(gained, lost, 200).p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(  # statsmodels 0.14: mcnemar([[_, lost], [gained, _]], exact=True)
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (3, 12, 0.03515625), (10, 10, 1.0)],
)
def test_known_p_values(gained, lost, p):
    assert Paired(gained, lost, 100).p == pytest.approx(p)


def test_only_problems_that_one_got_right_count():
    pair = paired([True, True, False, False, True], [True, False, True, False, False])
    assert (pair.gained, pair.lost, pair.total) == (1, 2, 5)
    assert pair.difference == pytest.approx(-20)
    with pytest.raises(ValueError):
        paired([True], [True, False])
    with pytest.raises(ValueError, match="nothing to compare"):
        paired([], [])


# the published table: y_max is not printed there; 74.98 is the one value that gives both scores
@pytest.mark.parametrize(
    ("points", "best", "value"),
    [
        ([(1, 72.55)], 74.98, 72.55),
        ([(1, 74.79), (2.77, 74.68)], 74.98, 205.8),
        ([(1, 74.02), (9.11, 73.09)], 74.98, 637.7),
    ],
)
def test_published_aup_values_are_reproduced(points, best, value):
    assert aup(points, best).value == pytest.approx(value, abs=0.05)


def test_aup_of_two_points_by_hand():
    weight = math.exp(-3 * (1 - 76 / 80))
    area = aup([(3, 76), (1, 80)], best=80)
    assert area.value == pytest.approx(1 * 80 + 2 * (80 + 76 * weight) / 2)
    assert area.points == ((1, 80), (3, 76)) and area.outside == ()


def test_points_below_the_band_are_reported_and_do_not_count():
    area = aup([(1, 80), (2, 79), (8, 74.9)], best=80)
    assert area.outside == ((8, 74.9),)
    assert area.value == aup([(1, 80), (2, 79)], best=80).value


@given(st.floats(0.5, 20), st.floats(1, 100))
def test_one_point_is_not_weighted(speed, accuracy):
    assert aup([(speed, accuracy)], best=100).value == pytest.approx(speed * accuracy)


def test_wrong_arguments_are_refused():
    for arguments in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError):
            interval(*arguments)
    with pytest.raises(ValueError):
        aup([], 50)
    with pytest.raises(ValueError):
        aup([(1, 0)], 0)
