"""The seeded word problems: right, repeatable, and with nothing in common between splits."""

import itertools
import random
import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode.evals.arithmetic import LARGEST, SPLITS, STEPS, final_answer, problem, split_of
from dlmdecode.evals.stories import story
from dlmdecode.evals.stories.story import CROWDS, KNOWN, PARTS, SCENES
from dlmdecode.evals.stories.text import CHOICE, Text
from dlmdecode.evals.stories.words import FORMS, HE, SHE, UNITS, WORDS, in_words, plural

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
SHARE = re.compile(r"(\d+) percent of (\d+) is (\d+)")
SEEDS = st.integers(0, 10**6)
RULES = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if a % b == 0 else None,
}
LISTED = ("boys", "girls", "roles", "places", "food", "objects")


@cache
def drawn(split):
    """Many problems of a split."""
    return [problem(seed, split) for seed in range(1200)]


def listed():
    """All words of the lists that a split has of its own."""
    return {word for kind, words in WORDS.items() if kind.split()[0] in LISTED for word in words}


def values(text):
    """The numbers of a text, in digits or in words."""
    words = {in_words(n): n for n in range(1, 100)}
    words |= {part.split()[-1]: n for n, part in PARTS.items()}
    spelled = re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower())
    return [*map(int, re.findall(r"\d+", text)), *(words[w] for w in spelled if w in words)]


def known_to_everybody(template):
    """The numbers that a problem about a week, a dozen and the like does not tell."""
    return {n for n, forms in KNOWN.items() if template.split(" | ")[0] in forms}


@given(SEEDS, st.sampled_from(SPLITS), st.integers(1, 6), st.sampled_from([12, 40, 60, 100]))
@settings(max_examples=300, deadline=None)
def test_every_equation_is_right_and_the_last_one_gives_the_answer(seed, split, steps, largest):
    p = problem(seed, split, steps, largest)
    equations, shares = EQUATION.findall(p.solution), SHARE.findall(p.solution)
    assert len(equations) + len(shares) == steps == p.steps
    for percent, whole, part in shares:
        assert int(percent) * int(whole) == 100 * int(part)
    for left, sign, right, result in equations:
        assert RULES[sign](int(left), int(right)) == int(result)
        assert 1 <= int(result) <= largest
    assert final_answer(p.solution) == p.answer == int(equations[-1][3])
    assert p.solution.endswith(f". #### {p.answer}")


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=200, deadline=None)
def test_what_a_solution_calculates_with_is_told_or_was_calculated(seed, split):
    p = problem(seed, split)
    known = {*values(p.question), 2, *known_to_everybody(p.template)}  # 2: half and twice
    for equation in re.split(r"(?<=\.) ", p.solution.strip())[:-1]:
        *_, result = numbers = [int(n) for n in re.findall(r"\d+", equation)]
        assert set(numbers[:-1]) <= known, (equation, p.question)
        known.add(result)


def test_no_form_is_left_unfilled_and_sentences_are_sentences(monkeypatch):
    monkeypatch.setattr(story, "TYPED", 0)
    in_training = (problem(seed, "train") for seed in range(1200))
    for p in itertools.chain(in_training, *map(drawn, SPLITS[1:])):
        told = re.sub(r" ?[+*/:-] ?(?=[a-z\d])| ?= ?(?=\?)", "", p.question)  # 3 + 4 = ?
        assert not re.search(r"[][{}<>|~+]|  | [.,?]|[.?]{2}|another 1\b", told)
        assert re.fullmatch(r"([A-Z0-9$].*?[.?] ?)+", p.question), p.question
        assert p.question.count("?") == 1 or re.search(
            r"([Ff]ind|Say|Please|I wonder|[Tt]ell me|Calculate|[Ww]ork out|Figure out"
            r"|Determine|Give|Compute|Solve) [^.]*\.$",
            p.question,
        )


def test_verbs_agree_with_me():
    mine = [p.question for p in drawn("train") if re.search(r"\bI\b", p.question)]
    assert len(mine) > 30
    for question in mine:
        assert not re.search(
            r"\bI (has|does|is|buys|gives|gets|sells|loses|was given s)\b", question
        )


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_pronouns_and_names_agree(split):
    pronouns = {name: HE for name in WORDS[f"boys {split}"]}
    pronouns |= {name: SHE for name in WORDS[f"girls {split}"]}
    seen = 0
    for p in drawn(split):
        found = re.fullmatch(r"(\w+) (?:has|had|found|bought) [^.]*\. (He|She) .*", p.question)
        if found and found[1] in pronouns:
            assert pronouns[found[1]][0] == found[2], p.question
            seen += 1
    assert seen > 4


