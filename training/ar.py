"""Train the embedded autoregressive verifier, a stock transformers Llama on the same problems.

    python -m training.ar --config training/configs/tiny-ar.json --run runs/tiny-ar

The loss is the answer's, with one end token, plus a tenth of the question's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from training.data import Example
from training.initial import begin_with, initial_weights
from training.loop import main


class NextToken:
    """The objective: `loss(model, batch, step)`."""

    def __init__(self, config: dict[str, Any], tokenizer: Any):
        self.end, self.config, self.tokenizer = tokenizer.eos_token_id, config, tokenizer

    def build(self) -> LlamaForCausalLM:
        """Random weights, or those of `initial`, a checkpoint of the same shape."""
        torch.manual_seed(self.config["seed"])
        llama = LlamaConfig(
            **self.config["model"],
            bos_token_id=None,
            eos_token_id=self.end,
            pad_token_id=self.end,
            attn_implementation="sdpa",
        )
        model = LlamaForCausalLM(llama)
        if "initial" in self.config:
            begin_with(model, initial_weights(self.config["initial"], self.tokenizer))
        return model

    def loss(self, model: LlamaForCausalLM, batch: list[Example], step: int) -> Tensor:
        """Mean loss of an answer token, plus `question_weight` times that of a question token."""
        del step
        length = max(map(len, batch))
        tokens = torch.full((len(batch), length), self.end)
        weight = torch.zeros(len(batch), length)
        for row, example in enumerate(batch):
            tokens[row, : len(example)] = torch.tensor(example.question + example.answer)
            weight[row, 1 : len(example)] = self.config["question_weight"]
            weight[row, len(example.question) : len(example)] = 1.0
        tokens, weight = tokens.to(model.device), weight[:, 1:].to(model.device)
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        asked = weight > 0
        logits = model.lm_head(hidden[:, :-1][asked]).float()
        loss = F.cross_entropy(logits, tokens[:, 1:][asked], reduction="none")
        return (loss * weight[asked]).sum() / (weight == 1).sum()

    def answer(self, model: LlamaForCausalLM, questions: list[list[int]]) -> list[list[int]]:
        return decode(model, questions, self.end)


def decode(
    model: LlamaForCausalLM, questions: list[list[int]], end: int, canvas: int = 128
) -> list[list[int]]:
    """Greedy answers of at most `canvas` tokens."""
    longest = max(map(len, questions))
    tokens = torch.full((len(questions), longest), end)
    attend = torch.zeros_like(tokens)
    for row, question in enumerate(questions):
        tokens[row, longest - len(question) :] = torch.tensor(question)
        attend[row, longest - len(question) :] = 1
    written = model.generate(
        tokens.to(model.device),
        attention_mask=attend.to(model.device),
        max_new_tokens=canvas,
        do_sample=False,
    )
    return written[:, longest:].tolist()


if __name__ == "__main__":
    main(NextToken, __doc__)
