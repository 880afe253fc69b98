"""What cannot work is refused by name, with the way out, before any forward."""

import pytest
import torch
from speculation_toys import TEXT, byte_level, llama, micro, with_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from dlmdecode.speculation import PromptLookup, Verifier, load_verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.ngram import build
from dlmdecode.speculation.proxies import resolve_proxy

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


def test_maps_that_cannot_work():
    refuses("tokenizers of both", vocabulary="string_match")
    refuses("vocabulary='closest'", vocabulary="closest")
    refuses("empty map", vocabulary={})
    refuses("vocabulary=999.*0..319", vocabulary={1: 999})


def test_a_verifier_without_a_cache_that_can_be_rewound():
    small = dict(hidden_size=16, num_hidden_layers=1)
    stateful = MambaForCausalLM(MambaConfig(vocab_size=320, **small))
    refuses("MambaForCausalLM.*rewound", verifier=stateful)
    config = OpenAIGPTConfig(vocab_size=320, n_embd=16, n_layer=1, n_head=2)
    refuses("OpenAIGPTLMHeadModel.*rewound", verifier=OpenAIGPTLMHeadModel(config))
    off = llama()
    off.generation_config.use_cache = False
    refuses("use_cache=True", verifier=off)


def test_a_verifier_that_is_no_causal_model():
    refuses("verifier='LLaDA'.*causal", verifier=micro("llada"))
    refuses("verifier='Linear'", verifier=torch.nn.Linear(2, 2))
    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    refuses("encoder-decoder", verifier=BartForConditionalGeneration(config))


def test_a_drafter_that_is_no_diffusion_model():
    refuses("LlamaForCausalLM.*CausalDrafter", drafter=llama())
    refuses("drafter='Linear'", drafter=torch.nn.Linear(2, 2))
    refuses("drafter='type'", drafter=PromptLookup.__class__)


def test_a_drafter_checkpoint_that_is_no_diffusion_model(tmp_path):
    llama().save_pretrained(tmp_path)
    refuses("model_type='llama'", drafter=str(tmp_path))


def test_a_text_that_does_not_fit_the_verifier():
    refuses("251 tokens.*256 positions.*at most 5", prompt=torch.arange(251), max_new_tokens=6)
    refuses("max_new_tokens=0", max_new_tokens=0)
    refuses("max_new_tokens=1.5", max_new_tokens=1.5)


@pytest.mark.parametrize("temperature", [-1, float("nan"), float("inf"), "hot", True])
def test_a_bad_temperature(temperature):
    refuses("temperature", temperature=temperature)


@pytest.mark.parametrize("option", [{"top_k": -3}, {"top_p": -0.5}, {"min_p": 2.0}])
def test_sampling_parameters_that_the_verifier_refuses(option):
    with pytest.raises(ValueError) as own:
        llama().generate(PROMPT[None], do_sample=True, max_new_tokens=8, **option)
    with pytest.raises(ValueError) as ours:
        decode(PromptLookup(), llama(), PROMPT, temperature=1.0, max_new_tokens=8, **option)
    assert str(ours.value) == str(own.value)


def test_what_speculation_does_not_do():
    refuses("num_beams=4", num_beams=4)
    refuses("num_return_sequences=2", num_return_sequences=2)
    refuses("max_length=9.*sets it", max_length=9)
    refuses("stop_strings.*tokenizer", stop_strings=["."])


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
        resolve_proxy(build([[1, 2]], 300, tokenizer="another"), model)


def test_missing_verifiers():
    with pytest.raises(FileNotFoundError, match="tiny-ar"):
        load_verifier("./nowhere")
