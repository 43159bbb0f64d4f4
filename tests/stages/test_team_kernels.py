"""Teams of models: planted cases with exact numbers, laws, and brute force."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from stages import statistics
from stages.errors import InputError, SpecError
from stages.team import divergence, gate, oracle
from stages.team.board import normalised
from stages.team.prune import contributions, prune

Rows = list[list[float]]


def planted(text: str) -> tuple[bool, ...]:
    """'1101' -> right, right, wrong, right."""
    return tuple(item == "1" for item in text)


def random_rows(rng: random.Random, places: int, outcomes: int) -> Rows:
    return [list(normalised([rng.gauss(0, 3) for _ in range(outcomes)])) for _ in range(places)]


# --- right and wrong ---------------------------------------------------------------------------------------------------------------


def test_the_first_matrix_of_the_prior_art_comes_out_exactly() -> None:
    """37 and 34 of 50 right, 30 by both: 11 complementary, an oracle of 41, .155 diversity, and 4 questions of gain."""
    right = {"qwen": planted("1" * 37 + "0" * 13), "phi": planted("1" * 30 + "0" * 7 + "1" * 4 + "0" * 9)}
    (found,) = oracle.pairs(right)
    assert (found.a, found.b) == ("phi", "qwen")
    assert (found.both_right, found.a_only, found.b_only, found.both_wrong) == (30, 4, 7, 9)
    assert (found.complementary, found.potential) == (11, 41)
    assert found.diversity == 11 / 71
    assert found.gain == 4 / 50
    assert oracle.oracle_gain(right, ("qwen", "phi")) == 4 / 50


def test_pairs_hold_the_four_counts_of_any_two() -> None:
    """Complementarity, potential and gain follow from what each gets right, in every pair of random models."""
    rng = random.Random(1)
    right = {name: tuple(rng.random() < 0.6 for _ in range(40)) for name in "dacb"}
    found = oracle.pairs(right)
    assert {(item.a, item.b) for item in found} == set(itertools.combinations("abcd", 2))
    assert [item.complementary for item in found] == sorted((item.complementary for item in found), reverse=True)
    for item in found:
        a, b = ({place for place, hit in enumerate(right[name]) if hit} for name in (item.a, item.b))
        assert (item.complementary, item.potential) == (len(a ^ b), len(a | b))
        assert item.gain == (len(a | b) - max(len(a), len(b))) / 40 == oracle.oracle_gain(right, (item.a, item.b))


def test_a_team_grows_by_what_nobody_in_it_gets_right() -> None:
    """The best starts, then the largest gain each time; who adds nothing is refused."""
    right = {
        "best": planted("1111100000"),
        "twin": planted("1111000000"),
        "other": planted("0000111000"),
        "third": planted("0000000010"),
    }
    growth = oracle.grow(right, {})
    assert [(step.name, step.gain) for step in growth.steps] == [("best", 0.5), ("other", 0.2), ("third", 0.1)]
    assert growth.refused is not None
    assert (growth.refused.name, growth.refused.gain) == ("twin", 0.0)


def test_a_member_that_gives_no_more_than_luck_is_refused() -> None:
    """Where a second sample of the best model would win two of ten questions, a model that wins two joins no team, one of three does."""
    right = {"best": planted("1111100000"), "lucky": planted("0000001100")}
    again = {"best": [1.0] * 5 + [0.4] * 5}
    assert oracle.resampled_gain(right, again, ["best"]) == pytest.approx(0.2)
    growth = oracle.grow(right, again)
    assert growth.team == ("best",)
    assert growth.refused is not None
    assert growth.refused.net == pytest.approx(0.0)
    growth = oracle.grow(right | {"lucky": planted("0000001110")}, again)
    assert growth.team == ("best", "lucky")
    assert growth.steps[1].net == pytest.approx(0.1)


def test_two_samples_of_one_model_make_no_team() -> None:
    """Models that are the same noise, with chances that say so, are refused in nearly every draw though each has an oracle gain."""
    rng = random.Random(2)
    grown = gained = 0
    for _ in range(50):
        chance = [rng.choice([0.2, 0.5, 0.8]) for _ in range(400)]
        right = {name: tuple(rng.random() < p for p in chance) for name in "ab"}
        gained += oracle.oracle_gain(right, "ab") > 0.05
        grown += len(oracle.grow(right, {name: chance for name in "ab"}, min_net=0.03).team) > 1
    assert gained == 50
    assert grown <= 5


def test_growth_is_greedy_coverage_by_brute_force() -> None:
    """Without a control every step covers as much as any could, gains only fall, and names' order changes nothing."""
    rng = random.Random(3)
    for _ in range(30):
        right = {name: tuple(rng.random() < 0.3 for _ in range(25)) for name in "abcde"}
        growth = oracle.grow(right, {})
        assert growth == oracle.grow({name: right[name] for name in reversed("abcde")}, {})
        assert sum(step.gain for step in growth.steps) == pytest.approx(sum(oracle.any_right(right, growth.team)) / 25)
        for count in range(1, len(growth.team)):
            team = growth.team[:count]
            most = max(sum(oracle.any_right(right, (*team, name))) for name in set("abcde") - set(team))
            assert sum(oracle.any_right(right, growth.team[: count + 1])) == most
        gains = [step.gain for step in growth.steps]
        assert gains[1:] == sorted(gains[1:], reverse=True)


