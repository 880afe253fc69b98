"""Training of the embedded models: tokenizer, objectives and resumable runs, on micro models."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlmdecode.evals.arithmetic import LARGEST, problem
from dlmdecode.models import loading
from training import ar, block, carry, dlm, masks
from training.data import Batches, examples, texts
from training.evaluate import MODELS, STRANGERS, answerer, grade, strangers
from training.export import export
from training.initial import initial_weights
from training.loop import Run, compiled
from training.muon import Muon
from training.tokenizer import train_tokenizer

CONFIGS = Path(__file__).parent.parent / "training" / "configs"
MICRO = {
    "check_every": 100,
    "check_problems": 2,
    "batch": 8,
    "steps": 12,
    "minutes": None,
    "compile": False,
}
SIZES = {
    "tiny": {"d_model": 32, "n_heads": 2, "n_kv_heads": 2, "n_layers": 1, "mlp_hidden_size": 48},
    "tiny-ar": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}
SIZES["tiny-dream"] = SIZES["tiny-ar"]
SIZES["tiny-block"] = SIZES["tiny-ar"] | {"head_dim": 16}
OBJECTIVES = {
    "tiny": dlm.MaskedDiffusion,
    "tiny-ar": ar.NextToken,
    "tiny-dream": dlm.MaskedDiffusion,
    "tiny-block": block.BlockDiffusion,
}
EMBEDDED = [name for name in OBJECTIVES if (MODELS / name).is_dir()]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Micro models spend their time waiting for each other's threads otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(num_problems=3000)


@pytest.fixture
def micro(tokenizer, tmp_path):
    """`micro(name)` is the shipped configuration of that model, shrunk, with its tokenizer."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def make(name):
        config = json.loads((CONFIGS / f"{name}.json").read_text()) | MICRO
        model = config["model"] | SIZES[name]
        config.pop("initial", None)
        return config | {"model": model, "tokenizer": str(tmp_path / "tokenizer")}

    return make


@pytest.mark.parametrize("shape", [(16, 16), (40, 16), (16, 40)])
def test_muon_steps_as_that_of_torch_but_for_bfloat16(shape):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    pairs = [
        (ours, Muon([ours], lr=0.02, weight_decay=0.01)),
        (
            theirs,
            torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        ),
    ]
    for _ in range(20):
        gradient = torch.randn(shape, generator=generator)
        for weight, optimizer in pairs:
            weight.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - 1).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_single_tokens_and_words_are_whole(tokenizer):
    assert len(tokenizer("1234").input_ids) == 4
    assert not any(sum(map(str.isdigit, token)) > 1 for token in tokenizer.get_vocab())
    p = problem(0)
    words = tokenizer.convert_ids_to_tokens(tokenizer(p.solution).input_ids)
    assert "".join(words).replace("Ġ", " ") == p.solution
    assert words[:7] == ["ĠAdd", "Ġ1", "1", ":", "Ġ1", "4", "Ġ+"]


def test_a_chat_of_one_message_is_the_bare_question(tokenizer):
    question = problem(1).question
    chat = [{"role": "user", "content": question}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        question
    )


def test_problems_fit_the_lengths_that_the_models_are_trained_for(tokenizer):
    drawn = examples(tokenizer, 0, 2000)
    assert max(len(example.answer) for example in drawn) <= 128
    assert max(map(len, drawn)) <= 260
    assert 70 <= sum(map(len, drawn)) / len(drawn) <= 95


def test_a_curriculum_begins_with_short_problems(tokenizer):
    batches = Batches(tokenizer, 8, group=2, curriculum=((0, 2), (2, 6)))
    early, late = (max(map(len, batches[i] + batches[i + 1])) for i in (0, 2))
    assert early < late


def test_one_text_in_five_is_a_function():
    drawn = [question for question, _ in texts(0, 20)]
    assert [question.startswith("def ") for question in drawn] == [True, *[False] * 4] * 4


def test_answers_end_in_one_end_token_and_join_with_the_question(tokenizer):
    pair, example = texts(4, 1)[0], examples(tokenizer, 4, 1)[0]
    whole = tokenizer("".join(pair)).input_ids
    assert example.question + example.answer == [*whole, tokenizer.eos_token_id]


