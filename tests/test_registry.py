"""Samplers by name: registration, options, composition, and third-party packages."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from toy import micro, prompts

import dlmdecode
from dlmdecode import FixedBlocks, Sampler, Threshold, WholeCanvas, caches, registry, samplers
from dlmdecode.commands import catalogue
from dlmdecode.options import split, value_of
from dlmdecode.registry import registered


@pytest.fixture
def clean():
    """Forget what a test registers."""
    dlmdecode.list_samplers()
    before = dict(registry.REGISTRY)
    yield
    registry.REGISTRY.clear()
    registry.REGISTRY.update(before)


def test_the_samplers_of_this_package_are_listed_in_order():
    names = dlmdecode.list_samplers()
    assert names == sorted(names)
    assert {"vanilla", "dream", "threshold", "prophet"} <= set(names)


def test_every_sampler_says_what_it_is_and_where_it_comes_from():
    for name in dlmdecode.list_samplers():
        entry = registered(name)
        assert entry.help.endswith("."), name
        assert len(entry.help) <= 120, name
        assert entry.paper, name


@pytest.mark.parametrize("package, least", [(samplers, 30), (caches, 10)])
def test_no_file_of_a_method_is_longer_than_120_lines(package, least):
    files = list(Path(package.__path__[0]).glob("*.py"))
    assert len(files) > least
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 120, file.name


def test_a_recipe_is_a_value():
    first, second = (dlmdecode.sampler("threshold", threshold=0.8) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != dlmdecode.sampler("threshold", threshold=0.7)
    assert "Threshold(threshold=0.8)" in repr(first)


def test_an_unknown_sampler_is_refused_with_the_closest_name():
    with pytest.raises(ValueError, match="unknown sampler 'profet'; did you mean 'prophet'"):
        dlmdecode.sampler("profet")


def test_an_unknown_option_is_refused_with_the_closest_name():
    with pytest.raises(TypeError, match="unknown option 'treshold' .*did you mean 'threshold'"):
        dlmdecode.sampler("threshold", treshold=0.5)


@pytest.mark.parametrize("spec", ["", "a+", 3, None, [], ["threshold", 3]])
def test_what_is_no_sampler_is_refused(spec):
    with pytest.raises((ValueError, TypeError)):
        dlmdecode.sampler(spec)


def test_a_component_named_twice_is_refused():
    with pytest.raises(ValueError, match="named twice"):
        dlmdecode.sampler("prophet+prophet")


def test_two_rules_for_the_same_decision_are_refused():
    with pytest.raises(ValueError, match="both set 'select'"):
        dlmdecode.sampler("threshold+vanilla")


def test_a_sampler_that_chooses_no_positions_takes_vanilla_unless_another_one_does():
    alone = dlmdecode.sampler("prophet")
    assert type(alone.select).__name__ == "TopK"
    beside = dlmdecode.sampler("prophet+threshold", threshold=0.7, early=3.0)
    assert beside.select == Threshold(0.7)
    assert beside.stops[0].early == 3.0


def test_the_order_of_a_composition_does_not_matter():
    assert dlmdecode.sampler("prophet+threshold") == dlmdecode.sampler("threshold+prophet")


def test_a_composition_can_be_a_list_and_can_hold_recipes():
    recipe = Sampler(select=Threshold(0.4))
    built = dlmdecode.sampler(["prophet", recipe])
    assert built.select == Threshold(0.4)
    assert built.stops


def test_blocks_come_from_the_call_unless_the_recipe_has_its_own():
    assert dlmdecode.sampler("threshold").blocks == FixedBlocks(32)
    assert dlmdecode.sampler("threshold", block_length=8).blocks == FixedBlocks(8)
    assert dlmdecode.sampler("threshold", block_length=None).blocks == WholeCanvas()


def test_a_registered_factory_is_a_sampler_and_its_parameters_are_options(clean):
    @dlmdecode.register_sampler("mine", paper="arXiv 0000.00000")
    def mine(level: float = 0.9) -> Sampler:
        """Everything above a level."""
        return Sampler(select=Threshold(level))

    assert "mine" in dlmdecode.list_samplers()
    assert registered("mine").options() == {"level": 0.9}
    out = dlmdecode.generate(
        micro("llada"), prompts(4), sampler="mine", level=0.2, max_new_tokens=8
    )
    same = dlmdecode.generate(micro("llada"), prompts(4), threshold=0.2, max_new_tokens=8)
    assert out.sequences.tolist() == same.sequences.tolist()
    with pytest.raises(ValueError, match="'mine' is registered already by test_registry"):
        dlmdecode.register_sampler("mine")(mine)


def test_a_name_that_could_not_be_composed_is_refused():
    with pytest.raises(ValueError, match="'a\\+b': use letters"):
        dlmdecode.register_sampler("a+b")(lambda: Sampler())


def test_presets_of_the_model_family_replace_defaults_and_options_replace_presets(clean):
    @dlmdecode.register_sampler("mine", presets={"Dream": {"level": 0.5}})
    def mine(level: float = 0.9) -> Sampler:
        """Everything above a level."""
        return Sampler(select=Threshold(level))

    def level_for(family, **options):
        return dlmdecode.sampler("mine", family=micro(family).family, **options).select.threshold

    assert registered("mine").options("Dream") == {"level": 0.5}
    assert level_for("llada") == 0.9
    assert level_for("dream") == 0.5
    assert level_for("dream", level=0.7) == 0.7


def test_samplers_of_installed_packages_are_found_by_entry_point(clean, monkeypatch):
    entry = EntryPoint("elsewhere", "third_party_sampler", registry.ENTRY_POINTS)
    loaded = []

    def load(self):
        loaded.append(self.value)
        dlmdecode.register_sampler("elsewhere")(lambda: Sampler(select=Threshold(0.5)))

    monkeypatch.setattr(EntryPoint, "load", load)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert "elsewhere" in dlmdecode.list_samplers()
    assert dlmdecode.sampler("elsewhere").select == Threshold(0.5)
    assert loaded == ["third_party_sampler"]


@pytest.mark.parametrize("spec", [None, 3, [], ["threshold", 3], "", "threshold+", {"threshold"}])
def test_what_names_no_sampler_is_refused(spec):
    with pytest.raises(ValueError, match="sampler=.*give a name, 'a\\+b', a Sampler, or a list"):
        dlmdecode.sampler(spec)


# options in the text, and whose they are


def test_options_stand_in_the_text_of_a_sampler_or_beside_it():
    written = dlmdecode.sampler("adablock+credit, alpha=0.5,delimiters=5,6,window=0.5")
    given = dlmdecode.sampler("adablock+credit", alpha=0.5, delimiters=(5, 6), window=0.5)
    assert written == given
    assert dlmdecode.sampler("threshold,block_length=8").blocks == FixedBlocks(8)
    call = dict(max_new_tokens=8, seed=0)
    one = dlmdecode.generate(micro("llada"), prompts(4), "threshold,threshold=0.2", **call)
    other = dlmdecode.generate(micro("llada"), prompts(4), "threshold", threshold=0.2, **call)
    assert one.sequences.tolist() == other.sequences.tolist() and one.nfe == other.nfe
    settings = dlmdecode.generate(micro("llada"), prompts(4), "threshold,gen_length=8,eos=ignore")
    assert settings.sequences.shape == (1, 12)


@pytest.mark.parametrize(
    "text, option, value",
    [
        ("a,x=1", "x", "1"),
        ("a,x=5,6", "x", "5,6"),
        ("a,x=5,6,y=2", "x", "5,6"),
        ("a,x=", "x", ""),
        ("a, x = 1", "x", " 1"),
        ('a,x={"3": "a,b"},y=1', "x", '{"3": "a,b"}'),
        ("a,x=a=b", "x", "a=b"),
        ("a,b.x=0.5", "b.x", "0.5"),
    ],
)
def test_a_comma_begins_an_option_only_where_one_follows(text, option, value):
    name, found = split("sampler", text)
    assert (name, found[option]) == ("a", value)


@pytest.mark.parametrize("text", ["a,", "a,x", "a,0.5", "a,x,y=1", "a,2x=1", "a,b..x=1", "a,-x=1"])
def test_what_follows_a_name_and_is_no_option_is_refused(text):
    with pytest.raises(ValueError, match=f"sampler={text!r}: .* not of the form option=value"):
        dlmdecode.sampler(text)


@pytest.mark.parametrize("text", ["threshold threshold=0.5", "threshold;threshold=0.5", "a+b=1"])
def test_options_that_no_comma_sets_apart_are_refused_with_the_form(text):
    with pytest.raises(ValueError, match="behind a comma: NAME,OPTION=VALUE"):
        dlmdecode.sampler(text)


def test_an_option_is_given_once():
    with pytest.raises(ValueError, match="'threshold' is given twice"):
        dlmdecode.sampler("threshold,threshold=0.5,threshold=0.6")
    with pytest.raises(ValueError, match="threshold=0.6: the sampler's text says threshold=0.5"):
        dlmdecode.sampler("threshold,threshold=0.5", threshold=0.6)
    with pytest.raises(ValueError, match="max_new_tokens=9: the sampler's text says"):
        dlmdecode.generate(micro("llada"), prompts(4), "vanilla,max_new_tokens=8", max_new_tokens=9)
    with pytest.raises(ValueError, match="credit.gamma=0.6: credit.gamma=0.5 is given, too"):
        dlmdecode.sampler("credit", gamma=0.5, **{"credit.gamma": 0.6})


def test_an_option_that_two_components_have_needs_the_name_of_its_own():
    with pytest.raises(
        ValueError,
        match="gamma=0.3: entropy_bound and credit have an option of this name: "
        "give entropy_bound.gamma or credit.gamma",
    ):
        dlmdecode.sampler("entropy_bound+credit", gamma=0.3)
    first = dlmdecode.sampler("entropy_bound+credit,credit.gamma=0.3")
    second = dlmdecode.sampler("entropy_bound+credit", **{"credit.gamma": 0.3})
    assert first == second == dlmdecode.sampler(["entropy_bound", "credit,gamma=0.3"])
    assert first.processors == dlmdecode.sampler("credit", gamma=0.3).processors
    assert first.select == dlmdecode.sampler("entropy_bound").select
    assert first != dlmdecode.sampler("entropy_bound+credit,entropy_bound.gamma=0.3")


def test_an_option_that_a_component_shares_with_the_one_that_chooses_for_it_needs_its_name():
    with pytest.raises(ValueError, match="give freedave.threshold or threshold.threshold"):
        dlmdecode.sampler("freedave+credit", threshold=0.9)
    built = dlmdecode.sampler("freedave+credit,threshold.threshold=0.7")
    assert built.select == Threshold(0.7)
    assert dlmdecode.sampler("freedave", threshold=0.9) == dlmdecode.sampler(
        "freedave,freedave.threshold=0.9"
    )


@pytest.mark.parametrize(
    "option, message",
    [
        ("credit.gama", "unknown option 'credit.gama' .*did you mean 'credit.gamma'"),
        ("credits.gamma", "unknown option 'credits.gamma' .*did you mean 'credit.gamma'"),
        ("prophet.early", "unknown option 'prophet.early' of sampler 'entropy_bound\\+credit'"),
        ("gama", "it takes alpha, beta, credit.gamma, entropy_bound.gamma"),
        ("credit.steps", "unknown option 'credit.steps'"),
    ],
)
def test_a_name_that_no_component_has_is_refused_with_the_closest_one(option, message):
    with pytest.raises(TypeError, match=message):
        dlmdecode.sampler(f"entropy_bound+credit,{option}=1")


def test_every_default_in_the_listing_can_be_written_as_an_option():
    for name in dlmdecode.list_samplers():
        for option, value in registered(name).options().items():
            text = catalogue.show(value)
            assert split("sampler", f"{name},{option}={text},last=1") == (
                name,
                {option: text, "last": "1"},
            )
            assert value_of(text) == value
