"""Weights packed as int8 and int4 while they are read, and checkpoints that were packed before."""

import gc
import json
import shutil
import sys
import weakref

import pytest
import torch
from safetensors.torch import load_file
from toy import BLOCK_CAUSAL, FULL_ATTENTION, MASK, MODELS, prompts

import dlmdecode
from dlmdecode.commands.cli import main
from dlmdecode.models import quantize, weights
from dlmdecode.models.loading import load
from dlmdecode.speculation import load_verifier

QUESTION = "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many apples does Tom have?"
KINDS = quantize.KINDS
DTYPE = {"int8": "float32", "int4": "bfloat16"}
ERROR = {"int8": 0.02, "int4": 0.2}  # of the embedded models' logits, relative
needs_torchao = pytest.mark.skipif(
    not quantize.torchao_is_there(), reason="needs torchao: pip install 'dlmdecode[quantize]'"
)


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "llada"
    shutil.copytree(MODELS / "llada-micro", target)
    return target


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_torchao(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)


def packed_micro(family, kind):
    return load(MODELS / f"{family}-micro", "cpu", DTYPE[kind], quantize=kind)


def unpacked(layer):
    """The weight (N, K) that a packed layer computes with."""
    identity = torch.eye(layer.weight.shape[1], dtype=layer.weight.dtype)
    return torch.nn.functional.linear(identity, layer.weight).T


@needs_torchao
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", (*FULL_ATTENTION, *BLOCK_CAUSAL))
@torch.inference_mode()
def test_a_packed_model_computes_with_its_weights_rounded(family, kind):
    packed = packed_micro(family, kind)
    rounded = load(MODELS / f"{family}-micro", "cpu", DTYPE[kind])
    exact = rounded(torch.stack(prompts(12, 12)))
    for name in packed.quantization.packed:
        layer = packed.get_submodule(name.removesuffix(".weight"))
        weight, own = unpacked(layer), rounded.get_parameter(name)
        group = own.shape[1] if kind == "int8" else quantize.group_of(own)
        parts = own.float().unflatten(1, (-1, group))
        if kind == "int8":
            step = 2 * parts.abs().amax(-1, keepdim=True) / 255
        else:
            step = (parts.amax(-1, keepdim=True) - parts.amin(-1, keepdim=True)) / 15
        off = (weight.float() - own.float()).unflatten(1, (-1, group)).abs()
        room = 1e-6 if kind == "int8" else parts.abs().amax(-1, keepdim=True) / 2**7  # of bfloat16
        assert (off <= (0.51 if kind == "int8" else 0.7) * step + room).all()
        own.copy_(weight)
    logits = [model(torch.stack(prompts(12, 12))) for model in (packed, rounded)]
    error, distance = ((one - logits[1]).norm() for one in (logits[0], exact))
    assert error < distance / 4


@needs_torchao
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_linear_layers_of_blocks_are_packed(kind):
    model = load("tiny-dream", "cpu", DTYPE[kind], quantize=kind)
    exact = load("tiny-dream", "cpu", DTYPE[kind])
    assert model.quantization.kind == kind and not model.quantization.left
    own = dict(exact.named_parameters())
    for name, value in model.named_parameters():
        if name in model.quantization.packed:
            assert ".layers." in name and name.endswith("proj.weight")
            assert type(value.data).__module__.startswith("torchao")
        else:
            assert torch.equal(value, own[name])
    assert len(model.quantization.packed) == 7 * model.num_layers
    assert (model.dtype, model.device) == (exact.dtype, exact.device)


@needs_torchao
def test_int4_leaves_layers_whose_widths_do_not_fit_and_says_which():
    model = load("tiny", "cpu", "bfloat16", quantize="int4")
    blocks = [f"model.transformer.blocks.{i}" for i in range(model.num_layers)]
    assert model.quantization.left == tuple(f"{block}.ff_out.weight" for block in blocks)
    assert not load("tiny", device="cpu", quantize="int8").quantization.left


