"""What cannot work is refused by name, with the way out, before any forward."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from speculation_toys import TEXT, byte_level, llama, micro, with_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from dlmdecode.speculation import (
    AdaptiveLength,
    CausalDrafter,
    Fused,
    LogitSpec,
    ObservedNGrams,
    OnlineNGram,
    PathSearch,
    PromptLookup,
    Recycling,
    Verifier,
    load_verifier,
)
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.diffuspec.counting import build
from dlmdecode.speculation.diffuspec.proxies import resolve_proxy
from dlmdecode.speculation.verifier.verifier import EMBEDDED

PROMPT = torch.arange(5)


def refuses(match, *, error=ValueError, drafter=None, verifier=None, prompt=PROMPT, **options):
    drafter = PromptLookup() if drafter is None else drafter
    with pytest.raises(error, match=match):
        verifier = llama() if verifier is None else verifier
        decode(drafter, verifier, prompt, **{"max_new_tokens": 8} | options)


def test_vocabularies_that_differ_without_a_map():
    drafter = with_tokenizer(micro("llada"), byte_level(300))
    other = Verifier(llama(280, eos=(0,)), byte_level(280, TEXT[::-1]))
    refuses(
        "tokenizers differ.*string_match.*retokenize", drafter=drafter, verifier=other, prompt="a"
    )
    refuses("verifier has no tokenizer", drafter=drafter, verifier=llama())
    refuses("320 ids, the verifier 300", drafter=micro("llada"), verifier=llama(300, eos=(5,)))


def test_vocabularies_that_agreed_are_compared_again_when_one_has_grown(monkeypatch):
    drafter = with_tokenizer(micro("llada"), byte_level(300))
    other = Verifier(llama(300, eos=(0,)), byte_level(300))
    decode(drafter, other, "a", max_new_tokens=2)
    with monkeypatch.context() as patch:
        patch.setattr(type(drafter.tokenizer), "get_vocab", lambda _: pytest.fail("read again"))
        decode(drafter, other, "a", max_new_tokens=2)
    drafter.tokenizer.add_tokens(["<new>"])
    refuses("tokenizers differ: '<new>'", drafter=drafter, verifier=other, prompt="a")


def test_maps_that_cannot_work():
    refuses("tokenizers of both", vocabulary="string_match")
    refuses("vocabulary='closest'", vocabulary="closest")
    refuses("empty map", vocabulary={})
    refuses("vocabulary=999.*verifier's ids are 0..319", vocabulary={1: 999})
    drafter = CausalDrafter(llama(300))
    refuses("vocabulary=300.*drafter's ids are 0..299", drafter=drafter, vocabulary={300: 1})
    for one, other in ((-1, 1), (1.5, 1), ("a", 1), (1, "b"), (True, 1)):
        refuses("vocabulary=.*whole number", drafter=drafter, vocabulary={one: other})


def test_what_learns_the_verifiers_ids_beside_a_model_with_others():
    ids = {one: one for one in range(320)}
    for learning in (Recycling(), ObservedNGrams(), LogitSpec()):
        drafter = Fused(learning, CausalDrafter(llama()))
        refuses("vocabulary=.*Fused learns the verifier's ids", drafter=drafter, vocabulary=ids)
    looking = Fused(PromptLookup(), CausalDrafter(llama()))
    decode(looking, llama(), PROMPT, vocabulary=ids, max_new_tokens=4)


def test_a_verifier_without_a_cache_that_can_be_rewound():
    small = dict(hidden_size=16, num_hidden_layers=1)
    stateful = MambaForCausalLM(MambaConfig(vocab_size=320, **small))
    refuses("MambaForCausalLM.*rewound", verifier=stateful)
    config = OpenAIGPTConfig(vocab_size=320, n_embd=16, n_layer=1, n_head=2)
    refuses("OpenAIGPTLMHeadModel.*rewound", verifier=OpenAIGPTLMHeadModel(config))
    with pytest.raises(ValueError, match="drafter='MambaForCausalLM'.*rewound"):
        CausalDrafter(stateful)


def test_a_verifier_that_is_no_causal_model():
    refuses("verifier='LLaDA'.*causal", verifier=micro("llada"))
    refuses("verifier='Linear'", verifier=torch.nn.Linear(2, 2))
    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    refuses("encoder-decoder", verifier=BartForConditionalGeneration(config))
    config = BertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    refuses("is_decoder=True", verifier=BertLMHeadModel(config))
    with pytest.raises(ValueError, match="drafter='Linear'.*causal"):
        CausalDrafter(torch.nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own code
def test_a_compiled_copy_of_a_verifier_which_generate_would_not_use():
    refuses(r"OptimizedModule.*model\.compile\(\)", verifier=torch.compile(llama()))


def test_a_drafter_that_is_no_diffusion_model():
    refuses("LlamaForCausalLM.*CausalDrafter", drafter=llama())
    refuses("drafter='Linear'", drafter=torch.nn.Linear(2, 2))
    refuses("drafter='type'", drafter=PromptLookup.__class__)


@pytest.mark.parametrize("name", ["num_beams", "use_cache", "cache_implementation"])
def test_a_mode_that_is_none_is_none_that_was_given(name):
    plain, same = (
        decode(PromptLookup(), llama(), PROMPT, max_new_tokens=4, **given).sequences
        for given in ({}, {name: None})
    )
    assert torch.equal(plain, same)


@pytest.mark.parametrize("steps", [-3, 0, 1.5, True, 2])
def test_steps_of_a_drafter_that_takes_none(steps):
    refuses("^draft_steps=", draft_steps=steps)


def diffusion(**options):
    pair = dict(drafter=micro("llada"), verifier=llama(eos=(5,)), vocabulary="identity")
    return pair | options


def test_arguments_that_the_others_leave_without_effect():
    refuses("draft_steps=8.*at most draft_length=4", **diffusion(draft_steps=8, draft_length=4))
    refuses("proxy=.*nothing asks", proxy=OnlineNGram())
    refuses("proxy=.*nothing asks", **diffusion(proxy=OnlineNGram(), path_search="argmax"))
    refuses("proxy=.*nothing asks", **diffusion(proxy=OnlineNGram(), path_search=PathSearch(lam=1)))
    refuses("path_search='argmax'.*PromptLookup", path_search="argmax")
    refuses("path_search='argmax'", drafter=CausalDrafter(llama()), path_search="argmax")
    refuses("tokenizer=", verifier=Verifier(llama()), tokenizer=byte_level(300))


@pytest.mark.parametrize("name", ["beam", "num_candidates", "lam", "mass"])
def test_a_search_out_of_range(name):
    for value in (-1, 1.5, "3"):
        with pytest.raises(ValueError, match=f"^{name}="):
            PathSearch(**{name: value})


@pytest.mark.parametrize("name", ["k_min", "k_max", "delta", "rho"])
def test_a_draft_length_out_of_range(name):
    for value in (-1, 1.5, "3"):
        with pytest.raises(ValueError, match=f"^{name}="):
            AdaptiveLength(**{name: value})


@pytest.mark.parametrize("name, value", [("draft_length", -1), ("seed", 1.5), ("on_step", 3)])
def test_other_arguments_out_of_range(name, value):
    refuses(f"^{name}=", **{name: value})


def test_a_drafter_checkpoint_that_is_no_diffusion_model(tmp_path):
    llama().save_pretrained(tmp_path)
    refuses("model_type='llama'", drafter=str(tmp_path))


def test_a_text_that_does_not_fit_the_verifier():
    refuses("251 tokens.*256 positions.*at most 5", prompt=torch.arange(251), max_new_tokens=6)
    refuses("max_new_tokens=0", max_new_tokens=0)
    refuses("max_new_tokens=1.5", max_new_tokens=1.5)


@pytest.mark.parametrize("temperature", [-1, 1e-45, float("nan"), float("inf"), "hot", True])
def test_a_bad_temperature(temperature):
    refuses("temperature", temperature=temperature)


@pytest.mark.parametrize("option", [{"top_k": -3}, {"top_p": -0.5}])
def test_sampling_parameters_that_the_verifier_refuses(option):
    with pytest.raises(ValueError) as own:
        llama().generate(PROMPT[None], do_sample=True, max_new_tokens=8, **option)
    with pytest.raises(ValueError) as ours:
        decode(PromptLookup(), llama(), PROMPT, temperature=1.0, max_new_tokens=8, **option)
    assert str(ours.value) == str(own.value)


OTHER_WAYS = [
    *[
        ("num_beams", 4),
        ("num_return_sequences", 2),
        ("num_beam_groups", 2),
        ("is_assistant", True),
    ],
    *[("penalty_alpha", 0.6), ("dola_layers", "low"), ("force_words_ids", [[1]])],
    *[("assistant_ensemble_weight", 0.5), ("token_healing", True), ("use_cache", False)],
    *[("cache_implementation", name) for name in ("static", "quantized", "offloaded", "paged")],
]


@pytest.mark.parametrize("name, value", OTHER_WAYS)
def test_other_ways_of_decoding_are_refused_wherever_they_are_asked_for(name, value):
    seen, model = [], llama()
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    refuses(f"^{name}=.*give {name}=", verifier=model, **{name: value})
    setattr(model.generation_config, name, value)
    refuses(f"^{name}=.*generation_config.*give {name}=", verifier=model)
    if "cache" not in name:  # plain decoding may have any cache
        with pytest.raises(ValueError, match=f"^{name}="):
            Verifier(model).generate(PROMPT, max_new_tokens=8)
    assert not seen


def test_what_the_call_sets_itself():
    refuses("max_length=9.*sets it", max_length=9)
    refuses("do_sample=True.*sets it", do_sample=True)


@pytest.mark.parametrize(
    "name, value",
    [
        *[("output_scores", True), ("return_dict_in_generate", True), ("early_stopping", True)],
        *[("length_penalty", 2.0), ("prompt_lookup_num_tokens", 3), ("bos_token_id", 1)],
        *[("prefill_chunk_size", 4), ("cache_config", {}), ("num_assistant_tokens", 5)],
    ],
)
def test_options_without_effect_on_the_text(name, value):
    refuses(f"^{name}=.*no effect", **{name: value})


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p", "eta_cutoff"])
def test_options_of_sampling_without_a_temperature(name):
    refuses(f"^{name}=.*temperature", **{name: 0.5})


@pytest.mark.parametrize(
    "name, value",
    [
        *[("eos_token_id", 320), ("eos_token_id", [5, -1]), ("suppress_tokens", [400])],
        *[("pad_token_id", 1.5), ("no_repeat_ngram_size", -1), ("min_new_tokens", 2.5)],
        *[("repetition_penalty", -1), ("max_time", 0), ("stop_strings", ""), ("stop_strings", [])],
        *[("guidance_scale", value) for value in (float("nan"), True, "2")],
        *[("negative_prompt_ids", [1, 2]), ("negative_prompt_attention_mask", torch.ones(3))],
        *[("logits_processor", max), ("logits_processor", [3]), ("stopping_criteria", max)],
        *[("prefix_allowed_tokens_fn", [1]), ("remove_invalid_values", 1)],
    ],
)
def test_options_out_of_range(name, value):
    verifier = Verifier(llama(), byte_level(300))
    refuses(f"^{name}=", verifier=verifier, vocabulary="identity", **{name: value})


@pytest.mark.parametrize("name", ["top_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_p"])
def test_shares_above_one_which_transformers_passes_over(name):
    refuses(f"^{name}=1.5.*at most 1", temperature=1.0, **{name: 1.5})


def test_stop_strings_without_a_tokenizer():
    refuses("stop_strings.*tokenizer", stop_strings=["."])
    model = llama()
    model.generation_config.stop_strings = "."
    refuses("stop_strings.*tokenizer", verifier=model)


def test_an_unknown_option_names_the_closest_one():
    refuses("'top_pp'.*did you mean 'top_p'", error=TypeError, top_pp=0.5)


@pytest.mark.parametrize("prompt", ["", [], torch.zeros(0, dtype=torch.int64), torch.tensor([320])])
def test_bad_prompts(prompt):
    refuses("prompt", prompt=prompt)


def test_bad_proxies(tmp_path):
    pair = dict(drafter=micro("llada"), verifier=llama(320, eos=(5,)), vocabulary="identity")
    refuses("nowhere", error=FileNotFoundError, proxy="nowhere.safetensors", **pair)
    refuses("proxy=3", proxy=3, **pair)
    model = with_tokenizer(micro("llada"), byte_level(300))
    with pytest.raises(ValueError, match="another tokenizer"):
        resolve_proxy(build([[1, 2]], 300, tokenizer="another"), model.tokenizer)


def test_missing_verifiers():
    with pytest.raises(FileNotFoundError, match="tiny-ar"):
        load_verifier("./nowhere")


def changed(folder, change):
    """A copy of the embedded verifier, changed."""
    shutil.copytree(EMBEDDED["tiny-ar"], folder)
    change(folder)
    return folder


def without_a_tensor(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.3.self_attn.q_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})


def configured(**values):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def torn(name):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "a tensor is missing": (without_a_tensor, "missing tensors: model.layers.3.self_attn.q"),
        "layers are missing": (configured(num_hidden_layers=8), "missing tensors: model.layers.6"),
        "layers are left over": (configured(num_hidden_layers=2), "model.layers.2.*left over"),
        "other shapes": (configured(intermediate_size=641), "cannot be loaded as a verifier"),
        "a number as a text": (configured(hidden_size="256"), "cannot be loaded as a verifier"),
        "no such activation": (configured(hidden_act="new"), "verifier: KeyError: "),
        "torn weights": (torn("model.safetensors"), "cannot be loaded as a verifier"),
        "torn configuration": (torn("config.json"), "cannot be loaded as a verifier"),
        "torn tokenizer": (torn("tokenizer.json"), "cannot be loaded as a verifier"),
    }.values(),
)
def test_a_damaged_verifier_is_refused_by_its_folder(change, message, tmp_path):
    with pytest.raises(ValueError, match=f"copy.*{message}"):
        load_verifier(changed(tmp_path / "copy", change))


@pytest.mark.parametrize("name", ["bad.gguf", "BAD.GGUF"])
def test_a_file_that_cannot_be_read_is_no_missing_verifier(name, tmp_path):
    (tmp_path / name).write_bytes(b"GGUF, but no more of it")
    with pytest.raises(ValueError, match=f"{name}: it cannot be loaded as a verifier"):
        load_verifier(tmp_path / name)


@pytest.mark.parametrize(
    "bad", [{"dtype": "bf16"}, {"dtype": None}, {"revision": "main"}, {"device": "hpu"}]
)
def test_a_bad_argument_of_load_verifier_is_named(bad):
    with pytest.raises(ValueError, match="^" + next(iter(bad))):
        load_verifier("tiny-ar", **bad)
    with pytest.raises(ValueError, match="^verifier=5"):
        load_verifier(5)


def test_a_verifier_writes_texts_alone_and_ids_that_there_are():
    for name in ("return_dict_in_generate", "generation_config"):
        with pytest.raises(ValueError, match=f"^{name}="):
            Verifier(llama()).generate(PROMPT, 4, **{name: True})
    model = llama()
    for none in (-1, 10**6):
        model.generation_config.pad_token_id = none
        two = [PROMPT, PROMPT[:3]]
        assert int(decode(PromptLookup(), model, two, max_new_tokens=4).sequences.min()) >= 0
    for usable in (np.int64(7), torch.tensor([3, 7]), np.array([3, 7]), [np.int32(3), 7]):
        model.generation_config.eos_token_id = usable
        assert 7 in Verifier(model).eos_ids
    for none in ("5", -1, [None]):
        model.generation_config.eos_token_id = none
        with pytest.raises(ValueError, match="^eos_token_id"):
            Verifier(model)
