"""Loading: checkpoints in every published layout, and everything that can be wrong with one."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import (
    BLOCK_CAUSAL,
    CHAT,
    EOS,
    FAMILIES,
    FULL_ATTENTION,
    MASK,
    MODELS,
    VOCAB,
    give_llada_tokenizer,
    micro,
)

import dlmdecode
from dlmdecode.commands.cli import main
from dlmdecode.models.config import Config
from dlmdecode.models.families import FAMILIES as REGISTERED
from dlmdecode.models.families import NOT_IMPLEMENTED
from dlmdecode.models.loading import load
from dlmdecode.models.special_ids import special_ids


@pytest.fixture
def folder(tmp_path):
    """A writable copy of the LLaDA micro checkpoint."""
    return copied("llada", tmp_path)


def copied(family, tmp_path):
    target = tmp_path / family
    shutil.copytree(MODELS / f"{family}-micro", target)
    (target / "forward.safetensors").unlink()
    return target


def rewrite(path, **changes):
    values = json.loads(path.read_text()) | changes
    values = {name: value for name, value in values.items() if value is not None}
    path.write_text(json.dumps(values))


def logits(model):
    return model(torch.arange(7)[None])


def split_into_shards(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for shard, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / shard)
    weight_map = {name: shard for shard, some in shards.items() for name in some}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_sharded_weights_load_as_the_single_file_does(family, tmp_path):
    folder = copied(family, tmp_path)
    split_into_shards(folder)
    assert torch.equal(logits(load(folder, device="cpu")), logits(micro(family)))


@torch.inference_mode()
def test_a_single_file_counts_before_an_index_that_was_left_behind(tmp_path):
    folder = copied("llada", tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    split_into_shards(folder)
    first = folder / "model-00001-of-00002.safetensors"
    save_file({name: torch.zeros_like(one) for name, one in load_file(first).items()}, first)
    (folder / "model.safetensors").write_bytes(whole)
    assert torch.equal(logits(load(folder, device="cpu")), logits(micro("llada")))
    first.unlink()
    assert torch.equal(logits(load(folder, device="cpu")), logits(micro("llada")))


def test_a_tied_head_of_another_kind_of_number_is_refused_by_name(tmp_path):
    folder = copied("dream", tmp_path)
    rewrite(folder / "config.json", tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].to(torch.float8_e4m3fn)
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ValueError, match="lm_head.weight.* stored as F8_E4M3"):
        load(folder)


def test_dtype_counts_before_its_old_name(tmp_path):
    folder = copied("llada", tmp_path)
    rewrite(folder / "config.json", dtype="float16", torch_dtype="float32")
    assert load(folder).dtype == torch.float16
    rewrite(folder / "config.json", dtype="rubbish", torch_dtype="float32")
    with pytest.raises(ValueError, match="dtype"):
        load(folder)


def test_shards_are_numbered_from_one_to_their_total(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "llada-micro", folder)
    split_into_shards(folder)
    for index in folder.glob("*.index.json"):
        index.unlink()
    first = folder / "model-00001-of-00002.safetensors"
    (folder / "model-00003-of-00002.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="has a shard 3 of 2: shards are numbered from 1"):
        dlmdecode.load(folder)


def test_ids_and_eval_mode_come_with_the_model():
    for family in FAMILIES:
        model = micro(family)
        assert (model.mask_id, model.eos_ids, model.tokenizer) == (MASK, (EOS,), None)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_the_published_mask_counts_where_no_file_names_one(tmp_path):
    folder = copied("illada", tmp_path)
    assert load(folder).mask_id == 5
    rewrite(folder / "config.json", mask_token_id=7)
    assert load(folder).mask_id == 7


def test_a_published_mask_outside_the_vocabulary_is_none(folder):
    config = Config.read(folder / "config.json").but(mask_token_id=None)
    with pytest.raises(ValueError, match="names a mask token"):
        special_ids(config, Config(), None, VOCAB, published_mask=VOCAB)


def test_the_mask_id_is_the_checkpoints_own(folder):
    rewrite(folder / "config.json", mask_token_id=5)
    model = load(folder)
    assert model.mask_id == 5
    out = dlmdecode.generate(model, torch.tensor([1, 2, 3]), max_new_tokens=16, block_length=8)
    assert 5 not in out.sequences[0, 3:].tolist()


def test_ids_missing_from_the_config_come_from_generation_config_or_tokenizer(folder):
    rewrite(folder / "config.json", mask_token_id=None, eos_token_id=None)
    with pytest.raises(ValueError, match="names a mask token"):
        load(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"mask_token_id": 317, "eos_token_id": [318, 316]})
    )
    model = load(folder)
    assert (model.mask_id, model.eos_ids) == (317, (318, 316))


def test_a_checkpoint_without_any_eos_is_refused(folder):
    rewrite(folder / "config.json", eos_token_id=None)
    with pytest.raises(ValueError, match="names an eos token"):
        load(folder)


@pytest.mark.parametrize("asked", ["bfloat16", torch.bfloat16, "torch.bfloat16"])
def test_dtype_converts_the_weights(folder, asked):
    model = load(folder, dtype=asked)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_dtype_auto_is_the_one_the_config_names(folder):
    rewrite(folder / "config.json", torch_dtype="bfloat16")
    assert load(folder).dtype == torch.bfloat16
    rewrite(folder / "config.json", torch_dtype=None, dtype="float16")
    assert load(folder).dtype == torch.float16


@pytest.mark.parametrize("wrong", ["float31", "int64", "nn"])
def test_an_unknown_dtype_is_refused_by_name(folder, wrong):
    with pytest.raises(ValueError, match=f"dtype='{wrong}'"):
        load(folder, dtype=wrong)


@pytest.mark.parametrize("wrong", ["tpu9", "gpu", "cpu:x", ""])
def test_an_unknown_device_is_refused_by_name(folder, wrong):
    with pytest.raises(ValueError, match=f"device='{wrong}' is no torch device: give 'cpu'"):
        load(folder, device=wrong)


@pytest.mark.parametrize("absent", ["cuda", "cuda:7", "mps", "xpu", torch.device("cuda")])
def test_a_device_that_is_not_there_is_named_with_those_that_are(folder, absent):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        absent = "cuda:99"
    with pytest.raises(ValueError, match=f"device='{absent}' is not there: give 'cpu'"):
        load(folder, device=absent)


@pytest.mark.parametrize("command", [["generate", "2 + 3"], ["trace", "2 + 3"]])
def test_on_the_command_line_it_is_one_line(command, capsys):
    assert main([*command, "--device", "cuda:99"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("dlmdecode: error: device='cuda:99' is not there: give 'cpu'")
    assert told.err.count("\n") == 1


def test_an_evaluation_on_a_device_that_is_not_there_leaves_no_run_behind(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--sampler", "threshold", "--output", str(run), "--device", "cuda:99"]
    assert main(["eval", "arithmetic", *options]) == 2
    assert "device='cuda:99'" in capsys.readouterr().err
    assert not run.exists()


def test_the_meta_device_and_a_number_are_no_place_for_a_model(folder):
    with pytest.raises(ValueError, match="device='meta' holds shapes and no values"):
        load(folder, device="meta")
    with pytest.raises(ValueError, match="device=0: give 'cpu'"):
        load(folder, device=0)


@pytest.mark.parametrize("cpu", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_the_cpu_by_any_of_its_names_is_the_cpu(folder, cpu):
    assert load(folder, device=cpu).device == torch.device("cpu")


@pytest.mark.parametrize("wrong", [None, b"tiny", 3])
def test_what_names_no_model_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="name_or_path=.*give a name, a folder or a hub id"):
        load(wrong)


def test_a_revision_of_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match="revision='main': .* is a folder on this machine"):
        load(folder, revision="main")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint: it holds no config.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["tinny", "./nothing/here", "/nothing/here", "a/b/c"])
def test_a_name_that_is_nothing_is_refused_with_what_names_can_be(name):
    with pytest.raises(FileNotFoundError, match="no model .*'tiny'.*hub id"):
        load(name)


def test_a_hub_id_without_hub_says_so():
    with pytest.raises(FileNotFoundError, match="no local folder, and fetching it from the hub"):
        load("nobody/nothing-of-this-name")


@pytest.mark.parametrize("kind", ["llama", None])
def test_an_unknown_model_type_is_refused_with_the_known_ones(folder, kind):
    rewrite(folder / "config.json", model_type=kind)
    with pytest.raises(ValueError, match=f"model_type={kind!r}.*llada, .*Dream.*wrap"):
        load(folder)


def test_a_model_type_that_is_nearly_known_gets_a_hint(folder):
    rewrite(folder / "config.json", model_type="dream")
    with pytest.raises(ValueError, match="did you mean 'Dream'"):
        load(folder)


@pytest.mark.parametrize("name", NOT_IMPLEMENTED)
def test_another_diffusion_family_is_refused_by_its_name_and_the_reason(tmp_path, name):
    config = {"model_type": name} if "For" not in name else {"model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    with pytest.raises(ValueError, match=rf"\({name}\) is not implemented: "):
        load(tmp_path)


def test_a_dream_is_a_dream_reasoner_by_its_block_size(tmp_path):
    assert (micro("dream-reasoner").family, micro("dream").family) == ("DreamReasoner", "Dream")
    refused = (("dream", 16, "k_proj.bias"), ("dream-reasoner", None, "head_dim=24"))
    for family, size, message in refused:
        folder = copied(family, tmp_path)
        rewrite(folder / "config.json", block_size=size)
        with pytest.raises(ValueError, match=message):
            load(folder)


def test_the_mask_of_fast_dllm_is_its_tokenizers(tmp_path):
    folder = copied("fast-dllm-v2", tmp_path)
    rewrite(folder / "config.json", mask_token_id=None)
    with pytest.raises(ValueError, match="names a mask token"):
        load(folder, device="cpu")
    give_llada_tokenizer(folder)
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|mdm_mask|>", "|<MASK>|"))
    assert load(folder, device="cpu").mask_id == MASK


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{", b"[" * 10**5, b"9" * 10**4])
def test_a_config_that_is_no_json_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not valid JSON"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["[]", "null", "3", '"llada"'])
def test_a_config_that_is_no_object_is_refused(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is no JSON object"):
        load(folder)


HUGE = 10**9
WRONG = {
    "llada": [
        *({"n_layers": n} for n in (HUGE, 5, 1, 0, -1, True, "3", 3.0, [3])),
        *({"n_heads": n} for n in (0, -4, 3, HUGE, "4", True)),
        *({"n_kv_heads": n} for n in (3, 8, 0, False, "4")),
        *({"d_model": n} for n in ("64", 63, 2**40, 0, 64.0, 4)),
        *({"mlp_hidden_size": n} for n in (-4, 0, "160", 1e3, HUGE)),
        *({"vocab_size": n} for n in (-1, 10**12, "320", 1.5)),
        *({"embedding_size": n} for n in (-1, 10**12, "320", True)),
        *({"max_sequence_length": n} for n in ("512", 0, -1, 1.5, True)),
        *({"rms_norm_eps": x} for x in (float("nan"), float("inf"), 0, -1e-5, "1e-5", True)),
        *({"rope_theta": x} for x in (float("nan"), 0, -1, "10000", True, [1e4])),
        *({"weight_tying": x} for x in ("false", 0, 1)),
        *({"include_qkv_bias": x} for x in ("false", 0)),
        {"rope": "yes"},
        {"rope": 1},
        {"layer_norm_type": ["rms"]},
        {"clip_qkv": 8.0},
        {"quantization_config": {"bits": 4}},
        {"torch_dtype": 5},
        {"torch_dtype": "float8_e4m3fn"},
        {"model_type": ["llada"]},
    ],
    "dream": [
        *({"num_hidden_layers": n} for n in (HUGE, 2, 0, True)),
        *({"num_attention_heads": n} for n in (0, 3, "4")),
        *({"num_key_value_heads": n} for n in (3, 0)),
        *({"head_dim": n} for n in (8, "16")),
        *({"intermediate_size": n} for n in (0, 0.5)),
        {"hidden_size": 60.0},
        {"tie_word_embeddings": "no"},
        {"use_sliding_window": "true"},
        {"hidden_act": "gelu"},
        {"max_position_embeddings": "2048"},
    ],
}


@pytest.mark.parametrize(
    "family, change", [(family, change) for family, some in WRONG.items() for change in some]
)
def test_a_value_that_is_none_is_refused_by_file_and_field(family, change, tmp_path):
    folder = copied(family, tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    field = next(iter(change))
    with pytest.raises(ValueError, match=rf"config.json: ({field}|d_model|hidden_size)="):
        load(folder)


def test_a_count_that_the_weights_contradict_is_refused_with_both(folder):
    rewrite(folder / "config.json", n_layers=4)
    with pytest.raises(ValueError, match="n_layers=4: the weights hold 3 layers"):
        load(folder)
    rewrite(folder / "config.json", n_layers=3, d_model=128)
    with pytest.raises(ValueError, match=r"shape \(.*config.json implies \("):
        load(folder)


WRONG_IDS = [-1, 320, HUGE, True, "318", 5.5, {}]


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("field", ["mask", "eos", "pad", "bos"])
@pytest.mark.parametrize("wrong", [*WRONG_IDS, [318, -1], [True], [[318]]])
def test_a_special_id_that_is_none_is_refused_by_file_and_field(folder, file, field, wrong):
    path = folder / file
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(values | {f"{field}_token_id": wrong}))
    with pytest.raises(ValueError, match=rf"{file}: {field}_token_id=.*0 to 319"):
        load(folder)


def test_an_id_that_is_both_mask_and_end_is_refused(folder):
    rewrite(folder / "config.json", eos_token_id=[EOS, MASK])
    with pytest.raises(ValueError, match="319 is both mask_token_id and eos_token_id"):
        load(folder)


def test_a_config_without_a_needed_field_is_refused_by_name(folder):
    rewrite(folder / "config.json", n_layers=None)
    with pytest.raises(ValueError, match="config.json.*n_layers"):
        load(folder)


def test_pickled_weights_are_refused_and_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(ValueError, match="pickled weights only .*pytorch_model.bin.*convert"):
        load(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        load(folder)


def test_a_lost_shard_is_refused_by_name(folder):
    split_into_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors.*not there"):
        load(folder)


@pytest.mark.parametrize("damage", [b"", b"garbage", "half"])
def test_damaged_weights_are_refused(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000] if damage == "half" else damage)
    with pytest.raises(ValueError, match="model.safetensors is damaged or no safetensors file"):
        load(folder)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_shards_need_no_index(family, tmp_path):
    folder = copied(family, tmp_path)
    split_into_shards(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert torch.equal(logits(load(folder)), logits(micro(family)))


@pytest.mark.parametrize("number", [1, 2])
def test_a_lost_shard_is_named_without_an_index_too(folder, number):
    split_into_shards(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / f"model-0000{number}-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks the shard model-0000{number}-of-00002"):
        load(folder)


def test_shards_of_two_checkpoints_are_refused(folder):
    split_into_shards(folder)
    (folder / "model.safetensors.index.json").unlink()
    shutil.copy(folder / "model-00002-of-00002.safetensors", folder / "model-3-of-3.safetensors")
    with pytest.raises(ValueError, match="shards of several checkpoints"):
        load(folder)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_tensor_in_two_shards_is_refused_with_both(folder, indexed):
    split_into_shards(folder)
    if not indexed:
        (folder / "model.safetensors.index.json").unlink()
    first, second = sorted(folder.glob("model-*.safetensors"))
    name, value = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: value}, second)
    with pytest.raises(ValueError, match=f"{name}' is both in .*{first.name} and in {second.name}"):
        load(folder)


def write_index(folder, content):
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "index",
    [{}, {"metadata": {}}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 3}}],
)
def test_an_index_without_a_map_of_files_is_refused(folder, index):
    write_index(folder, index)
    with pytest.raises(ValueError, match="index.json.*weight_map"):
        load(folder)


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/other.safetensors", "sub/other.safetensors", "..", "",
     "a\\b.safetensors", "pytorch_model.bin"],
)  # fmt: skip
def test_an_index_names_safetensors_beside_it_and_nothing_else(folder, name):
    other = folder.parent / "other.safetensors"
    shutil.copy(folder / "model.safetensors", other)
    (folder / "sub").mkdir()
    shutil.copy(other, folder / "sub")
    write_index(folder, {"weight_map": {"a": name}})
    with pytest.raises(ValueError, match="index.json names .* beside it"):
        load(folder)


def test_a_shard_may_be_a_link_as_in_the_hubs_cache(folder):
    blob = folder.parent / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert torch.equal(logits(load(folder)), logits(micro("llada")))


def test_other_safetensors_in_the_folder_are_named_not_taken(folder):
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors.*adapter_model"):
        load(folder)


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


NORM = "model.transformer.ln_f.weight"


def test_missing_tensors_are_refused_by_name(folder):
    edit_weights(folder, lambda tensors: tensors.pop(NORM))
    with pytest.raises(ValueError, match=f"missing tensors {NORM}"):
        load(folder)


def test_unexpected_tensors_are_refused_by_name(folder):
    edit_weights(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(ValueError, match="unexpected tensor 'extra'"):
        load(folder)


def test_a_tensor_of_another_shape_is_refused_with_both_shapes(folder):
    edit_weights(folder, lambda tensors: tensors.update({NORM: torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"\(3,\).*\(64,\)"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.int64])
def test_quantised_tensors_are_refused_by_name(folder, dtype):
    edit_weights(folder, lambda tensors: tensors.update({NORM: torch.ones(64).to(dtype)}))
    with pytest.raises(ValueError, match=f"{NORM}.*load the checkpoint that it was made of"):
        load(folder)


BUFFERS = [
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.rotary_emb.inv_freq",
    "model.rotary_emb.original_inv_freq",
    "model.layers.1.self_attn.rotary_emb.cos_cached",
]


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_that_older_code_stored_are_passed_over(name, tmp_path):
    folder = copied("dream", tmp_path)
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(8)}))
    assert torch.equal(logits(load(folder)), logits(micro("dream")))


TIED = {
    "llada": ("weight_tying", "model.transformer.wte.weight", "model.transformer.ff_out.weight"),
    "dream": ("tie_word_embeddings", "model.embed_tokens.weight", "lm_head.weight"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stored", ["embedding", "both", "head"])
def test_a_tied_head_may_be_stored_once_or_twice_under_either_name(family, stored, tmp_path):
    folder = copied(family, tmp_path)
    field, embedding, head = TIED[family]
    (tmp_path / "other").mkdir()  # files that are in use are not written to
    expected = load(copied(family, tmp_path / "other"))
    expected.embedding.weight.data = expected.head.__self__.state_dict()[head]
    rewrite(folder / "config.json", **{field: True})

    def tie(tensors):
        tensors[embedding] = tensors[head].clone()
        for name in {"embedding": [head], "head": [embedding], "both": []}[stored]:
            del tensors[name]

    edit_weights(folder, tie)
    model = load(folder)
    assert head not in model.state_dict()
    assert torch.equal(logits(model), logits(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_differs_from_the_embedding_is_used_as_transformers_5_does(family, tmp_path):
    folder = copied(family, tmp_path)
    rewrite(folder / "config.json", **{TIED[family][0]: True})
    assert torch.equal(logits(load(folder)), logits(micro(family)))


def test_a_llada_folder_brings_its_tokenizer_and_chat_template(folder):
    give_llada_tokenizer(folder)
    model = load(folder)
    assert model.tokenizer("w1 w22")["input_ids"] == [1, 22]
    assert model.tokenizer.chat_template == CHAT
    prompt = [{"role": "user", "content": "w1 w2"}]
    out = dlmdecode.generate(model, prompt, max_new_tokens=8, block_length=8)
    assert out.sequences[0, : out.prompt_lengths[0]].tolist() == [316, 1, 2, 317]
    assert out.texts[0].split() == [f"w{i}" for i in out.sequences[0, 4:].tolist()]


def add_token(folder, name, id):
    """Give the tokenizer a special token in the place of an unused word."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"][name] = id
    del tokenizer["model"]["vocab"][f"<unused{id}>"]
    token = dict(tokenizer["added_tokens"][0], id=id, content=name)
    tokenizer["added_tokens"].insert(0, token)
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("name", ["<|eot_id|>", "<|im_end|>", "<|role_end|>", "<|dlm_pad|>"])
def test_an_end_of_turn_token_of_the_tokenizer_is_an_eos_too(folder, name):
    give_llada_tokenizer(folder)
    add_token(folder, name, 314)
    assert load(folder).eos_ids == (EOS, 314)