@pytest.mark.parametrize(
    "shape, group",
    [((16, 4096), 128), ((48, 192), 64), ((16, 160), 32), ((16, 432), None), ((20, 128), None)],
)
def test_a_group_is_the_largest_that_divides_the_inputs(shape, group):
    assert quantize.group_of(torch.empty(shape, device="meta")) == group


@needs_torchao
@torch.inference_mode()
def test_experts_are_packed_and_routers_are_not():
    model = load(MODELS / "llada-moe-micro", device="cpu", quantize="int8")
    packed = model.quantization.packed
    assert any(".experts." in name for name in packed)
    assert not any(name.endswith("mlp.gate.weight") for name in packed)
    routers = [name for name in model.state_dict() if name.endswith("mlp.gate.weight")]
    own = load_file(MODELS / "llada-moe-micro" / "model.safetensors")
    assert routers and all(torch.equal(model.state_dict()[name], own[name]) for name in routers)


CACHED = (("llada", "dual"), ("dream", "prefix"), ("sdar", "block"))


@needs_torchao
@pytest.mark.parametrize("family, cache", CACHED)
def test_a_row_of_a_packed_model_equals_its_single_run(family, cache):
    model, some = packed_micro(family, "int8"), prompts(5, 9)
    settings = dict(max_new_tokens=16, block_length=8, cache=cache)
    both = dlmdecode.generate(model, some, "threshold", **settings).sequences
    for row, one in zip(both, some, strict=True):
        single = dlmdecode.generate(model, one, "threshold", **settings).sequences[0]
        assert torch.equal(row[: len(single)], single)


@needs_torchao
@pytest.mark.parametrize("family, cache", CACHED)
def test_an_int4_model_decodes_with_its_caches(family, cache):
    model = packed_micro(family, "int4")
    settings = dict(max_new_tokens=16, block_length=8, cache=cache)
    text = dlmdecode.generate(model, prompts(5), "threshold", **settings).sequences[0, 5:]
    assert len(text) == 16 and MASK not in text.tolist()


@needs_torchao
@pytest.mark.parametrize(
    "kind, dtype",
    [("int8", d) for d in ("float32", "bfloat16", "float16")] + [("int4", "bfloat16")],
)
@torch.inference_mode()
def test_activations_keep_the_dtype_that_is_asked_for(kind, dtype):
    model = load("tiny-dream", "cpu", dtype, quantize=kind)
    assert model(torch.arange(2, 9)[None]).dtype == getattr(torch, dtype)


@needs_torchao
def test_packed_weights_are_as_small_as_promised(tmp_path):
    def bytes_of(value):
        names, _ = value.data.__tensor_flatten__()
        return sum(getattr(value, name).nbytes for name in names)

    for kind, most in (("int8", 1.1), ("int4", 0.8)):  # of a byte a weight, scales included
        model = load("tiny-dream", "cpu", "bfloat16", quantize=kind)
        packed = [model.get_parameter(name) for name in model.quantization.packed]
        assert sum(map(bytes_of, packed)) < most * sum(value.numel() for value in packed)


@needs_torchao
def test_no_more_than_one_packed_tensor_is_held_in_float(monkeypatch):
    alive, most = weakref.WeakSet(), 0
    whole = quantize.pack

    def watched(weight, kind):
        nonlocal most
        alive.add(weight)
        most = max(most, len(alive))
        return whole(weight, kind)

    monkeypatch.setattr(weights, "pack", watched)
    gc.disable()  # references alone must free them
    try:
        load("tiny-dream", device="cpu", quantize="int8")
    finally:
        gc.enable()
    assert most == 1


@pytest.mark.parametrize("wrong", ["int3", "", True, 8, torch.int8])
def test_an_unknown_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="quantize=.*give 'int8' or 'int4', or None"):
        load("tiny", quantize=wrong)