def test_a_team_is_confirmed_by_exact_mcnemar_and_against_more_samples_of_one() -> None:
    """Six questions that only the other wins give p = 2 / 64; a control whose further sample wins three of them leaves three."""
    right = {"a": planted("1" * 10 + "0" * 10), "b": planted("0" * 10 + "1" * 6 + "0" * 4)}
    again = {"a": [1.0] * 13 + [0.0] * 7}
    found = oracle.confirm(right, again, ("a", "b"), "a")
    assert (found.team, found.alone, found.control) == (0.8, 0.5, 0.65)
    assert found.against_single == statistics.mcnemar(6, 0)
    assert found.against_single.p == 2 / 64
    assert found.against_control is not None
    assert found.against_control.mean == pytest.approx(0.15)
    assert oracle.confirm(right, {}, ("a", "b"), "a").control is None


def test_the_control_has_as_many_samples_as_the_team_has_members() -> None:
    """Three members stand against three samples of one model: 1 - (1 - p)^2 of what it missed."""
    right = {"a": planted("10"), "b": planted("01"), "c": planted("00")}
    found = oracle.confirm(right, {"a": [0.5, 0.5]}, ("a", "b", "c"), "a")
    assert found.control == (1 + 0.75) / 2


# --- divergence --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "outcomes"), [(1, 4), (2, 2), (2, 257), (3, 4), (5, 30)])
def test_what_a_geometric_team_gains_needs_no_labels(members: int, outcomes: int) -> None:
    """NLL of the team = mean NLL - D, for whatever labels."""
    rng = random.Random(members * 1000 + outcomes)
    rows = [random_rows(rng, 20, outcomes) for _ in range(members)]
    mixed, _ = divergence.geometric(rows)
    found = divergence.divergence(rows)
    assert found >= -1e-12
    assert all(sum(map(math.exp, row)) == pytest.approx(1, abs=1e-12) for row in mixed)
    for _ in range(5):
        labels = [rng.randrange(outcomes) for _ in range(20)]
        mean = sum(divergence.nll(item, labels) for item in rows) / members
        assert divergence.nll(mixed, labels) == pytest.approx(mean - found, abs=1e-6)


def test_planted_distributions_give_the_exact_matrix() -> None:
    """Bernoulli distributions have a closed form: -log of the sum of the roots of products."""
    chance = {"sure": 0.99, "even": 0.5, "doubts": 0.01, "copy": 0.5}
    rows = {name: [[math.log(p), math.log(1 - p)]] * 3 for name, p in chance.items()}
    found = divergence.matrix(rows)
    for a, b in itertools.product(chance, repeat=2):
        p, q = chance[a], chance[b]
        assert found[a][b] == pytest.approx(-math.log(math.sqrt(p * q) + math.sqrt((1 - p) * (1 - q))), abs=1e-12)
    assert found["even"]["copy"] == pytest.approx(0, abs=1e-15)
    assert found["sure"]["doubts"] == pytest.approx(-math.log(2 * math.sqrt(0.0099)), abs=1e-12)


def test_models_without_a_common_outcome_diverge_without_limit() -> None:
    """No geometric mean exists where every outcome is impossible to somebody; where one is left, it has everything."""
    nothing = -math.inf
    assert divergence.divergence([[[0.0, nothing]], [[nothing, 0.0]]]) == math.inf
    half = math.log(0.5)
    mixed, _ = divergence.geometric([[[half, half, nothing]], [[nothing, half, half]]])
    assert mixed == [[nothing, 0.0, nothing]]


def test_distributions_over_other_outcomes_are_refused() -> None:
    """Members must speak of the same things at the same places."""
    with pytest.raises(InputError, match="member 1 has other places"):
        divergence.divergence([[[0.0]], [[-1.0, -0.5]]])
    with pytest.raises(InputError, match="a member and a place"):
        divergence.divergence([])


# --- pruning -----------------------------------------------------------------------------------------------------------------------

SETS = {"large": frozenset(range(6)), "small": frozenset(range(3, 8)), "copy": frozenset(range(3, 8)), "rare": frozenset({9})}
SIZES = {"large": 60, "small": 30, "copy": 30, "rare": 10}


def covers(team: tuple[str, ...]) -> float:
    assert list(team) == sorted(team)
    return float(len(frozenset[int]().union(*(SETS[name] for name in team))))


