"""The seeded word problems: right, repeatable, and with nothing in common between splits."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode.evals.arithmetic import LARGEST, SPLITS, STEPS, final_answer, problem, split_of
from dlmdecode.evals.arithmetic_forms import (
    COMPARISONS,
    DIFFERENCE,
    EVENTS,
    HE,
    NAMES,
    OPENINGS,
    PERCENT,
    QUESTIONS,
    SHE,
    THINGS,
    TOGETHER,
)

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
SHARE = re.compile(r"(\d+) percent of (\d+) is (\d+)")
SEEDS = st.integers(0, 10**6)
RULES = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if a % b == 0 else None,
}
FORMS = (
    *OPENINGS, *sum(EVENTS.values(), ()), *PERCENT, *sum(COMPARISONS.values(), ()), *QUESTIONS,
    *TOGETHER, *DIFFERENCE,
)  # fmt: skip


@given(SEEDS, st.sampled_from(SPLITS), st.integers(1, 6), st.sampled_from([12, 40, 100]))
@settings(max_examples=300, deadline=None)
def test_every_equation_is_right_and_they_lead_to_the_answer(seed, split, steps, largest):
    p = problem(seed, split, steps, largest)
    equations, shares = EQUATION.findall(p.solution), SHARE.findall(p.solution)
    assert len(equations) + len(shares) == steps == p.steps
    for percent, whole, part in shares:
        assert int(percent) * int(whole) == 100 * int(part)
    value = int(re.search(r"starts with (\d+)", p.solution).group(1))
    seen = [value]
    last = len(equations) - 1
    for i, (left, sign, right, result) in enumerate(equations):
        ending = i == last and re.search(r"Together they|The difference", p.solution)
        if ending:  # of what two persons have, one of them as it is by now
            assert value in (int(left), int(right)) and {int(left), int(right)} <= set(seen)
        else:
            assert int(left) == value
        value = RULES[sign](int(left), int(right))
        seen.append(value)
        assert value == int(result)
        assert 1 <= value <= largest
    assert final_answer(p.solution) == p.answer == value
    assert p.solution.endswith(f"#### {value}")


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=100, deadline=None)
def test_the_question_states_the_numbers_of_the_solution(seed, split):
    p = problem(seed, split)
    told = re.split("Together|The difference", p.solution)[0]
    numbers = [right for _, _, right, _ in EQUATION.findall(told)]
    for percent, _, part in SHARE.findall(told):
        numbers.remove(part)  # worked out, not told
        numbers.append(percent)
    start = re.search(r"starts with (\d+)", told).group(1)
    assert sorted(re.findall(r"\d+", p.question)) == sorted([start, *numbers])
    assert "{" not in p.question + p.solution


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_pronouns_and_names_agree(seed):
    p = problem(seed, steps=3)
    name = re.search(r"^ (\w+) starts", p.solution).group(1)
    others = SHE if NAMES[name] is HE else HE
    assert not set(others) & set(re.findall(r"\w+", p.question))


def test_a_seed_gives_the_same_problem_on_every_machine():
    assert problem(3) == problem(3, "heldout")
    assert problem(2).question == (
        "Maya has 10 balls. She earns 2 more at a fair. She gives away 75 percent of them. "
        "Now how many balls does Maya have?"
    )
    assert problem(2).solution == (
        " Maya starts with 10 balls. She earns 2 more at a fair, so 10 + 2 = 12. She gives away 75 "
        "percent of them, 75 percent of 12 is 9, so 12 - 9 = 3. #### 3"
    )


def test_default_problems_have_two_to_six_steps_and_every_kind_of_event():
    drawn = [problem(seed) for seed in range(600)]
    counts = [p.steps for p in drawn]
    assert all(60 < counts.count(steps) < 180 for steps in STEPS)
    text = " ".join(p.solution for p in drawn)
    for sign in RULES:
        assert f" {sign} " in text
    for words in ("percent of", "Together they have", "The difference is", " fewer", "as many as"):
        assert text.count(words) > 10


def test_splits_share_no_template_and_no_problem_text():
    drawn = {split: [problem(seed, split) for seed in range(3000)] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        for part in ("template", "question"):
            mine, theirs = ({getattr(p, part) for p in drawn[s]} for s in (one, other))
            assert not mine & theirs, (one, other, part)
    assert all(split_of(p.template) == split for split in SPLITS for p in drawn[split])


def test_a_problem_text_determines_its_template():
    """Two forms that read the same once filled in would put one text into two splits."""
    words = dict(name="A", other="B", friend="C", things="d", n=1, b=2, more="B", fewer="A")
    for he in ({"He": "He", "he": "he", "him": "him", "his": "his", "His": "His"},
               {"He": "A", "he": "A", "him": "A", "his": "A's", "His": "A's"}):  # fmt: skip
        filled = [form.format(**words, **he) for form in FORMS]
        assert len(set(filled)) == len(filled)


def test_templates_are_many_and_one_in_ten_is_held_out():
    assert len(FORMS) > 70 and len(NAMES) * len(THINGS) > 500
    rows = itertools.product(OPENINGS, sum(EVENTS.values(), ()), QUESTIONS)
    templates = [" | ".join(parts) for parts in rows]
    assert len(templates) > 2000
    held = sum(split_of(template) == "heldout" for template in templates)
    assert 0.05 < held / len(templates) < 0.15


def test_numbers_stay_small_by_default():
    for seed in range(500):
        p = problem(seed)
        assert p.answer <= LARGEST
        assert max(map(int, re.findall(r"\d+", p.question + p.solution))) <= max(75, LARGEST)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("#### 14", 14), ("so 1 + 1 = 2. ####7 ", 7), ("14", None), ("#### x", None), ("", None)],
)
def test_final_answer_is_the_number_after_the_hashes(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"seed": True},
        {"seed": 0, "split": "test"},
        {"seed": 0, "steps": 0},
        {"seed": 0, "steps": 7},
        {"seed": 0, "largest": 4},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        problem(**arguments)