def test_one_thing_is_singular():
    many = {plural(thing)[1] for thing in WORDS["food train"] + WORDS["objects train"]}
    wrong = re.compile(rf"(?<![-\w])(1|one) (more |new )?({'|'.join(many - {'sheep', 'fish'})})\b")
    for p in itertools.chain.from_iterable(map(drawn, SPLITS)):
        assert not wrong.search(p.question)


@pytest.mark.parametrize(
    ("thing", "one", "many"),
    [
        ("apple", "apple", "apples"),
        ("box", "box", "boxes"),
        ("peach", "peach", "peaches"),
        ("cherry", "cherry", "cherries"),
        ("key", "key", "keys"),
        ("tomato", "tomato", "tomatoes"),
        ("leaf:leaves", "leaf", "leaves"),
        ("toy-car", "toy car", "toy cars"),
    ],
)
def test_plurals(thing, one, many):
    assert plural(thing) == (one, many)


@pytest.mark.parametrize(
    ("n", "words"), [(1, "one"), (12, "twelve"), (20, "twenty"), (42, "forty-two"), (100, "100")]
)
def test_numbers_in_words(n, words):
    assert in_words(n) == words


def test_a_seed_gives_the_same_problem_on_every_machine():
    assert problem(3) == problem(3, "heldout")
    assert problem(2).question == (
        "Hiro collects 10 turnips in a week. He supplies Heidi with 4 turnips, and then 3 more "
        "turnips arrive. How many turnips has he got in the end?"
    )
    assert problem(2).solution == " Take away 4: 10 - 4 = 6. Add 3: 6 + 3 = 9. #### 9"


def test_default_problems_have_one_to_six_steps_and_every_kind_of_event():
    problems = drawn("heldout")
    counts = [p.steps for p in problems]
    assert all(150 < counts.count(steps) < 250 for steps in STEPS)
    text = " ".join(p.solution for p in problems)
    for sign in RULES:
        assert f" {sign} " in text
    for words in ("percent of", "Together:", "Difference:", "Add", "Take away", "Times", "Divide"):
        assert text.count(words) > 4
    asked = " ".join(p.question for p in problems)
    for words in ("$", " I ", " the vendor ", " and then ", " but ", "years old", *UNITS[1:12]):
        assert asked.count(words) > 4, words


def test_splits_share_no_template_and_no_problem_text():
    for one, other in itertools.combinations(SPLITS, 2):
        for part in ("template", "question"):
            mine, theirs = ({getattr(p, part) for p in drawn(s)} for s in (one, other))
            assert not mine & theirs, (one, other, part)
    assert all(split_of(p.template) == split for split in SPLITS for p in drawn(split))


def test_names_and_things_of_one_split_are_in_no_other():
    for kind in LISTED:
        lists = [set(WORDS[f"{kind} {split}"]) for split in ("train", "calibration", "heldout")]
        for one, other in itertools.combinations(lists, 2):
            assert not one & other
    words = {split: set(re.findall(r"\w+", str(drawn(split)))) for split in SPLITS}
    for split in ("heldout", "phrasing"):
        for kind in ("boys", "girls"):
            assert not words[split] & set(WORDS[f"{kind} train"])
            assert not words["train"] & set(WORDS[f"{kind} heldout"])


def test_every_sentence_of_the_split_by_phrasing_has_a_form_that_training_lacks():
    used = {
        split: set(" | ".join(p.template for p in drawn(split)).split(" | ")) for split in SPLITS
    }
    assert all(re.match(r"~|[\d ]+$", form) for form in used["phrasing"])
    assert not any("~" in form for split in SPLITS[:3] for form in used[split])


