"""Families by name, and one that lives outside the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toy import EOS, MASK, micro, prompts

import dlmdecode
from dlmdecode.caches import list_caches
from dlmdecode.models import families
from dlmdecode.models.config import Config
from dlmdecode.models.dream import Dream
from dlmdecode.models.dream_reasoner import DreamReasoner
from dlmdecode.models.families import family_of, find_family, list_families, register_family
from dlmdecode.models.llada import LLaDA
from dlmdecode.models.llada_moe import LLaDAMoE
from dlmdecode.models.transformer import Block, RMSNorm, Transformer

SMALL = {"model_type": "plain", "width": 32, "heads": 2, "layers": 2, "vocab": 64, "tied": False}
IDS = {"mask_token_id": 63, "eos_token_id": 62}


class PlainBlock(Block):
    """A layer with names of its own, whose queries and keys are normed before rotation."""

    def __init__(self, layer: int, config: Config):
        width, heads = config.count("width"), config.count("heads")
        super().__init__(layer, heads, heads)
        self.first, self.second = RMSNorm(width, 1e-6), RMSNorm(width, 1e-6)
        self.heads = RMSNorm(width // heads, 1e-6)
        self.mix = nn.Linear(width, 3 * width, bias=False)
        self.out, self.inner = nn.Linear(width, width), nn.Linear(width, width)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.mix(self.first(x)).chunk(3, -1)
        return q, k, v

    def before_rotation(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(q), self.heads(k)

    def attention_out(self, x: Tensor) -> Tensor:
        return self.out(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.inner(self.second(x)).relu()


class Plain(Transformer):
    """Attention is causal between blocks where the configuration has a `block`."""

    family = "plain"
    layers_field, tied_field = "layers", "tied"
    layer_names, embedding_name, head_name = "stack.", "table.weight", "read.weight"
    mask_tokens, end_tokens = ("<hole>",), ("<stop>",)

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        config = self.config
        width, vocab = config.count("width"), config.count("vocab")
        self.num_kv_heads, self.head_dim = config.count("heads"), width // config.count("heads")
        self.rope_theta, self.rotary_dim = 10000.0, self.head_dim // 2
        self.block_length = config.count_or_none("block")
        self.table, self.read = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias=False)
        self.stack = nn.ModuleList(PlainBlock(i, config) for i in range(config.count("layers")))
        self.final = RMSNorm(width, 1e-6)

    @property
    def embedding(self) -> nn.Embedding:
        return self.table

    @property
    def blocks(self) -> Any:
        return self.stack

    def final_norm(self, x: Tensor) -> Tensor:
        return self.final(x)

    def head(self, hidden: Tensor) -> Tensor:
        return self.read(hidden)

    @classmethod
    def load_tokenizer(cls, folder: Path) -> Any:
        """Words of its own file, and no class of transformers."""
        path = folder / "words.json"
        words = json.loads(path.read_text()) if path.is_file() else None
        return words and SimpleNamespace(
            mask_token_id=None, eos_token_id=None, get_added_vocab=lambda: words
        )


@pytest.fixture
def plain(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    register_family("plain")(Plain)
    yield


def written(folder: Path, **config: Any) -> Path:
    """A micro checkpoint in `folder`."""
    torch.manual_seed(0)
    config = {name: value for name, value in (SMALL | IDS | config).items() if value is not None}
    model = Plain(config)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.3)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


FULL = {"d2", "dkv", "dllm", "dual", "flash", "prefix", "sparse"}  # they approximate full attention


@pytest.mark.parametrize("block", [None, 4])
def test_a_family_from_outside_loads_and_decodes_under_every_cache_that_makes_sense(
    plain, tmp_path, block
):
    model = dlmdecode.load(written(tmp_path, block=block), device="cpu")
    assert type(model) is Plain and (model.mask_id, model.eos_ids) == (63, (62,))
    rows = [row % 60 for row in prompts(5, 2, 9)]
    options = {"max_new_tokens": 16, "block_length": 8, "eos": "ignore", "threshold": 0.3}
    whole = dlmdecode.generate(model, rows, **options)
    refused = {"dsb", "dcd"} | ({"block"} if block is None else FULL)
    for cache in list_caches():
        if cache in refused:
            with pytest.raises(ValueError, match=f"cache='{cache}': "):
                dlmdecode.generate(model, rows, cache=cache, **options)
            continue
        batch = dlmdecode.generate(model, rows, cache=cache, **options)
        assert not (batch.sequences == 63).any()
        for i, prompt in enumerate(rows):
            alone = dlmdecode.generate(model, prompt, cache=cache, **options)
            assert torch.equal(batch.sequences[i, : len(prompt) + 16], alone.sequences[0])
        if cache in ("none", "block", "auto"):
            assert torch.equal(batch.sequences, whole.sequences)


def test_a_network_that_names_no_mask_token_is_refused():
    bare = LLaDA(dict(micro("llada").config))
    with pytest.raises(ValueError, match="model='LLaDA': it names no mask token: load it, or set"):
        dlmdecode.generate(bare, prompts(3), max_new_tokens=8)
    bare.mask_id, bare.eos_ids = MASK, (EOS,)
    assert dlmdecode.generate(bare.eval(), prompts(3), max_new_tokens=8).nfe[0] > 0


def test_its_tokenizer_and_the_names_of_its_special_tokens_are_its_own(plain, tmp_path):
    folder = written(tmp_path, mask_token_id=None, eos_token_id=None)
    (folder / "words.json").write_text(json.dumps({"<hole>": 61, "<stop>": 60, "<|mask|>": 59}))
    model = dlmdecode.load(folder, device="cpu")
    assert (model.mask_id, model.eos_ids) == (61, (60,))


def test_a_package_offers_a_family_by_an_entry_point(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    loaded = []

    class Offered(EntryPoint):
        def load(self):
            loaded.append(self.name)
            return register_family("plain")(Plain)

    offered = Offered("plain", "somewhere:Plain", "dlmdecode.families")
    monkeypatch.setattr(
        families, "entry_points", lambda group: [offered] if group == offered.group else []
    )
    assert type(dlmdecode.load(written(tmp_path), device="cpu")) is Plain
    assert list_families()[-1] == "plain" and loaded == ["plain"]


def test_families_that_share_a_model_type_are_told_apart(plain):
    def is_plain(config: Config) -> bool:
        return config.get("plain") is not None

    register_family("Dream", when=is_plain)(Plain)
    register_family("PlainForCausalLM")(Plain)
    assert find_family(Config(model_type="Dream")) is Dream
    assert find_family(Config(model_type="Dream", block_size=4)) is DreamReasoner
    assert find_family(Config(model_type="Dream", plain=1)) is Plain
    assert find_family(Config(model_type="llada", architectures=["PlainForCausalLM"])) is Plain
    assert find_family(Config(model_type="llada", architectures=["LLaDAModelLM"])) is LLaDA
    assert find_family(Config(model_type="llama")) is find_family(Config()) is None


def test_the_class_tells_llada_moe_from_llada_where_the_model_type_does_not():
    for kind in ("llada_moe", "lladamoe", "llada"):
        config = Config(model_type=kind, architectures=["LLaDAMoEModelLM"])
        assert family_of(config) is LLaDAMoE


def test_checkpoints_made_from_llada_and_dream_load_as_these():
    assert family_of(Config(model_type="mmada", architectures=["MMadaModelLM"])) is LLaDA
    for name, kind in (("llada", LLaDA), ("Dream", Dream)):  # dParallel, d3LLM, DiffuCoder
        assert family_of(Config(model_type=name, architectures=["SomeNewModel"])) is kind


def test_a_mask_that_no_file_names_is_the_published_one():
    published = {"illada": 5, "stable-diffcoder": 5, "llada2-moe": 156895, "fast-dllm-v2": 151665}
    for family, mask in published.items():
        assert type(micro(family)).mask_id == mask


def test_a_family_that_is_registered_is_no_longer_refused(plain):
    config = Config(model_type="sdar_moe")
    with pytest.raises(ValueError, match="sdar_moe.* is not implemented: .* has experts"):
        family_of(config)
    register_family("sdar_moe")(Plain)
    assert family_of(config) is Plain


@pytest.mark.parametrize(
    "names, more, message",
    [
        ((), {}, "names=\\(\\): give the model_type"),
        (("new", "sdar"), {}, "names='sdar': a family of this name"),
        (("new",), {"embedded": {"tiny": Path()}}, "embedded='tiny': a model of this name"),
    ],
)
def test_a_name_is_registered_once(names, more, message):
    with pytest.raises(ValueError, match=message):
        register_family(*names, **more)(Plain)
    assert "new" not in list_families()
