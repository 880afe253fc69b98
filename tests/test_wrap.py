"""Wrapped modules: what they take and give, and the checks that native models have."""

import copy
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from toy import EOS, FAMILIES, MASK, VOCAB, LogitsModule, micro, prompts

import dlmdecode
from dlmdecode import generate, wrap


def tokens(model, prompt, **options):
    options = {"max_new_tokens": 16, "block_length": 8} | options
    return generate(model, prompt, **options).sequences.tolist()


class Foreign(nn.Module):
    """The LLaDA micro model behind a call of another kind; subclasses say which."""

    def __init__(self):
        super().__init__()
        self.inner = [micro("llada")]  # not a submodule: the module says nothing of itself

    def logits(self, tokens, attention_mask=None):
        return self.inner[0](tokens, attention_mask)


def wrapped(module, **more):
    return wrap(module, mask_id=MASK, eos_ids=EOS, **more)


class Named(NamedTuple):
    loss: None
    logits: Tensor


FORMS = {
    "tensor": lambda z: z,
    "attribute": lambda z: SimpleNamespace(logits=z),
    "dict": lambda z: {"loss": None, "logits": z},
    "tuple": lambda z: (z,),
    "list": lambda z: [z, "more"],
    "tuple with more": lambda z: (z, (z, z)),
    "named tuple": lambda z: Named(None, z),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_logits_are_taken_in_any_of_the_usual_forms(form):
    class Module(Foreign):
        def forward(self, tokens, attention_mask=None):
            return form(self.logits(tokens, attention_mask))

    assert tokens(wrapped(Module()), prompts(4, 7)) == tokens(micro("llada"), prompts(4, 7))


def test_the_output_of_a_transformers_model_is_taken_as_it_is_or_as_a_tuple():
    model = bert()
    plain = tokens(wrap(model, mask_id=4, eos_ids=3), [5, 6, 7])
    model.config.return_dict = False
    assert tokens(wrap(model, mask_id=4, eos_ids=3), [5, 6, 7]) == plain


NO_LOGITS = {
    "nothing": lambda z: None,
    "empty tuple": lambda z: (),
    "loss first": lambda z: (None, z),
    "dict without": lambda z: {"hidden": z},
    "attribute of None": lambda z: SimpleNamespace(logits=None),
    "array": lambda z: z.numpy(),
}
WRONG_LOGITS = {
    "one position": lambda z: z[:, 0],
    "last position": lambda z: z[:, -1:],
    "batch second": lambda z: z.transpose(0, 1),
    "ids": lambda z: z.argmax(-1),
    "whole numbers": lambda z: z.long(),
    "loss": lambda z: (z.mean(), z),
    "flat": lambda z: z.flatten(0, 1),
    "few": lambda z: z[..., :MASK],
}


@pytest.mark.parametrize("edit", NO_LOGITS.values(), ids=NO_LOGITS)
def test_an_output_without_logits_is_refused_by_its_type(edit):
    class Module(Foreign):
        def forward(self, tokens):
            return edit(self.logits(tokens))

    with pytest.raises(ValueError, match=r"module=Module: its call gave \w+ without logits"):
        tokens(wrapped(Module()), prompts(4))


@pytest.mark.parametrize("edit", WRONG_LOGITS.values(), ids=WRONG_LOGITS)
def test_logits_of_another_shape_or_dtype_are_refused_with_it(edit):
    class Module(Foreign):
        def forward(self, tokens):
            return edit(self.logits(tokens))

    with pytest.raises(ValueError, match=r"logits=torch\.\w+ \([0-9, ]*\) on cpu"):
        tokens(wrapped(Module()), prompts(4))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_name_the_step_and_the_row_as_a_native_models_do(value):
    class Module(Foreign):
        def forward(self, tokens, attention_mask=None):
            logits = self.logits(tokens, attention_mask)
            return torch.cat([logits[:1], torch.full_like(logits[1:], value)])

    with pytest.raises(FloatingPointError, match="step 1, row 1: the model's logits are NaN"):
        tokens(wrapped(Module()), prompts(4, 5))


# calls


class TokensOnly(Foreign):
    def forward(self, x):
        return self.logits(x)


class MaskRequired(Foreign):
    def forward(self, input_ids, attention_mask):
        return self.logits(input_ids, attention_mask)


class PositionsRequired(Foreign):
    def forward(self, tokens, position_ids, attention_mask=None):
        assert torch.equal(position_ids, torch.arange(tokens.shape[1]).expand_as(tokens))
        return self.logits(tokens, attention_mask)


class IdsLast(Foreign):
    def forward(self, attention_mask=None, input_ids=None):
        return self.logits(input_ids, attention_mask)


class KeywordsOnly(Foreign):
    def forward(self, *, input_ids, attention_mask=None):
        return self.logits(input_ids, attention_mask)


class Anything(Foreign):
    def forward(self, *inputs, **options):
        return self.logits(*inputs, **options)


class Dropped(Foreign):
    """Takes whatever it is given, as many research repositories' modules do, and uses no mask."""

    def forward(self, input_ids, **options):
        return self.logits(input_ids)


@pytest.mark.parametrize(
    "kind", [TokensOnly, MaskRequired, PositionsRequired, IdsLast, KeywordsOnly, Anything, Dropped]
)
def test_a_ragged_batch_is_right_whatever_the_call_takes(kind):
    module, rows = kind(), prompts(4, 9, 9, 6)
    native = tokens(micro("llada"), rows, eos="ignore")
    assert tokens(wrapped(module), rows, eos="ignore") == native
    assert tokens(wrapped(module), rows) == tokens(micro("llada"), rows)


def test_without_an_attention_mask_rows_of_one_length_are_called_together():
    module, shapes = TokensOnly(), []
    module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    tokens(wrapped(module), prompts(4, 9, 9, 6), eos="ignore", sampler="vanilla")
    assert shapes == [(1, 20), (1, 22), (2, 25)] * 16


def test_ids_beyond_the_vocabulary_are_never_written():
    class Padded(Foreign):
        def forward(self, tokens):
            logits = self.logits(tokens)
            return torch.nn.functional.pad(logits, (0, 64), value=float(logits.max()) + 1)

    rows = prompts(6)
    assert tokens(wrapped(Padded(), vocab_size=VOCAB), rows) == tokens(micro("llada"), rows)


def test_options_that_a_module_inside_takes_are_passed_on():
    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = micro("llada")

        def forward(self, *inputs, **options):
            shapes.append(tuple(inputs[0].shape))
            return self.inner(*inputs, **options)

    shapes, rows = [], prompts(4, 9, 9, 6)
    native = tokens(micro("llada"), rows, eos="ignore", sampler="vanilla")
    assert tokens(wrapped(Adapter()), rows, eos="ignore", sampler="vanilla") == native
    assert shapes == [(4, 25)] * 16


@pytest.mark.parametrize("around", [False, True])
def test_a_scripted_module_and_one_around_it_are_called(around):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, 8)
            self.layers = nn.ModuleList([nn.Linear(8, VOCAB)])

        def forward(self, x: torch.Tensor):
            x = self.embed(x)
            for layer in self.layers:
                x = layer(x)
            return x

    class Around(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, **options):
            return self.inner(x)

    plain = Plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still used
        scripted = torch.jit.script(plain)
    rows = prompts(4, 9)
    expected = tokens(wrapped(plain), rows)
    assert tokens(wrapped(Around(scripted) if around else scripted), rows) == expected


