"""The settings of the rotary code, in the forms of transformers 4 and 5."""

import math

import pytest
import torch
from toy import FAMILIES, micro

from dlmdecode.models.config import Config
from dlmdecode.models.rotary import rope_theta

THETA = 1e6
DEFAULT = [{}, {"rope_type": "default"}, {"type": "default"}, {"partial_rotary_factor": 1.0}]


def config_with(**settings):
    return Config({name: value for name, value in settings.items() if value is not ...})


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("settings", DEFAULT)
def test_the_base_may_stand_in_either_place_or_both(place, settings):
    inside = settings | {"rope_theta": THETA}
    assert rope_theta(config_with(**{place: inside})) == THETA
    assert rope_theta(config_with(rope_theta=THETA, **{place: settings})) == THETA
    assert rope_theta(config_with(rope_theta=int(THETA), **{place: inside})) == THETA
    assert rope_theta(config_with(rope_parameters=inside, rope_scaling=settings)) == THETA


@pytest.mark.parametrize("settings", [{}, {"rope_scaling": None}, {"rope_parameters": {}}])
def test_without_a_base_it_is_that_of_the_published_classes(settings):
    assert rope_theta(Config(settings)) == 10000.0


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_two_bases_that_disagree_are_refused_with_both(place):
    config = config_with(rope_theta=10000, **{place: {"rope_theta": THETA}})
    with pytest.raises(ValueError, match=rf"rope_theta=10000.0 and {place}.rope_theta=1000000.0"):
        rope_theta(config)


SCALED = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {"short_factor": [1.0], "long_factor": [2.0]},
    "proportional": {"partial_rotary_factor": 0.5},
    "ntk": {},
    7: {},
}


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("spelled", ["rope_type", "type"])
@pytest.mark.parametrize("kind", SCALED)
def test_a_scaled_code_is_refused_by_name(place, spelled, kind):
    settings = {spelled: kind, "rope_theta": THETA} | SCALED[kind]
    with pytest.raises(ValueError, match=f"{place}: {spelled}={kind!r}: scaled rotary codes"):
        rope_theta(config_with(**{place: settings}))


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"factor": 2.0}, "factor=2.0"),
        ({"mrope_section": [16, 24, 24]}, "mrope_section="),
        ({"full_attention": {"rope_theta": 1e4}}, "full_attention="),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"rope_theta": "1e6"}, "rope_theta='1e6'"),
        ({"rope_theta": math.nan}, "rope_theta=nan"),
        ({"rope_theta": -1}, "rope_theta=-1"),
        ({"rope_theta": 10**400}, "rope_theta=1000"),
        ({"rope_theta": True}, "rope_theta=True"),
    ],
)
@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_a_setting_that_would_be_ignored_is_refused_by_name(place, settings, named):
    with pytest.raises(ValueError, match=f"{place}: {named}"):
        rope_theta(config_with(**{place: settings}))


@pytest.mark.parametrize("wrong", ["linear", 2.0, [], True])
def test_settings_that_are_no_object_are_refused(wrong):
    with pytest.raises(ValueError, match="rope_scaling=.*it must be an object"):
        rope_theta(Config(rope_scaling=wrong))


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_model_in_transformers_5s_form_is_the_same_model(family):
    model, ids = micro(family), torch.arange(9)[None]
    config = model.config.but(
        rope_theta=None,
        rope_scaling=None,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
    )
    other = type(model)(config)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(ids), model(ids))
    other.rope_theta = 2 * model.rope_theta  # the check above is one
    assert not torch.allclose(other(ids), model(ids), atol=1e-3)
