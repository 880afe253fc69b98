"""Reading answers out of text, and asking for them."""

import gzip
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmdecode.evals.gsm8k import GSM8K, TEMPLATES, last_number, marked_number

ROWS = [
    {"question": "A jar has 3 beans. 4 are added. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    {"question": "It costs $1,200. Half?", "answer": "1200/2=<<1200/2=600>>600\n#### 600"},
    {"question": "Debt of 5, then 2 more?", "answer": "-5-2=<<-5-2=-7>>-7\n#### -7"},
    {"question": "Sum of all?", "answer": "So 1,000+24 = 1,024\n#### 1,024"},
]


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def build(template="gsm8k", shots=2, **options):
        return GSM8K(str(path), shots, str(path), template, **options)

    return build


RIGHT = {"correct": True, "strict": True, "flexible": True}
READINGS = [  # text, strict after "####", flexible
    ("#### 18", 18, 18),
    ("####18", 18, 18),
    ("#### $18", 18, 18),
    ("#### \\$18", 18, 18),
    ("#### -5", -5, -5),
    ("#### $-5", -5, -5),
    ("#### -$5", -5, -5),
    ("#### \u22125", -5, -5),
    ("#### 1,000,000", 10**6, 10**6),
    ("#### 1{,}000", 1000, 1000),
    ("#### 18.", 18, 18),
    ("#### 18.00", 18, 18),
    ("#### 18 dollars", 18, 18),
    ("#### **18**", 18, 18),
    ("#### .5", Fraction(1, 2), Fraction(1, 2)),
    ("#### 3/4", Fraction(3, 4), Fraction(3, 4)),
    ("#### 1e3", 1000, 1000),
    ("####\n18", 18, 18),
    ("#### US$18", 18, 18),
    ("#### A$1,018", 1018, 1018),
    ("#### -US$18", -18, -18),
    ("#### USD 18", 18, 18),
    ("#### **EUR18.00**", 18, 18),
    ("#### INR -18", -18, -18),
    ("#### Rs. 18", 18, 18),
    ("#### Rs 1,00,000", 100000, 100000),
    ("the model ABC-5", None, 5),
    ("#### about 18", None, 18),
    ("#### 18\n#### 19", 18, 19),
    ("the #### sign, then #### 18", 18, 18),
    ("18 is my answer", None, 18),
    ("from 5-10 it is", None, 10),
    ("14 - 4 = 10", None, 10),
    ("it is (-3)", None, -3),
    ("$1,234.50.", None, Fraction(2469, 2)),
    ("so 50%", None, 50),
    ("1,2,3", None, 3),
    ("\\frac{1}{2}", None, Fraction(1, 2)),
    ("1/0", None, None),
    ("9" * 9999, None, None),
    ("none", None, None),
    ("", None, None),
    ("-", None, None),
]


@pytest.mark.parametrize(("text", "strict", "flexible"), READINGS)
def test_answers_are_read_in_whatever_form(text, strict, flexible):
    assert (marked_number(text, "####"), last_number(text)) == (strict, flexible)


HALF = Fraction(1, 2)
ALONE = [  # text, value: after a marker and as the last number alike
    ("4 1/2", 4 + HALF),
    ("4\u00bd", 4 + HALF),
    ("4 \u00bd", 4 + HALF),
    ("\u00bd", HALF),
    ("-4 1/2", -4 - HALF),
    ("4\\frac{1}{2}", 4 + HALF),
    ("4 \\dfrac{1}{2}", 4 + HALF),
    ("4\\frac12", 4 + HALF),
    ("-\\frac{1}{2}", -HALF),
    ("\\frac{-1}{2}", -HALF),
    ("1\u20442", HALF),
    ("1,234 1/2", 1234 + HALF),
    ("1 234", 1234),
    ("1 234 567.", 1234567),
    ("12 000", 12000),
    ("12 000 cups", 12000),
    ("1 234 050 cups", 1234050),
    ("1\u00a0234 apples", 1234),
    ("1\u202f234,5 apples", 1234 + HALF),
    ("1\u2009234 apples", 1234),
    ("1\\,234 apples", 1234),
    ("1{,}234{,}567", 1234567),
    ("1'234'567.5", 1234567 + HALF),
    ("1\u2019234", 1234),
    ("1_234", 1234),
    ("1,00,000", 100000),
    ("12,34,56,789", 123456789),
    ("1.234,5", 1234 + HALF),
    ("1.234.567", 1234567),
    ("1.234.567,5", 1234567 + HALF),
    ("1.234", Fraction(1234, 1000)),
    ("\u20135", -5),
    ("\u22125", -5),
    ("\u20115", -5),
    ("\uff0d5", -5),
    ("\u0661\u0662", 12),
    ("\u0967\u0968.\u096b", 12 + HALF),
    ("\uff11\uff0c\uff12\uff13\uff14", 1234),
    ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665", 1234 + HALF),
    ("\u20b91,00,000", 100000),
    ("\u00a5500", 500),
    ("-\u20ac5", -5),
    ("\u20ac-5", -5),
    ("$ 18", 18),
    ("18 \u20ac", 18),
    ("18\u20ac", 18),
    ("18%", 18),
    ("18\\%", 18),
    ("1e3", 1000),
    ("1.5E+3", 1500),
    ("5e-1", HALF),
    ("1.5 \u00d7 10^3", 1500),
    ("1.5 \\times 10^{3}", 1500),
    ("1.5\\cdot10^3", 1500),
    ("1.5 x 10\u00b3", 1500),
    ("5 * 10^-1", HALF),
    ("10^3", 1000),
    ("2\u00b3", 2),
    ("12 m^2", 12),
    ("12 m\u00b2", 12),
    ("12 cm^{2}", 12),
    ("**18**", 18),
    ("__18__", 18),
    ("`18`", 18),
    ("**$18**", 18),
    ("**\\$18**", 18),
    ("$18$", 18),
    ("$-18$", -18),
    ("\\(18\\)", 18),
    ("\\[18\\]", 18),
    ("$$18$$", 18),
    ("$\\boxed{18}$", 18),
    ("\\boxed{\\$18}", 18),
    ("\\text{18}", 18),
    ("\\textbf{\\text{18}}", 18),
    ("\\mathbf{18}", 18),
    ("<b>18</b>", 18),
    ("<strong>18</strong>", 18),
    ("<answer>18</answer>", 18),
    ('"18"', 18),
    ("[18]", 18),
    ("> 18", 18),
    ("+18", 18),
    ("= 18", 18),
    (": 18", 18),
    ("18\u3002", 18),
]


@pytest.mark.parametrize(("text", "value"), ALONE)
def test_an_answer_is_one_number_after_every_marker_and_in_a_sentence(text, value):
    assert marked_number(f"So #### {text}", "####") == value
    assert marked_number(f"The answer is: {text}", "the answer is") == value
    assert marked_number(f"So \\boxed{{{text}}}.", "\\boxed") == value
    assert last_number(f"From 7 others, the total is {text}") == value


FLEXIBLE = [  # what is not certain is not joined
    ("it takes 5\u201310", 10),
    ("pages 5-10", 10),
    ("3,5", 5),
    ("No.5", 5),
    ("so ...5", 5),
    ("for 1 234 dollars", 234),
    ("he has 5 100 dollar bills", 100),
    ("2 bags of 500 g", 500),
    ("4 10/5", 2),
    ("1.5 1/2", HALF),
    ("a long dash \u2014 18", 18),
    ("x^2", None),
    ("5 \u00d7 10 = 50", 50),
    ("18 (= 9 \u00d7 2)", 2),
    ("$12 - $5 = $7", 7),
    ("2024-11-25", 25),
    ("2 / 0", 0),
]


@pytest.mark.parametrize(("text", "value"), FLEXIBLE)
def test_the_last_number_is_not_joined_where_that_is_unsure(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize(
    "text", ["12,34", "1,2,3", "1 234 cups", "5-10", "3:30", "1/0", "1.2.3", "x", "", "-"]
)
def test_an_unclear_number_after_the_marker_is_no_strict_answer(text):
    assert marked_number(f"#### {text}", "####") is None


BOXED = ["\\boxed{18}", "\\boxed{ $18$ }", "x \\boxed{\\$18.0} y", "\\fbox{\\boxed{18}}"]


@pytest.mark.parametrize("text", BOXED)
def test_boxed_answers_are_read(text):
    assert marked_number(text, "\\boxed") == 18


@given(st.integers(-(10**12), 10**12), st.sampled_from(sorted(TEMPLATES)))
def test_every_integer_is_read_back_from_every_template(value, name):
    template = TEMPLATES[name]
    text = template.shown({"answer": f"Then 12-5=7 and 2-9.\n#### {value:,}"})
    assert marked_number(text, template.marker) == last_number(text) == value


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading(text):
    for value in (last_number(text), marked_number("####" + text, "####")):
        assert value is None or isinstance(value, Fraction)


@pytest.mark.parametrize("template", TEMPLATES)
def test_reference_solutions_are_right_and_others_wrong(task, template):
    built = task(template)
    for i, row in enumerate(ROWS):
        text = TEMPLATES[template].shown(row)
        assert built.score(i, text) == RIGHT
        assert built.score(i, text + "\n\nQuestion: 1?\nAnswer: 3") == built.score(i, text)
        assert not built.grade((i + 1) % len(ROWS), text)
        assert not built.grade(i, "")


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_solutions_of_the_data_set_are_read_strictly_and_flexibly(split):
    beside = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"
    path = Path(os.environ.get("DLMDECODE_GSM8K", beside)) / f"{split}.jsonl"
    if not path.is_file():
        pytest.skip("DLMDECODE_GSM8K names no folder with train.jsonl and test.jsonl")
    tasks = [GSM8K(str(path), shots=0, template=name) for name in TEMPLATES]
    assert len(tasks[0]) == {"train": 7473, "test": 1319}[split]
    for i, row in enumerate(tasks[0].rows):
        gold = Fraction(row["answer"].rpartition("####")[2].strip().replace(",", ""))
        assert tasks[0].answers[i] == gold
        assert tasks[0].score(i, row["answer"]) == RIGHT
        for built in tasks if i % 5 == 0 else ():
            assert built.score(i, built.template.shown(row)) == RIGHT


def test_prompts_show_solved_examples_and_end_with_the_question(task):
    prompt = task().prompt(2)
    first = "Question: A jar has 3 beans. 4 are added. How many?\nAnswer: 3+4=7\n#### 7\n\n"
    assert prompt.startswith(first)
    assert prompt.endswith("\n\nQuestion: Debt of 5, then 2 more?\nAnswer:")
    assert prompt.count("Question:") == 3
    zero_shot = task(shots=0).prompt(2)
    assert zero_shot.count("Question:") == 1 and "step by step" in zero_shot


def test_the_bare_question_is_the_whole_prompt(task):
    assert task("question", shots=0).prompt(2) == ROWS[2]["question"]
    alone = task("question", shots=0, chat=True).prompt(2)
    assert alone == [{"role": "user", "content": ROWS[2]["question"]}]


def test_chat_prompts_are_turns(task):
    turns = task("cot", chat=True).prompt(0)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert turns[1]["content"] == "3+4=7 The answer is 7."


def test_what_a_run_must_record_depends_on_data_and_template(task):
    assert task().describe() == task().describe()
    assert task().describe() != task("boxed").describe()
    assert task().describe() != task(shots=1).describe()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{}\n", "line 1 has no question"),
        ("x\n", "line 1 is not JSON"),
        ("[" * 200_000, "line 1 is not JSON"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        GSM8K(str(path), 0)
    with pytest.raises(ValueError, match="no such file"):
        GSM8K(str(tmp_path / "missing.jsonl"), 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [("cut.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9]), ("a.jsonl", b"\xff\n")],
    ids=["cut", "encoding"],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"--data .*{name}: it is damaged or not UTF-8"):
        GSM8K(str(tmp_path / name), 0)


@pytest.mark.parametrize(
    "answer", ["so it is eighteen", "", "3+4=7", "#### ", "7 #### seven", "#### 1,2", 7, None]
)
def test_a_row_without_a_readable_answer_is_named(tmp_path, answer):
    path = tmp_path / "bad.jsonl"
    rows = [ROWS[0], {"question": "How many?", "answer": answer}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"--data.*(row|line) 2 .*answer"):
        GSM8K(str(path), 0)
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(ValueError, match=r"--shots-data.*(row|line) 2 .*answer"):
        GSM8K(str(good), 2, str(path))


@pytest.mark.parametrize("answer", ["#### 7", "7", "$7.00", "3+4\u2028\n#### 7 beans"])
def test_a_row_may_give_its_answer_alone(tmp_path, answer):
    path = tmp_path / "data.jsonl"
    row = {"question": "How many?", "answer": answer}
    path.write_text("\ufeff" + json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert GSM8K(str(path), 0).answers == [7]


def test_wrong_arguments_are_refused(task):
    with pytest.raises(ValueError, match="template='no'"):
        task("no")
    with pytest.raises(ValueError, match="4 examples only"):
        task(shots=9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 1/2.", Fraction(1, 2)), ("He ate 4 1/2.", Fraction(9, 2)),
        ("4½.", Fraction(9, 2)), ("It is -½", Fraction(-1, 2)), ("−½", Fraction(-1, 2)),
        (r"\frac{3}{-4}", Fraction(-3, 4)), (r"\frac{3}4", Fraction(3, 4)),
        (r"\frac3{4}", Fraction(3, 4)), (r"\frac 3 4", Fraction(3, 4)),
        (r"\sfrac{3}{4}", Fraction(3, 4)), (r"{3 \over 4}", Fraction(3, 4)),
        (r"3~\frac{3}{4}", Fraction(15, 4)), ("1~234", 1234), (r"1{\,}234", 1234),
        (r"1\thinspace 234", 1234), ("1\u2060234", 1234), ("18 m^{-1}", 18),
    ],
)  # fmt: skip
def test_fractions_end_sentences_and_groups_come_in_latex_too(text, value):
    assert last_number(text) == value