def test_batches_depend_on_seed_and_step_only(tokenizer):
    batches = Batches(tokenizer, 4, seed=3, group=2)
    first = [batches[step] for step in range(4)]
    assert [Batches(tokenizer, 4, seed=3, group=2)[step] for step in (3, 0)] == [first[3], first[0]]
    assert first[0] != first[1] != first[2]
    assert Batches(tokenizer, 4, seed=4, group=2)[0] != first[0]


def test_uniform_masks_come_in_complementary_pairs_and_spare_the_question():
    start = torch.tensor([[3], [3], [5], [5], [2], [2]])
    place = torch.arange(40)
    masked, weight = masks.uniform_masks(place, start, torch.Generator().manual_seed(0))
    answer = place >= start
    assert torch.equal(masked[0::2] ^ masked[1::2], answer[0::2])
    assert not (masked & ~answer).any()
    share = 1 / weight[:, 0]
    torch.testing.assert_close(share[0::2] + share[1::2], torch.ones(3))


def test_block_masks_hide_everything_right_of_the_block_and_ask_for_the_block():
    start = torch.tensor([[3], [5], [2], [4]] * 8)
    place, stop = torch.arange(60), start + 30
    generator = torch.Generator().manual_seed(0)
    last = torch.rand(len(start), len(place), generator=generator) < 0.5
    masked, weight = masks.block_masks(place, start, stop, last, generator)
    for hidden, weights in zip(masked, weight, strict=True):
        asked = weights.nonzero().flatten()
        lo, hi = asked[0], asked[-1] + 1
        assert hidden[hi:].all() and not hidden[:lo].any()
    assert not (masked & (place < start)).any()


def test_what_is_written_last_is_masked_more_in_a_block_and_weighs_the_same_in_expectation():
    start, place = torch.full((3000, 1), 2), torch.arange(40)
    last = place.expand(3000, -1) % 2 == 0
    generator = torch.Generator().manual_seed(0)
    masked, weight = masks.block_masks(place, start, start + 30, last, generator)
    inside = weight > 0
    assert masked[inside & last].float().mean() > 1.7 * masked[inside & ~last].float().mean()
    shares = [weight[masked & inside & kind].sum() for kind in (last, ~last)]
    torch.testing.assert_close(shares[0], shares[1], rtol=0.15, atol=0.0)


@pytest.mark.parametrize("shift", [0, 1])
def test_in_two_streams_a_position_sees_the_true_text_left_of_its_block_and_no_more(shift):
    """Visible from a noised token: clean tokens left of its block, and noised ones of its block."""
    tokens = torch.arange(20).repeat(16, 1) + 100
    start, stop = torch.tensor([[4], [6]] * 8), torch.tensor([[18], [15]] * 8)
    generator = torch.Generator().manual_seed(0)
    shown, position, attend, asked = masks.two_streams(tokens, start, stop, 1, generator, shift)
    first = 4 - shift
    assert position[0].tolist() == [*range(20), *range(first, 20)]
    noised = shown[:, 20:]
    for row in range(16):
        for i in range(first, 20):
            sees = attend[row, 0, 20 + i - first]
            clean, own = sees[:20].nonzero().flatten(), first + sees[20:].nonzero().flatten()
            assert i in own
            if start[row] <= i + shift < stop[row]:
                assert clean.tolist() == list(range(own[0]))
                assert start[row] <= own[0] + shift and own[-1] + shift < stop[row]
                told = [*tokens[row, clean], *noised[row, own - first]]
                assert not asked[row, i] or 100 + i + shift not in told
    for row, at in (noised == 1).nonzero():
        assert asked[row, first + at - shift]
    assert shift or torch.equal(noised == 1, asked[:, first:])
    assert torch.equal(attend[0, 0, :20, :20], torch.ones(20, 20).tril().bool())
    assert not attend[:, 0, :20, 20:].any()