def test_a_call_that_needs_something_else_is_refused_by_its_name():
    class Noised(Foreign):
        def forward(self, indices, sigma):
            return self.logits(indices)

    with pytest.raises(ValueError, match="module='Noised': its call needs 'sigma'"):
        wrapped(Noised())


@pytest.mark.parametrize("wrong", [None, "tiny", lambda tokens: tokens, LogitsModule])
def test_what_is_no_module_is_refused(wrong):
    with pytest.raises(ValueError, match="give a torch module"):
        wrapped(wrong)


# ids, vocabulary and length


def bert(kind="Bert"):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 1),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForMaskedLM")(config).eval()


def test_ids_outside_the_vocabulary_of_the_config_are_refused():
    model = wrap(bert(), mask_id=4, eos_ids=3)
    for wrong in ([5, 600], [5, 60], [-1, 5]):
        with pytest.raises(ValueError, match="ids are 0 to 59"):
            tokens(model, wrong)


@pytest.mark.parametrize("kind, most", [("Bert", 40), ("Roberta", 38), ("ModernBert", 40)])
def test_a_text_is_as_long_as_the_module_has_positions(kind, most):
    model = wrap(bert(kind), mask_id=4, eos_ids=3)
    assert model.max_length == most
    assert len(tokens(model, [5, 6], max_new_tokens=most - 2, sampler="threshold")[0]) == most
    with pytest.raises(ValueError, match=f"addresses {most} positions; give at most {most - 2}"):
        tokens(model, [5, 6], max_new_tokens=most - 1)