def test_some_forms_and_made_up_words_are_of_training_alone():
    used = {split: " ".join(p.template for p in drawn(split)) for split in SPLITS}
    wider = [form for forms in FORMS.values() for form in forms if form.startswith("+")]
    assert sum(form in used["train"] for form in wider) > len(wider) / 3
    assert not any(form in used[split] for form in wider for split in SPLITS[1:])
    lists = [Text(random.Random(seed), "train").lists for seed in range(200)]
    made_up = {word for one in lists for kind in LISTED for word in one[kind]} - listed()
    assert len(made_up) > 500
    assert not {word.lower() for word in made_up} & {word.lower() for word in listed()}
    for split in SPLITS[1:]:
        text = Text(random.Random(0), split)
        assert {word for kind in LISTED for word in text.lists[kind]} <= listed()


def test_training_alone_has_strange_words_in_the_place_of_others(monkeypatch):
    before = {split: [problem(seed, split).question for seed in range(40)] for split in SPLITS}
    monkeypatch.setattr(story, "STRANGE", 1)
    for split, told in before.items():
        now = [problem(seed, split).question for seed in range(40)]
        assert (now == told) == (split != "train")


def test_a_strange_word_stands_for_one_that_tells_no_number():
    text = Text(random.Random(1), "train")
    told = "Twenty birds were sitting in a tree. Seven flew away. How many birds are left?"
    for _ in range(50):
        strange = text.with_strange_words(told)
        pairs = list(zip(told.split(), strange.split(), strict=True))
        changed = [(word, other) for word, other in pairs if word != other]
        assert 1 <= len(changed) <= 2
        assert not {word for word, _ in changed} & {"Twenty", "Seven", "many", "left?"}
        assert not any(other.strip(".?") in listed() for _, other in changed)


def test_training_alone_has_questions_as_people_type_them(monkeypatch):
    told = {split: [problem(seed, split) for seed in range(200)] for split in SPLITS}
    monkeypatch.setattr(story, "TYPED", 0)
    for split, problems in told.items():
        plain = [problem(seed, split) for seed in range(200)]
        typed = [(a.question, b.question) for a, b in zip(problems, plain, strict=True)]
        assert all(a.solution == b.solution for a, b in zip(problems, plain, strict=True))
        changed = [(now, before) for now, before in typed if now != before]
        assert 20 < len(changed) < 80 if split == "train" else not changed
        for now, before in changed:
            assert set(values(before)) <= set(values(now))


def test_multiples_of_what_everybody_knows_are_in_training_alone():
    found = {
        split: {n for p in drawn(split) for n in known_to_everybody(p.template)} for split in SPLITS
    }
    assert len(found["train"]) > 3 and not any(found[split] for split in SPLITS[1:])


def test_no_form_of_training_alone_can_read_like_one_held_out_by_phrasing():
    forms = [form for kind in FORMS.values() for form in kind]
    held_out = {text for form in forms if form[0] == "~" for text in readings(form[1:])}
    assert len(held_out) > 100
    for form in forms:
        if form[0] == "+":
            assert not readings(form[1:]) & held_out, form


def readings(form):
    """Every choice of a form made in every way."""
    found = CHOICE.search(form)
    if not found:
        return {" ".join(form.split())}
    before, after = form[: found.start()], form[found.end() :]
    return {text for way in found[1].split("|") for text in readings(before + way + after)}


def test_every_kind_of_sentence_has_forms_for_training_and_others_held_out():
    told = [forms for kind, forms in FORMS.items() if not kind.startswith("known ")]
    assert sum(all(form.startswith("+") for form in forms) for forms in told) < 20
    for kind, forms in FORMS.items():
        training_alone = all(form.startswith("+") for form in forms)
        if not kind.endswith("units") and not training_alone:
            held = sum(form.startswith("~") for form in forms)
            assert 1 <= held <= len(forms) / 2, kind
    assert sum(map(len, FORMS.values())) > 600
    assert len(SCENES) >= 10 and all(f"{kind} openings" in FORMS for kind in CROWDS)


def test_forms_are_different():
    forms = [form for kind in FORMS if not kind.endswith("units") for form in set(FORMS[kind])]
    for kind, listed in FORMS.items():
        assert len(set(listed)) == len(listed), kind
    assert len(forms) > 600


def test_numbers_stay_small_by_default():
    for p in drawn("heldout")[:500]:
        assert p.answer <= LARGEST
        assert max(values(p.question + p.solution)) <= max(75, LARGEST)


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