def test_what_two_streams_predict_does_not_depend_on_the_answer_to_come(micro, tokenizer):
    objective = dlm.MaskedDiffusion(micro("tiny"), tokenizer)
    model = objective.build()
    batch = examples(tokenizer, 0, 4)
    tokens, start, stop = masks.canvases(batch, 240, tokenizer.eos_token_id)
    other = tokens.clone()
    other[:, 120:] = 7

    def predict(text):
        generator = torch.Generator().manual_seed(0)
        shown, position, attend, asked = masks.two_streams(
            text, start, stop, objective.mask, generator, 0
        )
        first = 480 - shown.shape[1]
        return model.encode(shown, position, attend)[:, 240:], asked[:, first:], first

    (mine, asked, first), (theirs, _, _) = predict(tokens), predict(other)
    before = asked & (torch.arange(first, 240) < 120 - 16)
    assert before.any()
    torch.testing.assert_close(mine[before], theirs[before])


def test_the_weights_of_canvas_steps_average_to_one_per_token(micro, tokenizer):
    """With zero logits every token costs log V, and the weights must average to one per token."""
    config = micro("tiny") | {"tail_weight": 0.0, "batch": 32, "streams": [[0, 0]]}
    objective = dlm.MaskedDiffusion(config, tokenizer)
    model = objective.build()
    torch.nn.init.zeros_(model.parts["ff_out"].weight)
    batches = Batches(tokenizer, 32)
    with torch.no_grad():
        losses = [objective.loss(model, batches[step], step).item() for step in range(20)]
    mean = sum(losses) / len(losses) / torch.tensor(config["model"]["vocab_size"]).log().item()
    assert 0.8 < mean < 1.2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_falls_and_a_resumed_run_equals_an_uninterrupted_one(
    name, micro, tokenizer, tmp_path
):
    config = micro(name) | {"warmup": 2, "lr": 0.005}
    if "streams" in config:
        config["streams"] = [[0, 0], [4, 2]]

    def start(folder):
        return Run(OBJECTIVES[name](config, tokenizer), config, tokenizer, tmp_path / folder)

    whole, first = start("whole"), start("halves")
    losses = [whole.train_step() for _ in range(12)]
    again = whole.objective.loss(whole.model, whole.batches[0], 0)  # the same texts and masks
    assert float(again.detach()) < losses[0]
    halves = [first.train_step() for _ in range(6)]
    first.save()
    second = start("halves")
    assert second.step == 6
    assert halves + [second.train_step() for _ in range(6)] == pytest.approx(losses, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at activations' too
@pytest.mark.parametrize("name", ["tiny-ar", "tiny-block"])  # stock layers, and ours
def test_compiled_layers_train_as_the_others_do(name, micro, tokenizer):
    """What a GPU runs, traced here and run without code generation."""
    objective = OBJECTIVES[name](micro(name), tokenizer)
    plain, traced = objective.build(), compiled(objective.build(), backend="aot_eager")
    assert plain.state_dict().keys() == traced.state_dict().keys()
    for step, first in enumerate((0, 4)):
        batch = examples(tokenizer, first, 4)
        losses = [objective.loss(model, batch, step) for model in (plain, traced)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
    for mine, theirs in zip(plain.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_two_processes_train_one_model(micro, tmp_path):
    """What one alone trains differs; the budget must be said in steps, which both count alike."""
    config = micro("tiny") | {"steps": 18, "check_every": 18}
    given = tmp_path / "config.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "--", "training.dlm", "--config", str(given), "--threads", "1", "--run"]

    def train(folder):
        given.write_text(json.dumps(config))
        root = CONFIGS.parent.parent
        return subprocess.run([*command, tmp_path / folder], cwd=root, capture_output=True)

    assert train("both").returncode == 0
    [entry] = (tmp_path / "both" / "log.jsonl").read_text().splitlines()
    assert json.loads(entry)["step"] == 18
    Run(
        dlm.MaskedDiffusion(
            config, tokenizer := AutoTokenizer.from_pretrained(config["tokenizer"])
        ),
        config,
        tokenizer,
        tmp_path / "alone",
    ).train()
    alone, both = (load_file(tmp_path / f / "best.safetensors") for f in ("alone", "both"))
    assert any(not torch.equal(alone[name], both[name]) for name in alone)
    config["minutes"] = 1
    assert b'say "steps"' in train("minutes").stderr


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_finished_run_exports_a_checkpoint_that_loads_and_answers(
    name, micro, tokenizer, tmp_path
):
    config = micro(name) | {"steps": 2, "check_every": 1}
    run = Run(OBJECTIVES[name](config, tokenizer), config, tokenizer, tmp_path / "run")
    run.train()
    assert run.progress == 1 and (tmp_path / "run" / "best.safetensors").is_file()
    export(config, tmp_path / "run", tmp_path / "model")
    if name != "tiny-ar":
        folder = tmp_path / "model"
        model = block.load(folder) if name == "tiny-block" else loading.load(folder, device="cpu")
        assert (model.mask_id, model.eos_ids) == (
            tokenizer.mask_token_id,
            (tokenizer.eos_token_id,),
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == (
            tokenizer.get_vocab()
        )
    assert next(model.parameters()).dtype == torch.float32
    graded = grade(answerer(str(tmp_path / "model")), [problem(0), problem(1)], batch=2)
    assert [p for p, _, _ in graded] == [problem(0), problem(1)]
    assert not any(tokenizer.mask_token in text for _, text, _ in graded)


def test_a_dream_style_model_starts_as_the_verifier_it_comes_from(micro, tokenizer, tmp_path):
    """Under a causal mask, and before training, both give the same logits."""
    config = micro("tiny-ar") | {"steps": 1, "check_every": 1}
    Run(ar.NextToken(config, tokenizer), config, tokenizer, tmp_path / "run").train()
    export(config, tmp_path / "run", tmp_path / "verifier")
    verifier = AutoModelForCausalLM.from_pretrained(tmp_path / "verifier")
    config = micro("tiny-dream") | {"initial": str(tmp_path / "verifier")}
    dream = dlm.MaskedDiffusion(config, tokenizer).build()
    tokens = torch.tensor([tokenizer(problem(0).question).input_ids])
    place, causal = torch.arange(tokens.shape[1])[None], torch.ones(1, 1, *2 * tokens.shape[1:])
    with torch.inference_mode():
        logits = dream.head(dream.encode(tokens, place, causal.tril().bool()))
        torch.testing.assert_close(logits, verifier(tokens).logits, atol=1e-4, rtol=1e-4)


@pytest.fixture
def small(micro, tmp_path):
    """An untrained LLaDA of one layer with 600 tokens: its folder and its tokenizer."""
    few = train_tokenizer(num_problems=1000, vocab_size=600)
    few.save_pretrained(tmp_path / "few")
    config = micro("tiny") | {"steps": 1, "check_every": 1, "tokenizer": str(tmp_path / "few")}
    config["model"] |= {"vocab_size": 600, "embedding_size": 600}
    Run(dlm.MaskedDiffusion(config, few), config, few, tmp_path / "run").train()
    export(config, tmp_path / "run", tmp_path / "small")
    return tmp_path / "small", few


def test_a_deeper_model_starts_as_the_one_it_comes_from(small, micro, tokenizer):
    """A layer more is of no effect at first, and rows of the vocabulary follow their tokens."""
    folder, few = small
    config = micro("tiny") | {"initial": str(folder)}
    config["model"] |= {"n_layers": 2}
    first = loading.load(folder, device="cpu")
    second = dlm.MaskedDiffusion(config, tokenizer).build()
    tokens = [token for token in few.get_vocab() if token in tokenizer.get_vocab()]
    ours, theirs = (one.convert_tokens_to_ids(tokens) for one in (tokenizer, few))
    assert len(tokens) > 500 and ours != theirs
    with torch.inference_mode():
        logits = second(torch.tensor([ours[:50]]))[..., ours]
        torch.testing.assert_close(logits, first(torch.tensor([theirs[:50]]))[..., theirs])


@pytest.mark.parametrize("name", ["tiny-ar", "tiny-dream"])
def test_weights_of_another_architecture_are_refused(small, micro, tokenizer, name):
    config = micro(name) | {"initial": str(small[0])}
    with pytest.raises(ValueError, match="initial: its .* has no place in a"):
        OBJECTIVES[name](config, tokenizer).build()


@pytest.mark.parametrize("file", sorted(STRANGERS.parent.glob("strangers*.jsonl")))
def test_problems_of_strangers_are_numbers_to_find(file):
    problems = strangers(file)
    assert len(problems) >= 21 and len({p.question for p in problems}) == len(problems)
    assert all(0 < p.answer <= LARGEST and p.question.endswith("?") for p in problems)
    trained = {question for question, _ in texts(0, 5000)}
    assert not trained & {p.question for p in problems}


def test_a_new_token_begins_as_the_mean_of_those_that_spell_it(small, tokenizer):
    folder, few = small
    new = next(token for token in tokenizer.get_vocab() if token not in few.get_vocab())
    number = tokenizer.get_vocab()[new]
    name = "model.transformer.wte.weight"
    before = load_file(folder / "model.safetensors")[name].float()
    after = initial_weights(str(folder), tokenizer)[name]
    spelling = few(tokenizer.decode([number])).input_ids
    assert len(spelling) > 1 and len(after) == len(tokenizer)
    torch.testing.assert_close(after[number], before[spelling].mean(0))


def test_a_noised_block_sees_itself_and_the_clean_blocks_before_it():
    tokens = torch.arange(24).repeat(16, 1) + 100
    start, stop = torch.tensor([[6], [9]] * 8), torch.tensor([[18], [15]] * 8)
    generator = torch.Generator().manual_seed(0)
    last = tokens % 3 == 0
    streams = block.block_streams(tokens, start, stop, last, 1, 4, generator)
    shown, position, attend, weight = streams
    assert position[0].tolist() == [*range(24), *range(4, 24)]
    for i in range(24):
        assert attend[0, 0, i].nonzero().flatten().tolist() == [*range(i // 4 * 4 + 4)]
    for i in range(4, 24):
        sees = attend[0, 0, 24 + i - 4]
        lo = i // 4 * 4
        assert sees[:24].nonzero().flatten().tolist() == [*range(lo)]
        assert (4 + sees[24:].nonzero().flatten()).tolist() == [*range(lo, lo + 4)]
    noised = shown[:, 24:]
    assert torch.equal(noised == 1, weight > 0)
    for row, at in (noised == 1).nonzero():
        assert start[row] <= 4 + at < (stop[row] + 3) // 4 * 4
    assert torch.equal(shown[:, :24], tokens)


def test_a_block_model_sees_digits_masked_longest_too():
    tokens, start = torch.arange(24).repeat(2000, 1) + 100, torch.full((2000, 1), 8)
    last = tokens % 2 == 0
    generator = torch.Generator().manual_seed(0)
    weight = block.block_streams(tokens, start, start + 16, last, 1, 4, generator)[3]
    last = last[:, 8:]
    assert (weight[last] > 0).float().mean() > 1.4 * (weight[~last] > 0).float().mean()
    torch.testing.assert_close(weight[last].mean(), weight[~last].mean(), rtol=0.05, atol=0.0)


def test_the_weights_of_block_diffusion_average_to_one_per_token(micro, tokenizer):
    """With zero logits every token costs log V, and the weights must average to one per token."""
    config = micro("tiny-block")
    objective = block.BlockDiffusion(config, tokenizer)
    model = objective.build()
    torch.nn.init.zeros_(model.lm_head.weight)
    batches = Batches(tokenizer, 32)
    with torch.no_grad():
        losses = [objective.loss(model, batches[step], step).item() for step in range(20)]
    mean = sum(losses) / len(losses) / torch.tensor(config["model"]["vocab_size"]).log().item()
    assert 0.9 < mean < 1.1


def test_a_block_model_is_what_its_blocks_say_one_after_the_other(micro, tokenizer):
    """Two streams give the logits of a pass over the clean blocks and one open block."""
    objective = block.BlockDiffusion(micro("tiny-block"), tokenizer)
    model, width = objective.build(), objective.block
    tokens = torch.randint(2, 900, (2, 4 * width), generator=torch.Generator().manual_seed(0))
    start, stop = torch.full((2, 1), width), torch.full((2, 1), 4 * width)
    generator = torch.Generator().manual_seed(1)
    shown, position, attend, _ = block.block_streams(
        tokens, start, stop, tokens % 2 == 0, objective.mask, width, generator
    )
    with torch.inference_mode():
        both = model.head(model.encode(shown, position, attend))[:, 4 * width :]
        for lo in range(width, 4 * width, width):
            opened = shown[:, 4 * width + lo - width : 4 * width + lo]
            alone = model(torch.cat([tokens[:, :lo], opened], 1))[:, lo:]
            torch.testing.assert_close(both[:, lo - width : lo], alone, atol=1e-5, rtol=1e-5)


def test_a_block_model_starts_with_the_weights_of_a_llada(micro, tokenizer, tmp_path):
    """All of them under other names, and attention as sharp as it was."""
    config = micro("tiny") | {"steps": 1, "check_every": 1}
    Run(dlm.MaskedDiffusion(config, tokenizer), config, tokenizer, tmp_path / "run").train()
    export(config, tmp_path / "run", tmp_path / "model")
    llada = loading.load(tmp_path / "model", device="cpu")
    config = micro("tiny-block") | {"initial": str(tmp_path / "model")}
    model = block.BlockDiffusion(config, tokenizer).build()
    ours = {block.qwen_name(name) for name in llada.state_dict()}
    theirs = {name for name in model.state_dict() if "q_norm" not in name and "k_norm" not in name}
    assert ours == theirs
    x = torch.randn(4, 50, 32, generator=torch.Generator().manual_seed(0))
    for mine, other in zip(model.blocks, llada.blocks, strict=True):
        for new, old in zip(mine.qkv(x), other.qkv(x), strict=True):
            assert 0.8 < new.norm() / old.norm() < 1.25
            assert F.cosine_similarity(new.flatten(), old.flatten(), dim=0) > 0.9


def test_a_descendant_takes_a_share_of_what_its_ancestor_has_learned(tmp_path):
    """Weights that only the descendant has stay, and training can begin with what is written."""
    folder = str(MODELS / "tiny-block")
    onto, before = carry.weights_of(folder), carry.weights_of(str(MODELS / "tiny"))
    after = {name: weight + 1 for name, weight in before.items()}
    written = carry.carried(onto, before, after, 0.25)
    for name, weight in onto.items():
        torch.testing.assert_close(written[name], weight + 0.25 * (name in before))
    assert {name.split(".")[-2] for name in onto.keys() - before.keys()} == {"q_norm", "k_norm"}
    with pytest.raises(ValueError, match="--before and --after need the weights of one model"):
        carry.carried(before, onto, onto, 0.5)
    named = ["--onto", "tiny-block", "--before", "tiny", "--after", "tiny"]
    command = [sys.executable, "-m", "training.carry", *named, "--output", str(tmp_path)]
    subprocess.run(command, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    config = {"model": theirs, "initial": str(tmp_path), "seed": 0}
    model = block.BlockDiffusion(config, AutoTokenizer.from_pretrained(tmp_path)).build()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, onto[name])


def test_plain_decoding_fills_the_canvas_of_each_row_as_if_it_were_alone(micro, tokenizer):
    """Rows of different lengths; the shift of a Dream-style model is honoured."""
    questions = tokenizer([problem(seed).question for seed in (0, 1, 4)]).input_ids
    ways = {
        "tiny": partial(dlm.decode, block=8),
        "tiny-dream": partial(dlm.decode, block=8),
        "tiny-block": block.decode,
    }
    for name, decode in ways.items():
        model = OBJECTIVES[name](micro(name), tokenizer).build()
        with torch.inference_mode():
            together = decode(model, questions, canvas=16)
            alone = [decode(model, [q], canvas=16)[0] for q in questions]
        assert together == alone
        assert all(len(text) == 16 and tokenizer.mask_token_id not in text for text in together)


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_checkpoint_answers_held_out_problems(name):
    problems = [problem(seed, steps=1 + seed % 2) for seed in range(6)]
    right = [marked for _, _, marked in grade(answerer(name), problems, batch=6)]
    assert sum(right) >= 4


def test_the_embedded_checkpoints_are_small_and_share_their_tokenizer():
    read = {name: (MODELS / name / "tokenizer.json").read_text() for name in EMBEDDED}
    assert len(set(read.values())) == 1
    sizes = {name: (MODELS / name / "model.safetensors").stat().st_size for name in EMBEDDED}
    assert sizes["tiny"] < 8e6 and sizes["tiny-ar"] < 16e6 and sum(sizes.values()) < 30 * 2**20
