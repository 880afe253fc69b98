"""The seeded functions: their own solutions pass, wrong ones fail, splits share nothing."""

import doctest
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode.evals import functions_forms as forms
from dlmdecode.evals.arithmetic import SPLITS
from dlmdecode.evals.functions import exercise
from dlmdecode.evals.functions_task import Functions

OPERATIONS = (
    forms.LISTS | forms.LIST_ENDS,
    forms.STRINGS,
    forms.STRING_ENDS,
)
SEEDS = st.integers(0, 10**6)


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=100, deadline=None)
def test_the_solution_gives_what_the_docstring_and_the_tests_say(seed, split):
    one = exercise(seed, split)
    scope = {}
    exec(one.question + one.solution + one.check, scope)
    scope["check"](scope[one.name])
    found = doctest.DocTestFinder().find(scope[one.name], one.name, globs=scope)
    for test in found:
        for example in test.examples:
            shown = eval(example.want)
            assert eval(example.source, scope) == shown
    assert [len(test.examples) for test in found] == [1]
    assert one.solution.count("\n") == one.steps


def test_a_seed_gives_the_same_exercise_on_every_machine():
    assert exercise(3) == exercise(3, "heldout")
    one = exercise(1)
    assert one.question.splitlines()[:2] == [
        "def operate(items):",
        '    """Keep the items greater than 4, then find the maximum.',
    ]
    assert one.solution == (
        "    items = [item for item in items if item > 4]\n    return max(items, default=0)\n"
    )


def test_splits_share_no_template_and_no_question():
    drawn = {split: [exercise(seed, split) for seed in range(800)] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        for part in ("template", "question"):
            mine, theirs = ({getattr(e, part) for e in drawn[s]} for s in (one, other))
            assert not mine & theirs, (one, other, part)
    assert len({e.template for e in drawn["heldout"]}) > 200


def test_no_two_ways_to_ask_read_the_same():
    for operations in OPERATIONS:
        ways = sum(operations.values(), ())
        assert len(set(ways)) == len(ways)


def test_every_operation_has_wordings_for_training_and_others_held_out():
    for ways in (ways for operations in OPERATIONS for ways in operations.values()):
        assert 1 <= sum(way.startswith("~") for way in ways) <= len(ways) / 2
    for seed in range(300):
        assert all(way[0] == "~" for way in exercise(seed, "phrasing").template.split(" | ")[1:])
        assert "~" not in exercise(seed, "train").template


def test_wider_wordings_are_of_training_alone():
    wider = {way for ways in forms.WIDER.values() for way in ways}
    known = {way.lstrip("~") for operations in OPERATIONS for way in sum(operations.values(), ())}
    assert not wider & known
    assert set(forms.WIDER) <= {
        expression for operations in OPERATIONS for expression in operations
    }
    used = {s: " | ".join(exercise(seed, s).template for seed in range(900)) for s in SPLITS}
    assert sum(way in used["train"].split(" | ") for way in wider) > len(wider) / 2
    for split in SPLITS[1:]:
        assert not wider & set(used[split].split(" | "))


def test_names_of_one_split_are_in_no_other():
    for one, other in itertools.combinations(forms.NAMES.values(), 2):
        assert not set(one) & set(other)
    assert {exercise(seed, "phrasing").name for seed in range(99)} == set(forms.NAMES["heldout"])


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": True}, {"seed": 0, "split": "test"}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        exercise(**arguments)


def test_the_task_runs_the_tests_of_an_answer():
    task = Functions(3, allow_code_execution=True)
    one = exercise(0)
    assert task.prompt(0) == one.question and len(task) == 3
    assert task.score(0, one.solution)["correct"]
    assert task.score(0, one.solution + "\ndef more():\n    pass\n")["correct"]
    assert not task.score(0, "    return None\n")["correct"]
    assert not task.score(0, "    return (\n")["correct"]


def test_running_programs_must_be_allowed():
    with pytest.raises(ValueError, match="--allow-code-execution"):
        Functions(3)
    with pytest.raises(ValueError, match="num_problems=0"):
        Functions(0, allow_code_execution=True)
