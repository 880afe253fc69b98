"""The model class in the real lm-evaluation-harness, on tasks that live in a temporary folder."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import dlmdecode
from dlmdecode.evals.encoding import Encoder
from dlmdecode.evals.lm_eval_options import fit, read_settings
from dlmdecode.likelihood import windows
from dlmdecode.models.loading import EMBEDDED
from dlmdecode.models.protocol import Denoiser

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own

VOCABULARY = [*"abcdefgh ", "<mask>", "<eos>"]
MASK, EOS = 9, 10
QUESTION = (
    "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many apples does Tom have now?"
)


class Letters:
    """A tokenizer of single characters."""

    name_or_path, chat_template, bos_token_id, added_tokens_decoder = "letters", None, None, {}

    def __call__(self, text, add_special_tokens=False, verbose=True):
        return {"input_ids": [VOCABULARY.index(letter) for letter in text]}

    def decode(self, ids, skip_special_tokens=True):
        return "".join(VOCABULARY[i] for i in ids if i < MASK)

    def convert_tokens_to_ids(self, tokens):
        return [VOCABULARY.index(token) for token in tokens]


class Alphabet(Denoiser):
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
    from dlmdecode.evals.lm_eval import DiffusionLM

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


def test_the_likelihood_is_guided_as_generate_is(build):
    """Behind "bcd" comes "efg", behind masks "def": each logit is u + (1 + scale)(z − u)."""
    low, high = math.log(0.1 / 10), math.log(0.9)
    scale, others = 0.5, len(VOCABULARY) - 2
    right = low + (1 + scale) * (high - low)
    wrong = high + (1 + scale) * (low - high)
    expected = right - math.log(math.exp(right) + math.exp(wrong) + others * math.exp(low))
    pair = [request("bcd", "efg")]
    guided = build(cfg_scale=scale).loglikelihood(pair, disable_tqdm=True)
    assert guided[0] == (pytest.approx(3 * expected, abs=1e-4), True)
    assert guided[0][0] != pytest.approx(build().loglikelihood(pair, disable_tqdm=True)[0][0])
    with pytest.raises(ValueError, match="negative_prompt='a': a likelihood"):
        build(cfg_scale=scale, negative_prompt="a").loglikelihood(pair, disable_tqdm=True)


def test_the_likelihood_does_not_depend_on_the_batch_size(build):
    values = [
        build(batch_size=n).loglikelihood([request("ab", "cdf")], disable_tqdm=True)[0][0]
        for n in (1, 3, 16)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


def test_greedy_is_said_only_where_it_was_checked(build):
    pairs = [request("abc", "def"), request("abc", "dea")]
    checked = build().loglikelihood(pairs, disable_tqdm=True)
    assert [greedy for _, greedy in checked] == [True, False]
    unchecked = build(is_check_greedy=False).loglikelihood(pairs, disable_tqdm=True)
    assert [greedy for _, greedy in unchecked] == [False, False]


def test_windows_score_every_token_once_with_all_the_context_that_fits():
    ids = list(range(30))

    def last(ids, room):
        return ids[len(ids) - room :]

    assert list(windows(ids[:3], ids[3:9], 9, last)) == [(ids[:3], ids[3:9])]
    assert list(windows(ids[:3], ids[3:9], 8, last)) == [(ids[1:3], ids[3:9])]
    assert list(windows([], ids[:10], 10, last)) == [([], ids[:10])]
    assert list(windows([], ids[:22], 10, last)) == [
        ([], ids[:10]),
        (ids[9:10], ids[10:19]),
        (ids[12:19], ids[19:22]),
    ]
    assert list(windows(ids[:3], ids[3:], None, last)) == [(ids[:3], ids[3:])]
    assert list(windows(ids[:3], [], 10, last)) == []


def test_a_text_longer_than_the_model_is_scored_whole(build):
    text = ("abcdefgh" * 10)[:70]  # the model has 64 positions
    model = build()
    right = pytest.approx(70 * math.log(0.9), rel=1e-3)
    assert model.loglikelihood_rolling([request(text)], disable_tqdm=True) == [right]
    long, short = model.loglikelihood([request("h", text), request("h", "abc")], disable_tqdm=True)
    assert long == (right, True)
    assert short == (pytest.approx(3 * math.log(0.9), rel=1e-3), True)
    assert model.get_model_info()["texts_scored_in_windows"] == 2


def test_generated_text_is_cut_at_the_stop_strings(build):
    model = build(max_new_tokens=8, block_length=8)
    settings = {"until": ["f", "zz"]}
    assert model.generate_until([request("abc", settings)], disable_tqdm=True) == ["de"]
    whole = build(max_new_tokens=8, block_length=8, escape_until=True)
    assert whole.generate_until([request("abc", settings)], disable_tqdm=True) == ["defghabc"]


def test_requests_with_the_same_settings_share_an_engine(build, monkeypatch):
    runs, original = [], dlmdecode.Engine.run

    def spy(engine, prompts):
        runs.append([len(row) for row in prompts])
        return original(engine, prompts)

    monkeypatch.setattr(dlmdecode.Engine, "run", spy)
    lengths = [(1, 2), (3, 4), (2, 4), (1, 4), (2, 2), (4, 4), (5, 4)]
    requests = [request("abcdefgh"[:n], {"max_gen_toks": new}) for n, new in lengths]
    model = build(batch_size=4, block_length=4)
    texts = model.generate_until(requests, disable_tqdm=True)
    assert texts == ["abcdefghabcdefgh"[n:][:new] for n, new in lengths]
    assert sorted(runs) == [[1, 2], [3, 2, 1, 4, 5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": True}, "never run"),
        ({"trust_remote_code": "False"}, "trust_remote_code='False': give True or False"),
        ({"is_check_greedy": 1}, "is_check_greedy=1: give True or False"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"max_batch_size": 4}, "max_batch_size=4: it goes with batch_size=auto only"),
        ({"batch_size": "auto", "max_batch_size": 0}, "max_batch_size=0"),
        ({"add_bos_token": True}, "add_bos_token=True: the tokenizer has no BOS token"),
        ({"add_bos_token": "yes"}, "add_bos_token='yes': give True or False"),
        ({"max_length": 65}, "max_length=65: the model has 64 positions"),
        ({"max_length": "32"}, "max_length='32': give a whole number"),
        ({"mc_num": 0}, "mc_num=0"),
        ({"mc_num": 8.0}, "mc_num=8.0"),
        ({"seed": "x"}, "seed='x'"),
        ({"steps": 0}, "steps=0"),
        ({"cache": "all"}, "cache='all'"),
        ({"device": "cpu"}, "a model that is loaded has its own"),
        ({"sampler": "nothing"}, "unknown sampler 'nothing'"),
        ({"gen_length": 8, "max_new_tokens": 9}, "give one"),
    ],
)
def test_wrong_model_arguments_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_an_unknown_model_argument_is_named_at_once(build):
    with pytest.raises(TypeError, match="'treshold'.*did you mean 'threshold'"):
        build(treshold=0.5)
    with pytest.raises(TypeError, match="'parallelize'.*beside those of generate: pretrained, "):
        build(parallelize=True)


def test_options_of_the_sampler_stand_in_its_text_or_beside_it(build):
    written = build(sampler="entropy_bound+credit,credit.gamma=0.3,max_new_tokens=8,block_length=8")
    beside = {"credit.gamma": 0.3, "max_new_tokens": 8, "block_length": "8"}
    given = build(sampler="entropy_bound+credit", **beside)
    assert written.get_model_info() == given.get_model_info()
    assert written.generate_until([request("abc", {})], disable_tqdm=True) == ["defghabc"]
    assert build(block_length="none").options == {"block_length": None}
    with pytest.raises(ValueError, match="threshold=0.5: the sampler's text says threshold=0.3"):
        build(sampler="threshold,threshold=0.3", threshold=0.5)
    with pytest.raises(ValueError, match="give entropy_bound.gamma or credit.gamma"):
        build(sampler="entropy_bound+credit", gamma=0.3)


# ---- text and tokens ----

BOS = "<|endoftext|>"


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory):
    """Loads `tiny` with a tokenizer that puts a BOS before a text, and one of two templates."""
    template = {"TemplateProcessing": [{"SpecialToken": {"id": BOS, "type_id": 0}},
                                       {"Sequence": {"id": "A", "type_id": 0}}]}  # fmt: skip
    loaded = {}

    def load(chat_template):
        if chat_template not in loaded:
            folder = tmp_path_factory.mktemp("bos") / "model"
            shutil.copytree(EMBEDDED["tiny"], folder)
            content = json.loads((folder / "tokenizer.json").read_text())
            content["post_processor"] = {
                "type": "TemplateProcessing",
                "single": template["TemplateProcessing"],
                "pair": [*template["TemplateProcessing"], {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {BOS: {"id": BOS, "ids": [0], "tokens": [BOS]}},
            }
            (folder / "tokenizer.json").write_text(json.dumps(content))
            config = json.loads((folder / "tokenizer_config.json").read_text())
            config["bos_token"] = BOS
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "chat_template.jinja").write_text(chat_template)
            loaded[chat_template] = dlmdecode.load(folder)
        return loaded[chat_template]

    return load


TEMPLATES = {
    "with BOS": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "without": "User: {% for m in messages %}{{ m['content'] }}{% endfor %}",
}


def seen(model, requests, monkeypatch, kind="generate_until"):
    """The ids that stand at the beginning of what the model decodes or scores."""
    prompts = []
    original = dlmdecode.Engine.run

    def spy(engine, rows):
        prompts.extend(row.tolist() for row in rows)
        return original(engine, rows)

    def bound(likelihood, context, target):
        prompts.append([*context, *target])
        return -1.0

    monkeypatch.setattr(dlmdecode.Engine, "run", spy)
    monkeypatch.setattr(type(model.likelihood), "bound", bound)
    getattr(model, kind)(requests, disable_tqdm=True)
    return prompts


@pytest.mark.parametrize("add", [None, True, False])
def test_every_kind_of_request_has_the_same_special_tokens_before_it(with_bos, monkeypatch, add):
    from dlmdecode.evals.lm_eval import DiffusionLM

    loaded = with_bos(TEMPLATES["with BOS"])
    plain = loaded.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    expected = plain if add is False else [0, *plain]
    model = DiffusionLM(loaded, add_bos_token=add, max_new_tokens=4, is_check_greedy=False)
    generated = [request(QUESTION, {}), request(BOS + QUESTION, {})]
    assert seen(model, generated, monkeypatch) == [expected, [0, *plain]]
    pairs = [request(QUESTION[:20], QUESTION[20:]), request("", QUESTION)]
    assert seen(model, pairs, monkeypatch, "loglikelihood") == [expected] * 2
    rolling = [request(QUESTION), request(BOS + QUESTION)]
    found = seen(model, rolling, monkeypatch, "loglikelihood_rolling")
    assert found == [expected, [0, *plain]]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_rendered_conversation_has_the_tokens_that_generate_gives_it(
    with_bos, monkeypatch, template
):
    from dlmdecode.evals.lm_eval import DiffusionLM

    loaded = with_bos(TEMPLATES[template])
    model = DiffusionLM(loaded, max_new_tokens=4, is_check_greedy=False)
    messages = [{"role": "user", "content": QUESTION}]
    text = model.apply_chat_template(messages)
    out = dlmdecode.generate(loaded, messages, max_new_tokens=4)
    expected = out.sequences[0, : out.prompt_lengths[0]].tolist()
    assert seen(model, [request(text, {})], monkeypatch) == [expected]
    scored = seen(model, [request(text, " Tom")], monkeypatch, "loglikelihood")
    assert scored[0][: len(expected)] == expected
    assert expected.count(0) == (template == "with BOS")


def test_a_shortened_prompt_keeps_its_bos(with_bos):
    encoder = Encoder(with_bos(TEMPLATES["with BOS"]))
    ids = encoder.prompt(QUESTION)
    assert encoder.shorten(ids, 5) == [0, *ids[-4:]]
    assert encoder.shorten(ids, len(ids)) == ids
    assert encoder.shorten(ids[1:], 5) == ids[-5:]


@pytest.fixture(scope="module")
def tiny():
    return dlmdecode.load("tiny")


def test_what_is_scored_begins_with_the_token_that_straddles_the_border(tiny):
    encoder = Encoder(tiny)

    def texts(context, continuation):
        return [tiny.tokenizer.decode(ids) for ids in encoder.pair(context, continuation)]

    assert texts("Tom has 12 app", "les") == ["Tom has 12", " apples"]
    assert texts("Tom has 12 app", "zzz") == ["Tom has 12 app", "zzz"]
    assert texts("Tom has 12", " apples.") == ["Tom has 12", " apples."]
    assert texts("Tom has ", "12") == ["Tom has", " 12"]
    assert texts("Tom has", "") == ["Tom has", ""]
    assert texts("", "Tom has") == ["", "Tom has"]
    assert texts("  ", "Tom") == ["", "  Tom"]


def test_a_continuation_that_merges_into_its_context_is_not_certain(tiny):
    from dlmdecode.evals.lm_eval import DiffusionLM

    model = DiffusionLM(tiny, mc_num=16)
    pairs = [request("Tom has 12 app", end) for end in ("les", "zzz")]
    merged, other = model.loglikelihood(pairs, disable_tqdm=True)
    alone = model.loglikelihood([request("Tom has 12", " apples")], disable_tqdm=True)[0]
    assert merged == alone and other[0] < merged[0] < 0


@pytest.mark.parametrize("name", ["tiny", "tiny-dream"])
def test_a_text_has_the_same_bound_with_an_empty_context_and_rolling(name):
    from dlmdecode.evals.lm_eval import DiffusionLM

    model = DiffusionLM(name, mc_num=16)
    value, _ = model.loglikelihood([request("", "Tom has 12")], disable_tqdm=True)[0]
    for rolling in (request("Tom has 12"), request("", "Tom has 12")):  # harness 0.4 and 0.5
        (answer,) = model.loglikelihood_rolling([rolling], disable_tqdm=True)
        assert answer == (value if len(rolling.args) == 1 else (value, False))
    # a state of tiny-dream speaks for the next token, so its first one needs one before it
    assert model.encoder.pair("", "Tom")[0] == ([] if name == "tiny" else [0])
    assert value < 0


def test_the_mask_spelled_out_in_a_text_is_text(tiny):
    from dlmdecode.evals.lm_eval import DiffusionLM

    text = f"{QUESTION} <|mask|>"
    ids = Encoder(tiny).prompt(text)
    assert tiny.mask_id not in ids and tiny.tokenizer.decode(ids) == text
    model = DiffusionLM(tiny, mc_num=4, max_new_tokens=8)
    assert len(model.generate_until([request(text, {})], disable_tqdm=True)) == 1
    assert model.loglikelihood([request(text, text)], disable_tqdm=True)[0][0] < 0


# ---- generation ----


def test_one_long_prompt_loses_its_beginning_and_leaves_the_others_alone(tiny, monkeypatch, caplog):
    from dlmdecode.evals.lm_eval import DiffusionLM

    model = DiffusionLM(tiny, max_new_tokens=32, batch_size=2)
    requests = [request(QUESTION, {}), request(QUESTION * 30, {})]
    short, _ = model.generate_until(requests, disable_tqdm=True)
    assert short == dlmdecode.generate(tiny, QUESTION, max_new_tokens=32).texts[0]
    whole = tiny.tokenizer(QUESTION * 30)["input_ids"]
    assert seen(model, requests, monkeypatch)[1] == whole[-(512 - 32) :]
    assert "1 shortened prompts" in caplog.text
    assert model.get_model_info()["shortened_prompts"] == 2  # of both calls


@pytest.mark.parametrize(
    ("options", "prompt", "expected", "room"),
    [
        ({"max_new_tokens": 32}, 100, {"max_new_tokens": 32}, 480),
        ({"max_new_tokens": 32}, 750, {"max_new_tokens": 32}, 480),
        ({"max_new_tokens": 4096}, 100, {"max_new_tokens": 412}, 100),
        ({"max_new_tokens": 4096}, 750, {"max_new_tokens": 256}, 256),
        ({}, 500, {"max_new_tokens": 256}, 256),
        (
            {"max_new_tokens": 600, "block_length": 100, "steps": 300},
            200,
            {"max_new_tokens": 312, "block_length": 100, "steps": 156},
            200,
        ),
        (
            {"max_new_tokens": 16, "block_length": 32},
            10,
            {"max_new_tokens": 16, "block_length": 16},
            496,
        ),
    ],
)
def test_prompt_and_text_share_the_window(options, prompt, expected, room):
    assert fit(options, prompt, 512) == (expected, room)


def test_a_model_without_limit_cuts_nothing():
    assert fit({"max_new_tokens": 4096}, 9000, None) == ({"max_new_tokens": 4096}, 9000)


def test_a_length_beyond_the_model_is_cut_and_counted(build):
    model = build(block_length=8, max_length=32)
    (text,) = model.generate_until([request("abc", {"max_gen_toks": 1000})], disable_tqdm=True)
    assert text == ("defghabc" * 4)[: 32 - 3]
    assert model.get_model_info()["cut_max_gen_toks"] == 1


def test_a_batch_that_memory_has_no_room_for_is_halved(build):
    class Small(Alphabet):
        """Holds three rows."""

        def encode(self, tokens, position, attend=None, cache=None):
            if len(tokens) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super().encode(tokens, position, attend, cache)

    from dlmdecode.evals.lm_eval import DiffusionLM

    model = DiffusionLM(Small(), batch_size="auto:2", max_batch_size=16, mc_num=16)
    requests = [request("abcdefgh"[k : k + 1], {"max_gen_toks": 8}) for k in range(8)]
    assert model.generate_until(requests, disable_tqdm=True) == build(batch_size=1).generate_until(
        requests, disable_tqdm=True
    )
    assert model.batch_sizes == {"auto": 2}
    pair = [request("ab", "cdf")]
    assert model.loglikelihood(pair) == [
        (pytest.approx(build().loglikelihood(pair)[0][0], rel=1e-6), False)
    ]
    with pytest.raises(torch.OutOfMemoryError):
        DiffusionLM(Small(), batch_size=4, mc_num=16).loglikelihood(pair)


def test_repeats_of_a_sampled_request_are_different_samples(build, monkeypatch):
    model = build()
    monkeypatch.setattr(model.model, "trust", 0.2)
    settings = {"max_gen_toks": 16, "do_sample": True, "temperature": 1.0}
    texts = model.generate_until([request("abcd", settings)] * 6, disable_tqdm=True)
    assert len(set(texts)) == 6
    again = build(batch_size=4)
    monkeypatch.setattr(again.model, "trust", 0.2)
    assert again.generate_until([request("abcd", settings)] * 6, disable_tqdm=True) == texts


@pytest.mark.parametrize(
    ("settings", "options", "stops"),
    [
        ({"until": "x", "max_gen_toks": 8}, {"max_new_tokens": 8}, ("x",)),
        ({"until": None, "max_tokens": 8, "max_gen_toks": 9}, {"max_new_tokens": 9}, ()),
        ({"until": ["x", ""], "do_sample": False, "temperature": 0.7}, {}, ("x",)),
        ({"temperature": 0.7}, {"temperature": 0.7}, ()),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9},
         {"temperature": 0.7, "top_p": 0.9}, ()),
        ({"do_sample": False, "top_p": 0.9, "top_k": 5, "num_beams": 1}, {}, ()),
        ({"gen_length": 4, "threshold": 0.5}, {"max_new_tokens": 4, "threshold": 0.5}, ()),
    ],
)  # fmt: skip
def test_generation_settings_of_tasks_are_read(settings, options, stops):
    assert read_settings(settings) == (options, stops)


def test_settings_that_cannot_be_followed_are_refused_before_any_forward(build):
    model = build()
    model.model.encode = lambda *args: pytest.fail("a forward was made")
    for settings, message in [
        ({"until": 3}, "until=3"),
        ({"until": ["a", 3]}, "until="),
        ({"max_gen_toks": "8"}, "max_new_tokens='8'"),
        ({"temperature": 1.0, "typical_p": 0.9}, "'typical_p'"),
        ({"num_beams": 4}, "'num_beams'"),
        ({"threshold": "high"}, "threshold"),
    ]:
        good = request("abc", {"max_gen_toks": 8})
        with pytest.raises((ValueError, TypeError), match=message):
            model.generate_until([good, request("abc", settings)], disable_tqdm=True)


def test_a_stop_that_is_a_special_token_ends_the_text(tiny):
    from dlmdecode.evals.lm_eval import DiffusionLM

    model = DiffusionLM(tiny, max_new_tokens=8)
    ids = tiny.tokenizer("Tom has", add_special_tokens=False)["input_ids"]
    assert model.encoder.decode([*ids, 1, *ids], ["<|mask|>"]) == "Tom has"
    assert model.encoder.decode([*ids, 1, *ids], []) == "Tom hasTom has"
    assert model.encoder.decode(ids, ["<|mask|>", " "]) == "Tom"


def test_every_answer_goes_to_the_cache_of_the_harness(build):
    model, kept = build(), []
    model.cache_hook = SimpleNamespace(add_partial=lambda kind, args, answer: kept.append(kind))
    model.generate_until([request("abc", {"max_gen_toks": 8})], disable_tqdm=True)
    model.loglikelihood([request("abc", "d")], disable_tqdm=True)
    model.loglikelihood_rolling([request("abc")], disable_tqdm=True)
    assert kept == ["generate_until", "loglikelihood", "loglikelihood_rolling"]


def test_a_missing_or_unknown_chat_template_is_named(build, tiny):
    with pytest.raises(ValueError, match="apply_chat_template=True: the tokenizer has no"):
        build().chat_template(True)
    encoder = Encoder(tiny)
    assert encoder.choose_template(False) == ""
    assert encoder.choose_template(True) == tiny.tokenizer.chat_template
    with pytest.raises(ValueError, match="'tools': the tokenizer has one template, without a name"):
        encoder.choose_template("tools")


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


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The folder with the tasks."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    rows = [("abc", "defg", "dehg"), ("bcd", "efg", "eff"), ("cd", "efg", "aaa"), ("d", "x", "ee")]
    data.write_text("".join(json.dumps({"question": q, "answer": a, "wrong": w}) + "\n"
                            for q, a, w in rows[:3]))  # fmt: skip
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    return tmp_path


def evaluated(model, tasks):
    import lm_eval
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model=model,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )


def test_the_harness_runs_local_tasks(build, tasks):
    answer = evaluated(build(batch_size="auto", block_length=8), tasks)
    found, config = answer["results"], answer["config"]
    assert config["sampler"] == "threshold" and config["batch_sizes"] == [64]
    assert config["shortened_prompts"] == 0
    assert found["letters_generate"]["exact_match,none"] == 1.0
    assert found["letters_choice"]["acc,none"] == 1.0


PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from test_evals_lm_eval import *
from dlmdecode.evals.lm_eval import DiffusionLM

model = DiffusionLM(Alphabet(), mc_num=16, block_length=8)
calls = []
model.cache_hook = SimpleNamespace(add_partial=lambda kind, args, answer: calls.append(kind))
answer = evaluated(model, {tasks!r})
print(model.rank, len(calls), answer and [
    float(answer["results"]["letters_generate"]["exact_match,none"]),
    float(answer["results"]["letters_choice"]["acc,none"]),
    len(answer["samples"]["letters_choice"]),
])
"""


