"""The autoregressive model whose text it is: any stock transformers causal LM.

verifier = load_verifier("tiny-ar")
verifier.generate("Tom has 3 apples.", max_new_tokens=64).texts
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from dlmdecode import models
from dlmdecode.checks import Count, conform, require
from dlmdecode.models.loading import named_dtype, pick_device
from dlmdecode.models.modules import stated
from dlmdecode.models.quantize import check_quantize, pack_linears
from dlmdecode.prompts import check_context, encode_prompts
from dlmdecode.speculation.verifier.caching import check_cached
from dlmdecode.speculation.verifier.facts import (
    causal_model,
    eos_ids,
    generates,
    has_virtual_tokens,
    is_compiled,
    is_decoder,
    max_positions,
)
from dlmdecode.speculation.verifier.options import check_mode, text_options

MISFITS = {
    "missing_keys": "missing tensors: {}",
    "mismatched_keys": "tensors of another shape than the configuration says: {}",
    "unexpected_keys": "tensors of layers that the configuration leaves out: {} are left over",
}
LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
NOT_HERE = {
    "return_dict_in_generate": "what comes back is a Written: leave it out",
    "generation_config": "give its options by their names",
}
EMBEDDED = {"tiny-ar": Path(models.__file__).parent / "tiny-ar"}


@dataclass
class Written:
    """What the verifier wrote.

    Attributes:
        sequences: (B, P+G) int64, each row prompt then text, right-padded.
        texts: the text of each row without prompt and special tokens; None without a tokenizer.
    """

    sequences: Tensor
    texts: list[str] | None


class Verifier:
    """A transformers causal LM with its tokenizer; `model` and `tokenizer` are transformers' own.

    Raises:
        ValueError: a model that is no causal LM, or one without a key/value cache to rewind.
    """

    mask_id = -1  # prompts pass the same checks as a diffusion model's; no id is a mask here

    def __init__(self, model: Any, tokenizer: Any = None):
        check_causal(model)
        self.model, self.tokenizer = model.eval(), tokenizer
        eos_ids(model)  # which have to be some

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().num_embeddings

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return eos_ids(self.model)

    @property
    def max_length(self) -> int | None:
        """Positions the model can address, if its configuration says so."""
        return max_positions(self.model)

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int = 256,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Written:
        """Plain greedy decoding, one prompt at a time; `prompt` as in `dlmdecode.generate`.

        `options` go to transformers' `generate`.

        Raises:
            ValueError: an option of the call or of the checkpoint's generation_config, such as
                beams, that asks for anything but one text, token by token.
        """
        config = self.model.generation_config
        for name, fix in NOT_HERE.items():
            require(not options.get(name), name, options.get(name), fix)
        check_mode(options, config)
        prompts = encode_prompts(prompt, attention_mask, self)
        max_new_tokens = conform("max_new_tokens", max_new_tokens, Count)
        check_context(prompts, max_new_tokens, self)
        options = {"do_sample": False} | text_options(options, config, self.tokenizer)
        rows = [
            self.model.generate(
                ids[None],
                attention_mask=torch.ones_like(ids)[None],
                max_new_tokens=max_new_tokens,
                **options,
            )[0]
            for ids in prompts
        ]
        return Written(pad(rows, self, options), self.decode(rows, prompts))

    def decode(self, rows: list[Tensor], prompts: list[Tensor]) -> list[str] | None:
        """The text of each row after its prompt."""
        if self.tokenizer is None:
            return None
        pairs = zip(rows, prompts, strict=True)
        return [
            self.tokenizer.decode(row[len(ids) :], skip_special_tokens=True) for row, ids in pairs
        ]


def pad(rows: list[Tensor], verifier: Verifier, options: dict[str, Any]) -> Tensor:
    """Rows as one (B, L) tensor, padded on the right with the pad token, else EOS, else 0."""
    given = options.get("pad_token_id", verifier.model.generation_config.pad_token_id)
    known = (one for one in (given, *verifier.eos_ids) if one is not None)
    fill = next((one for one in known if 0 <= one < verifier.vocab_size), 0)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def check_causal(model: Any) -> None:
    """Refuse what cannot verify."""
    name, inner = type(model).__name__, causal_model(model)
    causal = inner is not None and generates(model)
    require(causal, "verifier", name, "give a transformers causal LM, a name or a path")
    require(not inner.config.is_encoder_decoder, "verifier", name, "it is an encoder-decoder")
    encoder = inner.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    require(
        not encoder or is_decoder(inner),
        "verifier",
        name,
        "it is an encoder: its config needs is_decoder=True",
    )
    check_cached(inner, "verifier")
    require(
        not is_compiled(model),
        "verifier",
        name,
        "`generate` of a torch.compile'd model runs the model inside, uncompiled; give that one, "
        "and compile it in place with model.compile()",
    )
    require(
        not has_virtual_tokens(model),
        "verifier",
        name,
        "its virtual tokens are no part of a text; give an adapter of another kind",
    )


def load_verifier(
    name_or_path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    quantize: str | None = None,
) -> Verifier:
    """Load a causal LM through transformers' own classes, never remote code, never a pickle.

    Args:
        name_or_path: "tiny-ar" (embedded), a hub id, a folder, or a `.gguf` file (needs `gguf`
            and `accelerate`).
        device: where to put the weights; None takes the GPU if there is one.
        dtype: "auto" keeps the checkpoint's, or a name or `torch.dtype`.
        revision: branch, tag or commit of a hub id.
        quantize: "int8" or "int4" packs all linear layers but the head, through torchao, once the
            model is loaded; the text is then the packed model's.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: no causal LM, or one that cannot verify; damaged files, tensors that are missing
            or have another shape than the configuration says; a revision beside a folder; a dtype
            that is none; `quantize` as for `dlmdecode.load`, or
            of a checkpoint that is quantized already.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_quantize(quantize)
    target, converted = pick_device(device), "auto" if dtype == "auto" else named_dtype(dtype)
    named = isinstance(name_or_path, (str, os.PathLike))
    require(named, "verifier", name_or_path, "give a name, a folder, a .gguf file or a hub id")
    name = os.fspath(name_or_path)
    folder = os.fspath(EMBEDDED.get(name, name))
    local = f"{name} is on this machine; revisions are those of a hub id"
    require(revision is None or not Path(folder).exists(), "revision", revision, local)
    source: dict[str, Any] = {"revision": revision} if revision else {}
    read: Any = AutoModelForCausalLM.from_pretrained
    if folder.lower().endswith(".gguf"):
        source["gguf_file"] = Path(folder).name
        folder = os.fspath(Path(folder).parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **source)
        weights = {} if "gguf_file" in source else {"use_safetensors": True}
        with torch.device("cpu"):  # else they go to torch's default device, whatever that is
            model, loaded = read(
                folder,
                trust_remote_code=False,
                dtype=converted,
                output_loading_info=True,
                **weights,
                **source,
            )
    except Exception as error:  # of whichever library finds a file damaged
        if Path(name).is_file() or (Path(folder) / "config.json").is_file():
            reason = f"{type(error).__name__}: {error}"  # a KeyError says a bare word
            raise ValueError(f"{name}: it cannot be loaded as a verifier: {reason}") from error
        known = ", ".join(map(repr, EMBEDDED))
        raise FileNotFoundError(
            f"no verifier {name!r}: give an embedded name ({known}), a folder, a .gguf file or a "
            f"hub id ({error})"
        ) from error
    check_loaded(folder, loaded)
    verifier = Verifier(model.to(target), tokenizer)
    if quantize is not None:
        packed = stated(model.config, "quantization_config") is not None
        require(not packed, "quantize", quantize, f"{name} is quantized already; leave it out")
        pack_linears(model, quantize, model.get_output_embeddings())
    return verifier


def check_loaded(folder: str, loaded: dict[str, Any]) -> None:
    """Refuse weights that are not those of the configuration; transformers would draw new ones."""
    keys = {kind: sorted(str(key) for key in loaded[kind]) for kind in loaded if kind in MISFITS}
    keys["unexpected_keys"] = list(filter(LAYER.search, keys["unexpected_keys"]))
    for kind, some in keys.items():
        if some:
            raise ValueError(f"{folder}: {MISFITS[kind].format(', '.join(some[:8]))}")


def resolve_verifier(verifier: Any, tokenizer: Any = None) -> Verifier:
    """The verifier that a name, a path, a transformers model or a `Verifier` stands for."""
    named = isinstance(verifier, (str, os.PathLike))
    require(
        tokenizer is None or not (named or isinstance(verifier, Verifier)),
        "tokenizer",
        type(tokenizer).__name__,
        "it goes with a bare transformers model; a Verifier or a checkpoint has its own",
    )
    if isinstance(verifier, Verifier):
        return verifier
    return load_verifier(verifier) if named else Verifier(verifier, tokenizer)