def test_a_mask_token_is_known_by_its_name(folder):
    rewrite(folder / "config.json", mask_token_id=None)
    give_llada_tokenizer(folder)
    assert load(folder).mask_id == MASK  # <|mdm_mask|>
    path = folder / "tokenizer.json"
    for name in ("<[MASK]>", "<|mask|>"):
        give_llada_tokenizer(folder)
        path.write_text(path.read_text().replace("<|mdm_mask|>", name))
        assert load(folder).mask_id == MASK
    give_llada_tokenizer(folder)
    path.write_text(path.read_text().replace("<|mdm_mask|>", "<|veil|>"))
    with pytest.raises(ValueError, match="names a mask token"):
        load(folder)
    rewrite(folder / "tokenizer_config.json", mask_token="<|veil|>")
    assert load(folder).mask_id == MASK


def test_a_special_token_beyond_the_models_vocabulary_is_refused_by_name(folder):
    rewrite(folder / "config.json", mask_token_id=None)
    give_llada_tokenizer(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["more"] = 318
    for token in tokenizer["added_tokens"]:
        token["id"] += 2
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="tokenizer gives a special token the id 320.*0 to 319"):
        load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_refused_with_its_folder(folder, name):
    give_llada_tokenizer(folder)
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match="its tokenizer cannot be loaded"):
        load(folder)


