"""What is no part of its slot is refused, and parts say what they cannot stand beside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pytest
import torch
from toy import EOS, MASK, micro

import dlmdecode
from dlmdecode import Canvas, FixedBlocks, Sampler, Threshold, TopK
from dlmdecode.decoding.loop import choose
from dlmdecode.decoding.parts import Part, Processor, Score, Selection, Stop, Trust
from dlmdecode.decoding.sampler import MANY, ONE
from dlmdecode.parts.scores import Margin, NegativeEntropy
from dlmdecode.parts.select import EvenQuota
from dlmdecode.samplers.adablock import DelimiterBlocks
from dlmdecode.samplers.credit import TraceCredit
from dlmdecode.samplers.dream import RandomShare
from dlmdecode.samplers.eoser import EosRejection
from dlmdecode.samplers.freedave import Lookahead
from dlmdecode.samplers.klass import KLHistory
from dlmdecode.samplers.learn2pd import LearnedAcceptance
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter
from dlmdecode.samplers.prophet import AnswerSettled
from dlmdecode.samplers.prophet_constraints import Constraints
from dlmdecode.samplers.vanilla import EndLast, RandomOrder
from dlmdecode.samplers.wino import NarrowOut


@dataclass(frozen=True)
class Everything(Selection):
    def __call__(self, canvas):
        return canvas.open


def everything(canvas):
    return canvas.open


@pytest.mark.parametrize(
    "slots, message",
    [
        ({"select": everything}, "select=<function everything.*: give a part whose class derives"),
        ({"select": EvenQuota()}, r"select=EvenQuota\(.*derives from Selection \(dlmdecode.deco"),
        ({"select": Threshold}, r"select=<class .*: give an instance, Threshold\(…\)"),
        ({"select": AnswerSettled()}, r"select=AnswerSettled\(.*another slot's: give it as stops"),
        ({"select": (Threshold(),)}, r"select=\(Threshold\(.*derives from Selection"),
        ({"blocks": Threshold()}, r"blocks=Threshold\(.*: give it as select"),
        ({"blocks": 32}, "blocks=32: give a part whose class derives from BlockSchedule"),
        ({"verify": None}, "verify=None: give a part whose class derives from Verification"),
        ({"estimate": Lookahead()}, r"estimate=Lookahead\(.*: give it as verify"),
        ({"evaluate": everything}, "evaluate=.*derives from Evaluation"),
        ({"stops": [AnswerSettled()]}, r"stops=\[.*: give a tuple of parts, as in \(part,\)"),
        ({"stops": AnswerSettled()}, r"stops=AnswerSettled\(.*: give a tuple of parts"),
        ({"stops": None}, "stops=None: give a tuple of parts"),
        ({"stops": (AnswerSettled,)}, r"stops=<class .*: give an instance, AnswerSettled\(…\)"),
        ({"stops": (Margin(),)}, r"stops=Margin\(\): .*: give it as scores"),
        ({"scores": (EosRejection(), 3)}, "scores=3: give a part whose class derives from Score"),
        ({"openings": (Trust(),)}, r"openings=Trust\(\): .*: give it as verify"),
        ({"temperature": "high"}, "temperature='high'"),
        ({"temperature": -1}, "temperature=-1: give a finite number, at least 0"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "of",
)
def test_what_a_slot_cannot_hold_is_refused_with_the_fix(slots, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**slots)


def test_every_slot_of_a_recipe_has_a_class():
    assert {*ONE, *MANY, "temperature", "min_tokens_per_step"} == set(Sampler.__dataclass_fields__)


@pytest.mark.parametrize(
    "body, message",
    [
        ({"read_canvas": True}, r"Mine.read_canvas=True: .*no such flag.*mean 'reads_canvas'\?"),
        ({"compare_steps": True}, "Mine.compare_steps=True: .*did you mean 'compares_steps'"),
        ({"conflicts": {"Other": "why"}}, "Mine.conflicts={'Other': 'why'}: .*no such flag"),
        ({"lossless": False}, "Mine.lossless=False: .*no such flag"),  # that of another slot
        ({"depth": 8}, "Mine.depth=8: .*annotates its fields"),
        ({"stateful": "yes"}, "Mine.stateful='yes': give True or False, or a property"),
        ({"stateful": len}, "Mine.stateful=.*: give True or False, or a property"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "of",
)
def test_a_flag_that_is_none_is_refused_where_the_class_is_defined(body, message):
    with pytest.raises(ValueError, match=message):
        type("Mine", (Selection,), {"__call__": everything, **body})


def test_fields_constants_methods_and_flags_are_no_misspelt_flags():
    @dataclass(frozen=True)
    class Mine(Score):
        LIMIT: ClassVar[int] = 3
        _private = 4
        replaces = True
        least: float = 0.5
        stateful: bool = False

        @property
        def reads_canvas(self) -> bool:
            return self.least > 0.5

        @cached_property
        def twice(self) -> float:
            return 2 * self.least

        @classmethod
        def of(cls) -> Mine:
            return cls()

        def __call__(self, confidence, canvas):
            return confidence

        again = __call__

    assert Sampler(scores=(Mine(0.7),)).reads_canvas
    assert not Sampler(scores=(Mine.of(),)).reads_canvas


@pytest.mark.parametrize("cls", [*ONE.values(), *MANY.values()])
def test_a_part_without_its_slots_method_cannot_be_made(cls):
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (cls,), {})()


@pytest.mark.parametrize(
    "slots, reason",
    [
        ({"processors": (KLHistory(),), "verify": Lookahead()}, "forwards of successive steps"),
        ({"revisions": (NarrowOut(),), "verify": Lookahead()}, "what is committed stays"),
        ({"revisions": (NarrowOut(),), "estimate": TraceCredit()}, "credits are kept for masks"),
        (
            {"select": LearnedAcceptance(None, TopK(EvenQuota())), "estimate": TraceCredit()},
            "the model's own confidences",
        ),
        (
            {
                "select": LearnedAcceptance(AcceptanceFilter(8, 4), TopK(EvenQuota())),
                "blocks": DelimiterBlocks(("\n",)),
            },
            "blocks of one length",
        ),
        ({"scores": (NegativeEntropy(), EosRejection())}, "a confidence below 0 more"),
        ({"scores": (EosRejection(), EndLast())}, "a confidence below 0 more"),
        ({"scores": (EosRejection(),), "select": RandomShare(4)}, "no confidence ranks them"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "of",
)
def test_parts_that_defeat_each_other_are_refused_with_the_reason(slots, reason):
    with pytest.raises(ValueError, match=f"cannot be combined with .*{reason}"):
        Sampler(**slots)


def test_a_part_written_elsewhere_is_judged_by_its_flags():
    class Watches(Processor):
        compares_steps = True

        def __call__(self, logits, rows, positions):
            return logits

    class Watchful(Watches):
        """A class of the same flags under another name."""

    for part in (Watches(), Watchful()):
        with pytest.raises(ValueError, match="Lookahead cannot be combined with Watch"):
            Sampler(processors=(part,), verify=Lookahead())


def test_a_part_may_refuse_and_check_whatever_stands_beside_it():
    class Alone(Stop):
        def refuses(self, other: Part) -> str | None:
            return "it wants to be alone" if isinstance(other, Stop) else None

        def check(self, sampler: Sampler) -> None:
            if sampler.temperature:
                raise ValueError("temperature: it wants none")

        def __call__(self, canvas):
            return canvas.done

    Sampler(stops=(Alone(),), select=Threshold())
    for stops in ((Alone(), AnswerSettled()), (AnswerSettled(), Alone())):
        with pytest.raises(ValueError, match="Alone cannot be .* AnswerSettled: it wants to be al"):
            Sampler(stops=stops)
    with pytest.raises(ValueError, match="it wants none"):
        Sampler(stops=(Alone(),), temperature=0.5)


def test_a_score_that_would_discard_the_one_before_it_is_refused():
    with pytest.raises(ValueError, match=r"scores=Margin\(\): it would discard what EosRejection"):
        Sampler(scores=(EosRejection(), Margin()))
    with pytest.raises(ValueError, match=r"scores=RandomOrder\(\): it would discard what Margin"):
        Sampler(scores=(Margin(), RandomOrder()))


@pytest.mark.parametrize("first", ["eoser", "dream"])
def test_scores_compose_in_one_order_whoever_brings_them(first):
    other = {"eoser": "dream", "dream": "eoser"}[first]
    recipe = dlmdecode.sampler(f"{first}+{other}", alg="topk_margin", gamma_min=0.5)
    assert recipe.scores == (Margin(), EosRejection(0.5))
    canvas = Canvas.of([torch.tensor([1])], 3, MASK, (EOS,))
    canvas.lo, canvas.hi = canvas.start, canvas.stop
    canvas.proposal.token = torch.tensor([[1, EOS, 5, 6]])
    canvas.proposal.prob = torch.tensor([[0, 0.9, 0.8, 0.7]]).double()
    canvas.proposal.margin = torch.tensor([[0, 2.0, 2.0, 1.0]])
    choose(recipe, canvas)
    margin = Margin()(canvas.proposal.prob, canvas)
    assert torch.equal(canvas.confidence[0, 1:], margin[0, 1:] * torch.tensor([0.5, 1, 1]))


@pytest.mark.parametrize("pair", ["eoser+entropy_bound", "dream+eoser", "ccd+eoser"])
def test_a_factor_on_a_negative_confidence_is_refused(pair):
    with pytest.raises(ValueError, match="EosRejection cannot be combined with NegativeEntropy"):
        dlmdecode.sampler(pair)


def test_binding_asks_every_part_and_changes_those_that_need_the_model():
    fixed = Constraints(((2, 7),))
    recipe = Sampler(Threshold(), FixedBlocks(8), openings=(fixed,), scores=(Margin(),))
    assert recipe.bind(micro("llada")) == recipe
    with pytest.raises(ValueError, match="constraints=999"):
        Sampler(openings=(Constraints(((2, 999),)),)).bind(micro("llada"))
