"""Mixtures of experts: what computes each token, and what a configuration may say."""

import pytest
import torch
from toy import micro

from dlmdecode.models.experts import Experts
from dlmdecode.models.llada_moe import LLaDAMoE
from dlmdecode.models.qwen import QwenMLP


def mixture(normalised: bool = False) -> Experts:
    torch.manual_seed(0)
    return Experts(16, 8, num_experts=6, per_token=2, normalised=normalised)


def plainly(experts: Experts, token: torch.Tensor) -> torch.Tensor:
    probability = experts.gate(token).softmax(-1)
    weight, chosen = probability.topk(2)
    weight = weight / weight.sum() if experts.normalised else weight
    return sum(w * experts.experts[e](token) for w, e in zip(weight, chosen.tolist(), strict=True))


@pytest.mark.parametrize("normalised", [False, True])
@torch.inference_mode()
def test_each_token_is_the_weighted_sum_of_its_experts(normalised):
    experts, x = mixture(normalised), torch.randn(3, 7, 16)
    expected = torch.stack([plainly(experts, token) for token in x.flatten(0, 1)])
    torch.testing.assert_close(experts(x), expected.view(3, 7, 16))


@torch.inference_mode()
def test_experts_that_nobody_asks_for_and_a_single_token_change_nothing():
    experts, x = mixture(), torch.randn(1, 1, 16)
    torch.testing.assert_close(experts(x)[0, 0], plainly(experts, x[0, 0]))
    assert experts(x[:, :0]).shape == (1, 0, 16)


@torch.inference_mode()
def test_weights_sum_to_one_only_where_they_are_normalised():
    x = torch.randn(5, 16)
    assert (mixture().route(x)[0].sum(-1) < 1).all()
    torch.testing.assert_close(mixture(normalised=True).route(x)[0].sum(-1), torch.ones(5))


def test_the_router_decides_in_float32_whatever_the_dtype():
    experts = mixture().bfloat16()
    weight, _ = experts.route(torch.randn(5, 16).bfloat16())
    assert weight.dtype == torch.float32
    assert experts(torch.randn(5, 16).bfloat16()).dtype == torch.bfloat16


def test_layers_without_experts_have_a_gated_mlp():
    model = LLaDAMoE(dict(micro("llada-moe").config) | {"moe_layer_freq": [0, 1, 1]})
    kinds = [type(block.mlp) for block in model.blocks]
    assert kinds == [QwenMLP, Experts, Experts]
    assert model.blocks[0].mlp.up_proj.out_features == 160


def test_a_list_of_layers_that_is_absent_means_experts_everywhere():
    model = LLaDAMoE(dict(micro("llada-moe").config) | {"moe_layer_freq": None})
    assert all(isinstance(block.mlp, Experts) for block in model.blocks)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"moe_layer_freq": [1]}, r"moe_layer_freq=\[1\]: it must list 0 or 1 for each of 3"),
        ({"moe_layer_freq": 1}, "moe_layer_freq=1: it must list"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok=9: .*1 to 8"),
        ({"moe_router_score_function": "sigmoid"}, "moe_router_score_function='sigmoid'"),
        ({"shared_expert_intermediate_size": 32}, "shared_expert_intermediate_size=32"),
        ({"router_num_group": 2}, "router_num_group=2"),
    ],
)
def test_a_router_that_is_not_implemented_is_refused_by_its_field(setting, message):
    with pytest.raises(ValueError, match=message):
        LLaDAMoE(dict(micro("llada-moe").config) | setting)
