"""The model class in the real lm-evaluation-harness, on tasks that live in a temporary folder."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own

VOCABULARY = [*"abcdefgh ", "<mask>", "<eos>"]
MASK, EOS = 9, 10


class Letters:
    """A tokenizer of single characters."""

    name_or_path, chat_template = "letters", None

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [VOCABULARY.index(letter) for letter in text]}

    def decode(self, ids, skip_special_tokens=True):
        return "".join(VOCABULARY[i] for i in ids if i < MASK)


class Alphabet:
    """Believes with `trust` that each token is the successor of the one before it, a after h."""

    mask_id, eos_ids, shift, max_length, tokenizer = MASK, (EOS,), 0, 64, Letters()
    device, supports_cache, trust = torch.device("cpu"), False, 0.9

    def encode(self, tokens, position, attend=None, cache=None):
        """The first letter of a row fixes all others: one number a position."""
        start = tokens[:, :1]
        return torch.where(start < 8, (start + position) % 8, position % 8)[..., None].float()

    def head(self, hidden):
        share = (1 - self.trust) / (len(VOCABULARY) - 1)
        prob = torch.full((*hidden.shape[:-1], len(VOCABULARY)), share)
        return prob.scatter(-1, hidden.long(), self.trust).log()


@pytest.fixture
def build():
    from dlmdecode.lm_eval import DiffusionLM

    return lambda **options: DiffusionLM(Alphabet(), **{"mc_num": 16, **options})


def request(*args):
    return SimpleNamespace(args=args)


def test_the_likelihood_of_independent_tokens_is_exact(build):
    """Each token's probability does not depend on the others here, so every mask gives the sum."""
    right = 3 * math.log(0.9)
    wrong = math.log(0.1 / 10)
    answers = build(batch_size=5).loglikelihood(
        [request("abc", "def"), request("abc", "dea"), request("", "a")], disable_tqdm=True
    )
    assert answers[0][0] == pytest.approx(right, abs=1e-4)
    assert answers[1][0] < answers[0][0]
    assert answers[2][0] == pytest.approx(math.log(0.9), abs=1e-4)
    many = build(mc_num=2000, batch_size=500)
    mixed = many.loglikelihood([request("abc", "dea")], disable_tqdm=True)[0][0]
    assert mixed == pytest.approx(2 * math.log(0.9) + wrong, rel=0.05)


def test_the_likelihood_does_not_depend_on_the_batch_size(build):
    values = [
        build(batch_size=n).loglikelihood([request("ab", "cdf")], disable_tqdm=True)[0][0]
        for n in (1, 3, 16)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


def test_greedy_is_said_only_where_it_was_checked(build):
    pairs = [request("abc", "def"), request("abc", "dea")]
    checked = build(is_check_greedy=True).loglikelihood(pairs, disable_tqdm=True)
    assert [greedy for _, greedy in checked] == [True, False]
    unchecked = build().loglikelihood(pairs, disable_tqdm=True)
    assert [greedy for _, greedy in unchecked] == [False, False]


def test_a_long_text_is_scored_in_pieces(build):
    text = ("abcdefgh" * 10)[:70]  # the model has 64 positions
    value = build().loglikelihood_rolling([request(text)], disable_tqdm=True)[0]
    assert value == pytest.approx(70 * math.log(0.9), rel=1e-3)


def test_generated_text_is_cut_at_the_stop_strings(build):
    model = build(max_new_tokens=8, block_length=8)
    settings = {"until": ["f", "zz"]}
    assert model.generate_until([request("abc", settings)], disable_tqdm=True) == ["de"]
    whole = build(max_new_tokens=8, block_length=8, escape_until=True)
    assert whole.generate_until([request("abc", settings)], disable_tqdm=True) == ["defghabc"]


def test_requests_with_other_settings_get_their_own_call(build):
    model = build(batch_size=4, block_length=4)
    requests = [request("abc", {"max_gen_toks": n, "until": []}) for n in (2, 2, 4, 4, 4, 4, 4)]
    assert [len(batch) for batch in model.batches(requests)] == [2, 4, 1]
    texts = model.generate_until(requests, disable_tqdm=True)
    assert texts == ["de"] * 2 + ["defg"] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": True}, "never run"),
        ({"batch_size": "auto"}, "batch_size='auto'"),
        ({"mc_num": 0}, "mc_num=0"),
        ({"gen_length": 8, "max_new_tokens": 9}, "give one"),
    ],
)
def test_wrong_model_arguments_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


TASKS = {
    "letters_generate": """
task: letters_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["h"], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
""",
    "letters_choice": """
task: letters_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: 0
target_delimiter: ""
doc_to_choice: "{{{{[answer, wrong]}}}}"
metric_list: [{{metric: acc}}]
""",
}


def test_the_harness_runs_local_tasks(build, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    rows = [("abc", "defg", "dehg"), ("bcd", "efg", "eff"), ("cd", "efg", "aaa"), ("d", "x", "ee")]
    data.write_text("".join(json.dumps({"question": q, "answer": a, "wrong": w}) + "\n"
                            for q, a, w in rows[:3]))  # fmt: skip
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    found = lm_eval.simple_evaluate(
        model=build(batch_size=2, block_length=8),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"]
    assert found["letters_generate"]["exact_match,none"] == 1.0
    assert found["letters_choice"]["acc,none"] == 1.0


def test_the_command_line_knows_the_model():
    """The harness's own parser, with this package's model among its models."""
    code = (
        "import dlmdecode.lm_eval\nfrom lm_eval.api.registry import get_model\n"
        "print(get_model('dlmdecode').__name__)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip().endswith("DiffusionLM"), found.stderr