def test_what_a_module_inside_says_counts_too():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = bert()

        def forward(self, tokens, attention_mask=None):
            return self.inner(tokens, attention_mask=attention_mask).logits

    model = wrap(Around(), mask_id=4, eos_ids=3)
    assert (model.vocab_size, model.max_length) == (60, 40)


def test_a_module_that_says_nothing_has_the_limits_that_are_given():
    model = wrapped(TokensOnly())
    assert (model.vocab_size, model.max_length) == (None, None)
    model = wrapped(TokensOnly(), vocab_size=VOCAB, max_length=20)
    with pytest.raises(ValueError, match="ids are 0 to 319"):
        tokens(model, [5, 320])
    with pytest.raises(ValueError, match="addresses 20 positions"):
        tokens(model, [5, 6, 7, 8, 9])


@pytest.mark.parametrize("name", ["vocab_size", "max_length"])
@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "320"])
def test_a_limit_that_is_none_is_refused(name, wrong):
    with pytest.raises(ValueError, match=f"{name}={wrong!r}: give a whole number"):
        wrapped(TokensOnly(), **{name: wrong})


@pytest.mark.parametrize("wrong", [-1, 60, True, 4.0, "4", [4]])
def test_a_mask_that_is_no_id_of_the_vocabulary_is_refused(wrong):
    with pytest.raises(ValueError, match="mask_id=.*0 to 59"):
        wrap(bert(), mask_id=wrong, eos_ids=3)


@pytest.mark.parametrize("wrong", [-1, 60, True, 3.0, "3", [3, -1], [3, 60], [[3]]])
def test_an_end_that_is_no_id_of_the_vocabulary_is_refused(wrong):
    with pytest.raises(ValueError, match="eos_ids=.*0 to 59"):
        wrap(bert(), mask_id=4, eos_ids=wrong)


@pytest.mark.parametrize("shift", ["yes", 2, -1])
def test_a_shift_that_is_none_is_refused(shift):
    with pytest.raises(ValueError, match="shift=.*give True or False"):
        wrapped(TokensOnly(), shift=shift)


def test_ids_may_be_numpys():
    model = wrap(bert(), mask_id=np.int64(4), eos_ids=np.array([3, 2]))
    assert (model.mask_id, model.eos_ids) == (4, (3, 2))
    assert type(model.mask_id) is int


# native models behind torch's own wrappers


def counting(calls):
    """A backend of torch.compile that runs the graph as it is and counts."""

    def backend(graph, inputs):
        def run(*args):
            calls.append(1)
            return graph(*args)

        return run

    return backend


@pytest.fixture
def calls():
    yield []
    torch._dynamo.reset()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_runs_compiled_and_writes_the_same(family, in_place, calls):
    model = copy.deepcopy(micro(family))
    if in_place:
        model.compile(backend=counting(calls))
    else:
        model = torch.compile(model, backend=counting(calls))
    prompt = prompts(6)
    assert tokens(model, prompt) == tokens(micro(family), prompt)
    assert len(calls) > 0
    assert tokens(wrap(model), prompt) == tokens(micro(family), prompt)


def test_a_compiled_model_streams_and_refuses_a_cache_as_a_wrapped_one_does(calls):
    model = torch.compile(copy.deepcopy(micro("llada")), backend=counting(calls))
    assert list(dlmdecode.stream(model, prompts(4), max_new_tokens=8))
    assert len(calls) > 0
    with pytest.raises(ValueError, match="cache='dual'.*compiled"):
        tokens(model, prompts(4), cache="dual")