DREAM_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def give_dream_tokenizer(folder, marker):
    """Files as in the Dream checkpoints; their Python would write `marker` if it were run."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["Ġ", "Ċ"]
    tokens = [*letters, "he", "Ġt"]
    tokens += [f"<filler{i}>" for i in range(len(tokens), 316)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nĠ t\n")
    added = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|mask|>"]
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {
            str(316 + i): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for i, token in enumerate(added)
        },
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "chat_template": DREAM_CHAT,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    code = f"open({str(marker)!r}, 'w').close()\nclass DreamTokenizer: pass\n"
    for module in ("tokenization_dream", "modeling_dream", "configuration_dream"):
        (folder / f"{module}.py").write_text(code)


def test_dreams_tokenizer_loads_without_running_its_python(tmp_path):
    folder, marker = copied("dream", tmp_path), tmp_path / "ran"
    give_dream_tokenizer(folder, marker)
    model = load(folder)
    assert not marker.exists()
    assert not any("tokenization_dream" in name for name in sys.modules)
    assert type(model.tokenizer).__module__.startswith("transformers.")
    assert model.tokenizer("the")["input_ids"] == [19, 28]  # t, he: the merges are in use
    assert model.tokenizer(" the<|im_end|>")["input_ids"] == [29, 28, 317]
    assert model.tokenizer.decode([29, 28]) == " the"
    assert (model.mask_id, model.eos_ids) == (MASK, (EOS, 317))


def test_added_tokens_that_would_get_other_ids_are_refused(tmp_path):
    folder = copied("dream", tmp_path)
    give_dream_tokenizer(folder, tmp_path / "ran")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    del vocabulary["<filler315>"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match="tokenizer_config.json gives .*316"):
        load(folder)


def test_dreams_chat_template_is_applied_to_messages(tmp_path):
    folder = copied("dream", tmp_path)
    give_dream_tokenizer(folder, tmp_path / "ran")
    model = load(folder)
    messages = [{"role": "user", "content": "the"}]
    out = dlmdecode.generate(model, messages, max_new_tokens=4, block_length=4)
    rendered = "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"
    prompt = out.sequences[0, : out.prompt_lengths[0]]
    assert model.tokenizer.decode(prompt) == rendered
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", [*FULL_ATTENTION, *BLOCK_CAUSAL])
def test_a_chat_is_written_by_the_template_beside_each_familys_tokenizer(tmp_path, family):
    folder, marker = copied(family, tmp_path), tmp_path / "ran"
    give_llada_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = config.pop("chat_template")
    (folder / "chat_template.jinja").write_text(template)
    remote = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | remote))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Own: pass\n")
    model = load(folder)
    messages = [{"role": "user", "content": "w7 w8"}]
    out = dlmdecode.generate(model, messages, max_new_tokens=4, eos="ignore")
    prompt = out.sequences[0, : out.prompt_lengths[0]]
    assert model.tokenizer.decode(prompt) == "<user> w7 w8 <assistant>"
    assert not marker.exists()


def test_every_family_has_a_micro_checkpoint_in_these_tests():
    tested = {type(micro(family)) for family in (*FULL_ATTENTION, *BLOCK_CAUSAL)}
    assert tested == {one.kind for one in REGISTERED}
