"""Loading: checkpoints in every published layout, and everything that can be wrong with one."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import CHAT, EOS, FAMILIES, MASK, MODELS, give_llada_tokenizer, micro

import dlmdecode
from dlmdecode.models.loading import ARCHITECTURES, load


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


def test_ids_and_eval_mode_come_with_the_model():
    for family in FAMILIES:
        model = micro(family)
        assert (model.mask_id, model.eos_ids, model.tokenizer) == (MASK, (EOS,), None)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_the_mask_id_is_the_checkpoints_own(folder):
    rewrite(folder / "config.json", mask_token_id=5)  # iLLaDA's
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


def test_an_unknown_device_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="device='tpu9'"):
        load(folder, device="tpu9")


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
    with pytest.raises(ValueError, match=f"model_type={kind!r}.*llada, Dream.*wrap"):
        load(folder)


def test_a_config_that_is_no_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
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


def test_a_llada_folder_brings_its_tokenizer_and_chat_template(folder):
    give_llada_tokenizer(folder)
    model = load(folder)
    assert model.tokenizer("w1 w22")["input_ids"] == [1, 22]
    assert model.tokenizer.chat_template == CHAT
    prompt = [{"role": "user", "content": "w1 w2"}]
    out = dlmdecode.generate(model, prompt, max_new_tokens=8, block_length=8)
    assert out.sequences[0, : out.prompt_lengths[0]].tolist() == [316, 1, 2, 317]
    assert out.texts[0].split() == [f"w{i}" for i in out.sequences[0, 4:].tolist()]


def test_an_end_of_turn_token_of_the_tokenizer_is_an_eos_too(folder):
    give_llada_tokenizer(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["<|eot_id|>"] = 314
    del tokenizer["model"]["vocab"]["<unused314>"]
    token = dict(tokenizer["added_tokens"][0], id=314, content="<|eot_id|>")
    tokenizer["added_tokens"].insert(0, token)
    path.write_text(json.dumps(tokenizer))
    assert load(folder).eos_ids == (EOS, 314)


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


def test_every_architecture_has_a_micro_checkpoint_in_these_tests():
    kinds = [
        json.loads((MODELS / f"{family}-micro" / "config.json").read_text())["model_type"]
        for family in FAMILIES
    ]
    assert kinds == list(ARCHITECTURES)