def test_a_compiled_drafter_drafts_compiled(calls):
    from dlmdecode.speculation.drafters import resolve_drafter

    model = torch.compile(copy.deepcopy(micro("dream")), backend=counting(calls))
    expected = resolve_drafter(micro("dream"), 1, 15).draft([1, 2, 3], 4)
    drafted = resolve_drafter(model, 1, 15).draft([1, 2, 3], 4)
    assert drafted.ids[:, 0].tolist() == expected.ids[:, 0].tolist()
    assert len(calls) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_parallel_model_is_called_as_one(family):
    model = nn.DataParallel(micro(family))
    called = []
    model.register_forward_hook(lambda *_: called.append(1))
    assert tokens(model, prompts(6)) == tokens(micro(family), prompts(6))
    assert called


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", ["hook", "pre-hook", "forward"])
def test_a_native_model_whose_call_was_changed_is_called(family, change):
    model, called = copy.deepcopy(micro(family)), []
    original = model.forward
    if change == "hook":
        model.register_forward_hook(lambda *_: called.append(1))
    elif change == "pre-hook":
        model.register_forward_pre_hook(lambda *_: called.append(1))
    else:
        model.forward = lambda *args, **kw: called.append(1) or original(*args, **kw)
    assert tokens(model, prompts(6)) == tokens(micro(family), prompts(6))
    assert called
    with pytest.raises(ValueError, match="cache='dual'.*hooked"):
        tokens(model, prompts(6), cache="dual")


def test_a_model_or_a_prompt_without_values_is_refused():
    with pytest.raises(ValueError, match="model='LLaDA': it is on the meta device"):
        generate(copy.deepcopy(micro("llada")).to("meta"), prompts(6))
    with pytest.raises(ValueError, match="prompt='row 0 on meta'"):
        generate(micro("llada"), torch.ones(1, 3, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrapped_native_model_brings_what_it_knows(family):
    native, model = micro(family), wrap(micro(family))
    for name in ("mask_id", "eos_ids", "shift", "vocab_size", "max_length", "family", "tokenizer"):
        assert getattr(model, name) == getattr(native, name), name
    assert tokens(model, prompts(5)) == tokens(native, prompts(5))


def test_a_native_model_with_another_shift_is_refused():
    with pytest.raises(ValueError, match="shift=False: Dream has shift=True"):
        wrap(micro("dream"), shift=False)


class Around(nn.Module):
    """Passes on what it has not, as adapters around a model do, but for the call."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, tokens, attention_mask=None):
        raise AssertionError("this is what must run")


def test_a_module_that_passes_a_native_models_methods_on_is_called_itself():
    for model in (Around(micro("llada")), wrapped(Around(micro("llada")))):
        with pytest.raises(AssertionError, match="must run"):
            tokens(model, prompts(4))


def test_a_module_around_a_shifted_model_has_to_say_whether_it_is_shifted():
    for act in (wrap, wrapped, lambda module: tokens(module, prompts(4))):
        with pytest.raises(ValueError, match="shift=None: it is built around a model whose"):
            act(Around(micro("dream")))
    assert wrap(Around(micro("dream")), shift=True).shift == 1
    assert wrap(Around(micro("dream")), shift=False).shift == 0


def test_an_end_may_be_a_scalar_and_a_tokenizer_is_one():
    module = LogitsModule(micro("llada"))
    assert wrap(module, mask_id=MASK, eos_ids=torch.tensor(EOS)).eos_ids == (EOS,)
    with pytest.raises(ValueError, match="^tokenizer='tiny'"):
        wrap(module, mask_id=MASK, eos_ids=EOS, tokenizer="tiny")


def test_hidden_states_are_no_logits():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=60, intermediate_size=64, **sizes)
    headless = transformers.BertModel(config).eval()
    headless.config.return_dict = False
    model = wrap(headless, mask_id=4, eos_ids=3)
    with pytest.raises(ValueError, match="logits=.*V must reach the vocabulary, 60 ids"):
        generate(model, [5, 6, 7], max_new_tokens=8)