def test_who_contributes_nothing_leaves_first_and_the_last_by_name_of_equals() -> None:
    """Of two copies one stays, and then contributes what it alone knows."""
    found = prune(covers, SIZES, budget_bytes=None, min_contribution=1)
    assert found.kept == ("copy", "large", "rare")
    assert [(item.name, item.reason, item.contribution) for item in found.removed] == [("small", "contributes too little", 0.0)]
    assert found.contributions == {"copy": 2, "large": 3, "rare": 1}
    assert found.size_bytes == 100


def test_a_budget_is_kept_and_who_still_fits_comes_back() -> None:
    """Over 70 bytes: copies and the rare one leave before the large one; what fits into the rest returns."""
    found = prune(covers, SIZES, budget_bytes=75, min_contribution=1)
    assert found.size_bytes <= 75
    assert found.kept == ("large", "rare")
    assert {item.name: item.reason for item in found.removed} == {"small": "over the budget", "copy": "over the budget"}
    assert prune(covers, SIZES, budget_bytes=50, min_contribution=1).kept == ("copy", "rare")
    with pytest.raises(SpecError, match="the smallest of 4 members has 10"):
        prune(covers, SIZES, budget_bytes=9, min_contribution=0)


def test_pruning_keeps_the_budget_and_leaves_nothing_to_remove_or_add() -> None:
    """On random teams: it fits, nobody who still fits would add enough, and it is the same every time."""
    rng = random.Random(4)
    for _ in range(100):
        sets = {name: frozenset(rng.sample(range(12), rng.randrange(1, 7))) for name in "abcdef"}
        sizes = {name: rng.randrange(1, 20) for name in sets}
        budget = rng.randrange(max(1, min(sizes.values())), 60)

        def worth(team: tuple[str, ...], sets: dict[str, frozenset[int]] = sets) -> float:
            return float(len(frozenset[int]().union(*(sets[name] for name in team))))

        found = prune(worth, sizes, budget_bytes=budget, min_contribution=1)
        assert found == prune(worth, dict(reversed(sizes.items())), budget_bytes=budget, min_contribution=1)
        assert found.size_bytes == sum(sizes[name] for name in found.kept) <= budget
        assert {*found.kept, *(item.name for item in found.removed)} == set(sizes)
        for item in found.removed:
            if found.size_bytes + sizes[item.name] <= budget:
                assert worth(tuple(sorted((*found.kept, item.name)))) - worth(found.kept) < 1
        if len(found.kept) > 1:
            assert found.contributions == contributions(worth, found.kept)


# --- gates -------------------------------------------------------------------------------------------------------------------------


def test_a_planted_gate_has_its_exact_profile() -> None:
    """A target that is right where it is sure: the best threshold keeps those questions, and ties keep more of the target."""
    points = gate.profile([0.1, 0.2, 0.2, 0.7, 0.9], planted("11100"), planted("01011"))
    assert [(item.threshold, item.kept, item.accuracy) for item in points] == [
        (None, 0.0, 0.6),
        (0.1, 0.2, 0.8),
        (0.2, 0.6, 1.0),
        (0.7, 0.8, 0.8),
        (0.9, 1.0, 0.6),
    ]
    assert [item.kept_accuracy for item in points] == [None, 1.0, 1.0, 0.75, 0.6]
    assert [(item.wins, item.losses) for item in points] == [(2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
    assert gate.chosen(points) == points[2]
    assert gate.chosen(gate.profile([0.1, 0.2], planted("11"), planted("11"))).kept == 1


def test_a_gate_goes_from_the_helper_to_the_target() -> None:
    """The first point is the helper alone, the last the target alone; each in between by brute force."""
    rng = random.Random(5)
    doubt = [rng.choice([0.1, 0.2, 0.4, 0.8]) for _ in range(60)]
    target, helper = (tuple(rng.random() < 0.5 for _ in range(60)) for _ in range(2))
    points = gate.profile(doubt, target, helper)
    assert points[0].accuracy == sum(helper) / 60
    assert (points[-1].accuracy, points[-1].wins, points[-1].losses) == (sum(target) / 60, 0, 0)
    for item in points[1:]:
        assert item.threshold is not None
        right = [mine if own <= item.threshold else other for own, mine, other in zip(doubt, target, helper, strict=True)]
        assert item.accuracy == sum(right) / 60
        assert item.wins - item.losses == sum(right) - sum(target)


def test_uncertainty_is_the_entropy_of_the_choices() -> None:
    """Nothing for a certainty, log of the number for an even choice."""
    assert gate.entropy([0.0, -math.inf]) == 0
    assert gate.entropy([math.log(0.25)] * 4) == pytest.approx(math.log(4), abs=1e-12)
    with pytest.raises(InputError, match="is no number"):
        gate.profile([math.nan], [True], [True])
    with pytest.raises(InputError, match="the same questions"):
        gate.profile([], [], [])
