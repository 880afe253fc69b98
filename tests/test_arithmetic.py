"""The seeded word problems: right, repeatable, and with nothing in common between splits."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode.evals.arithmetic import (
    EVENTS,
    HE,
    LARGEST,
    NAMES,
    OPENINGS,
    QUESTIONS,
    SHE,
    SPLITS,
    THINGS,
    final_answer,
    problem,
    split_of,
)

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
SEEDS = st.integers(0, 10**6)
RULES = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if a % b == 0 else None,
}


@given(SEEDS, st.sampled_from(SPLITS), st.integers(1, 6), st.sampled_from([12, 40, 100]))
@settings(max_examples=200, deadline=None)
def test_every_equation_is_right_and_they_form_a_chain(seed, split, steps, largest):
    p = problem(seed, split, steps, largest)
    equations = EQUATION.findall(p.solution)
    assert len(equations) == steps == p.steps
    value = int(re.search(r"starts with (\d+)", p.solution).group(1))
    for left, sign, right, result in equations:
        assert int(left) == value
        value = RULES[sign](int(left), int(right))
        assert value == int(result)
        assert 1 <= value <= largest
    assert final_answer(p.solution) == p.answer == value
    assert p.solution.endswith(f"#### {value}")


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=50, deadline=None)
def test_the_question_states_the_numbers_of_the_solution_in_order(seed, split):
    p = problem(seed, split)
    operands = [right for _, _, right, _ in EQUATION.findall(p.solution)]
    start = re.search(r"starts with (\d+)", p.solution).group(1)
    assert re.findall(r"\d+", p.question) == [start, *operands]
    assert "{" not in p.question + p.solution


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_pronouns_and_names_agree(seed):
    p = problem(seed, steps=3)
    name = re.search(r"^ (\w+) starts", p.solution).group(1)
    others = SHE if NAMES[name] is HE else HE
    assert not set(others) & set(re.findall(r"\w+", p.question))


def test_a_seed_gives_the_same_problem_on_every_machine():
    assert problem(3) == problem(3, "heldout")
    assert problem(0).question == (
        "Sara finds 2 lemons in a box. She takes 10 more from a drawer. "
        "Now how many lemons does Sara have?"
    )
    assert problem(0).solution == (
        " Sara starts with 2 lemons. She takes 10 more from a drawer, so 2 + 10 = 12. #### 12"
    )


def test_default_problems_have_one_to_three_steps_about_equally_often():
    counts = [problem(seed).steps for seed in range(600)]
    assert all(150 < counts.count(steps) < 250 for steps in (1, 2, 3))


def test_splits_share_no_template_and_no_problem_text():
    drawn = {split: [problem(seed, split) for seed in range(3000)] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        for part in ("template", "question"):
            mine, theirs = ({getattr(p, part) for p in drawn[s]} for s in (one, other))
            assert not mine & theirs, (one, other, part)
    assert all(split_of(p.template) == split for split in SPLITS for p in drawn[split])


def test_a_problem_text_determines_its_template():
    """Two forms that read the same once filled in would put one text into two splits."""
    words = dict(name="A", friend="B", things="c", n=1, b=2, He="He", he="he", him="him")
    words |= {"his": "his", "His": "His"}
    for forms in (OPENINGS, sum(EVENTS.values(), ()), QUESTIONS):
        filled = [form.format(**words) for form in forms]
        assert len(set(filled)) == len(filled)


def test_templates_are_many_and_one_in_ten_is_held_out():
    events = sum(EVENTS.values(), ())
    templates = [" | ".join(parts) for parts in itertools.product(OPENINGS, events, QUESTIONS)]
    assert len(templates) > 800 and len(NAMES) * len(THINGS) > 500
    held = sum(split_of(template) == "heldout" for template in templates)
    assert 0.05 < held / len(templates) < 0.15


def test_numbers_stay_small_by_default():
    for seed in range(500):
        p = problem(seed)
        assert max(map(int, re.findall(r"\d+", p.question + p.solution))) <= LARGEST


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