def test_processes_share_the_requests(tasks):
    script = tasks / "process.py"
    script.write_text(PROCESS.format(tests=str(Path(__file__).parent), tasks=str(tasks)))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run([*run, str(script)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    # three documents, padded to two for each process; two choices each
    assert sorted(found.stdout.splitlines()) == ["0 6 [1.0, 1.0, 3]", "1 6 None"]


def test_the_command_line_knows_the_model():
    """The harness's own parser, with this package's model among its models."""
    code = (
        "import dlmdecode.evals.lm_eval\nfrom lm_eval.api.registry import get_model\n"
        "print(get_model('dlmdecode').__name__)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip().endswith("DiffusionLM"), found.stderr


def test_own_stop_strings_end_texts_and_what_has_no_effect_is_refused(tiny):
    from dlmdecode.evals.lm_eval import DiffusionLM

    asked = request("Tom has 12 apples. He buys 7 more. How many apples does Tom have?", {})
    whole = DiffusionLM(tiny).generate_until([asked], disable_tqdm=True)[0]
    stop = whole[len(whole) // 2 :][:3]
    cut = DiffusionLM(tiny, stop_strings=stop).generate_until([asked], disable_tqdm=True)[0]
    assert cut == whole[: whole.index(stop)]
    with pytest.raises(ValueError, match="^num_return_sequences=2"):
        DiffusionLM(tiny, num_return_sequences=2, temperature=1.0)
    with pytest.raises(ValueError, match="^seed=3"):
        DiffusionLM(tiny).generate_until([request("w1", {"seed": 3})], disable_tqdm=True)