@pytest.mark.parametrize("loader", [load, load_verifier])
def test_without_torchao_the_extra_is_named_before_anything_is_read(loader, monkeypatch, tmp_path):
    without_torchao(monkeypatch)
    with pytest.raises(ValueError, match=r"quantize='int8': .*pip install \"dlmdecode\[quantize\]"):
        loader(tmp_path / "nothing", quantize="int8")
    assert load("tiny", device="cpu").quantization is None


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "2 + 3"],
        ["trace", "2 + 3"],
        ["speculate", "2 + 3"],
        ["bench", "samplers", "--limit", "1"],
        ["eval", "arithmetic", "--sampler", "threshold", "--output", "RUN"],
    ],
)
def test_every_command_that_names_a_model_takes_it(command, monkeypatch, tmp_path, capsys):
    without_torchao(monkeypatch)
    command = [str(tmp_path / "run") if word == "RUN" else word for word in command]
    assert main([*command, "--quantize", "int8"]) == 2
    assert "quantize='int8': it needs torchao" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@needs_torchao
def test_a_command_decodes_with_packed_weights(capsys):
    assert main(["generate", QUESTION, "--quantize", "int8", "--device", "cpu"]) == 0
    assert "15" in capsys.readouterr().out


@needs_torchao
@pytest.mark.parametrize("kind", KINDS)
def test_double_precision_is_refused(kind):
    with pytest.raises(ValueError, match=f"quantize='{kind}': .*not torch.float64: give a dtype"):
        load("tiny", "cpu", "float64", quantize=kind)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_int4_is_for_bfloat16(device, dtype):
    """A CPU computes with others a hundred times slower, a GPU not at all."""
    with pytest.raises(ValueError, match="quantize='int4': .*give dtype='bfloat16'"):
        quantize.check_kernels("int4", torch.device(device), [dtype])


def test_devices_without_int4_kernels_are_named():
    with pytest.raises(ValueError, match="none for mps: give 'int8'"):
        quantize.check_kernels("int4", torch.device("mps"), [torch.bfloat16])
    quantize.check_kernels("int8", torch.device("mps"), [torch.float32])


@needs_torchao
def test_a_model_that_no_layer_of_fits_is_refused(folder, monkeypatch):
    monkeypatch.setattr(quantize, "GROUPS", (1024,))
    with pytest.raises(ValueError, match="quantize='int4': no layer has a multiple of 32"):
        load(folder, "cpu", "bfloat16", quantize="int4")


@pytest.mark.parametrize("field", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"])
@pytest.mark.parametrize("kind", [None, "int8"])
def test_a_checkpoint_that_was_packed_is_refused_by_its_method(folder, field, method, kind):
    if kind and not quantize.torchao_is_there():
        pytest.skip("needs torchao: pip install 'dlmdecode[quantize]'")
    config(folder, **{field: {"quant_method": method, "bits": 4}})
    message = rf"config.json: {field}=.*packed by '{method}' are not read: .*quantize=\"int8\""
    with pytest.raises(ValueError, match=message):
        load(folder, quantize=kind)


@pytest.mark.parametrize("stated", [{"bits": 4}, "gptq", {}, True])
def test_a_packed_checkpoint_that_names_no_method_is_refused(folder, stated):
    config(folder, quantization_config=stated)
    with pytest.raises(ValueError, match="quantization_config=.*by a method that it does not name"):
        load(folder)


@needs_torchao
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_verifier_is_packed_but_its_head(kind):
    exact = load_verifier("tiny-ar", "cpu", DTYPE[kind])
    packed = load_verifier("tiny-ar", "cpu", DTYPE[kind], quantize=kind)
    heads = [one.model.get_output_embeddings().weight for one in (exact, packed)]
    assert torch.equal(*heads)
    tokens = exact.tokenizer(QUESTION, return_tensors="pt").input_ids
    logits = [one.model(tokens).logits for one in (exact, packed)]
    assert 0 < (logits[1] - logits[0]).norm() / logits[0].norm() < ERROR[kind]


@needs_torchao
def test_the_text_of_a_packed_verifier_is_its_own_whatever_is_drafted():
    verifier = load_verifier("tiny-ar", "cpu", quantize="int8")
    plain = verifier.generate(QUESTION, max_new_tokens=24).texts
    for drafter in ("tiny", "diffusion,model=tiny,quantize=int8"):
        out = dlmdecode.speculate(drafter, verifier, QUESTION, max_new_tokens=24)
        assert out.texts == plain
