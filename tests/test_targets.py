"""Targets: the closed vocabulary and the forms that a runtime runs."""

# ruff: noqa: E501  (one message a line, as it is printed)

from __future__ import annotations

from dataclasses import replace

import pytest

from fxqat.errors import Problem
from fxqat.models.families.opaque import Opaque, TrainingOnly
from fxqat.passes import Rules
from fxqat.quant.spec import QConfig, QuantSpec
from fxqat.targets import ORT_CPU, RETIRED, TARGETS, Place, operations, register_operation, register_target, target_of

W8, A8 = ORT_CPU.weight, ORT_CPU.activation


def check(weight=None, activation=None, op="QATConv2d", roles=()):
    config = QConfig(weight=weight, activation=activation)
    ORT_CPU.check(config, op=op, roles=frozenset(roles), where="p.yaml:3", site="model.0.conv")


def test_targets_are_found_by_the_name_they_have():
    every = {**TARGETS, **RETIRED}
    assert [target_of(name).name for name in every] == list(every)
    assert target_of("cpu") is None


def test_a_retired_target_names_one_that_is_not():
    assert [one.replaced_by in TARGETS for one in RETIRED.values()] == [True] * len(RETIRED)
    assert [name for name, one in TARGETS.items() if one.replaced_by] == []


def test_a_target_of_ones_own_is_found_by_policies():
    mine = replace(ORT_CPU, name="mine")
    try:
        register_target(mine)
        assert target_of("mine") is mine
        with pytest.raises(
            ValueError, match=r"target: 'mine' is taken, expected a name that is not one of ort-cpu, .*mine"
        ):
            register_target(replace(mine, doc="another"))
    finally:
        TARGETS.pop("mine", None)


def test_a_target_made_of_another_has_its_rules():
    rules = Rules.load()
    assert rules.quantizing(replace(ORT_CPU, name="mine")) == rules.quantizing(ORT_CPU) != ()
    own = replace(rules, quantize={**rules.quantize, "mine": rules.lower[:1]})
    assert own.quantizing(replace(ORT_CPU, name="mine")) == (rules.lower[0], *rules.quantizing(ORT_CPU))
    assert own.quantizing(ORT_CPU) == rules.quantizing(ORT_CPU)


def test_shared_rules_are_those_of_a_target():
    every = {**TARGETS, **RETIRED}
    assert set(Rules.load().quantize) <= every.keys() | {one.rules for one in every.values()}


@pytest.fixture
def own_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of a test's own are forgotten after it."""
    monkeypatch.setattr(operations, "_REGISTERED", dict(operations.registered()))


@pytest.mark.usefixtures("own_operations")
def test_what_a_model_brings_along_is_known_to_every_target():
    class Brought(Opaque):
        """A module that computes."""

    class BroughtForTraining(Opaque, TrainingOnly):
        """A module that is its input in eval."""

    for target in (*TARGETS.values(), *RETIRED.values(), replace(ORT_CPU, name="mine")):
        assert target.place(Brought.__name__, "model.3") is Place.NONE
        assert target.is_float(Brought.__name__)
        assert target.place(BroughtForTraining.__name__, "model.3") is Place.SAME
        assert {Brought.__name__, BroughtForTraining.__name__} <= target.operations.keys() - target.places.keys()
    mine = replace(ORT_CPU, places={**ORT_CPU.places, Brought.__name__: Place.OWN})
    assert mine.place(Brought.__name__, "model.3") is Place.OWN


@pytest.mark.usefixtures("own_operations")
def test_an_operation_is_brought_along_with_one_place():
    register_operation("brought twice", Place.NONE)
    register_operation("brought twice", Place.NONE)
    with pytest.raises(ValueError, match="operation: 'brought twice' is known as NONE, and SAME differs"):
        register_operation("brought twice", Place.SAME)


def test_an_operation_outside_the_vocabulary():
    with pytest.raises(Problem) as caught:
        ORT_CPU.place("erf", "model.3")
    assert str(caught.value) == (
        f"model.3: the operation erf is outside the vocabulary of target ort-cpu; expected one of: "
        f"{', '.join(ORT_CPU.places)}; rewrite it with a rule (--patterns)"
    )


@pytest.mark.parametrize(
    ("weight", "activation"),
    [
        (W8, A8),
        (replace(W8, bits=4), A8),
        (replace(W8, axis=None), A8),
        (replace(W8, narrow=False), A8),
        (W8, replace(A8, observer="histogram", method="mse")),
        (W8, replace(A8, symmetric=True)),
        (W8, replace(A8, scale="lsq+")),
        (None, None),
        (None, A8),
    ],
)
def test_legal_forms(weight, activation):
    check(weight, activation)


@pytest.mark.parametrize(
    ("weight", "activation", "words"),
    [
        (replace(W8, symmetric=False), A8, "the weight spec i8<-127:127>:axis0 asymmetric (a weight's zero point costs a sum over the input in every kernel); expected i8<-127:127>:axis0 symmetric; leave symmetric out of the spec and it is ort-cpu's own"),
        (replace(W8, signed=False), A8, "the weight spec u8<1:255>:axis0 symmetric"),
        (replace(W8, axis=1), A8, "the weight spec i8<-127:127>:axis1 symmetric"),
        (W8, replace(A8, bits=16), "the activation spec u16<0:65535> asymmetric; expected u8<0:255> asymmetric"),
        (W8, replace(A8, signed=True), "the activation spec i8<-128:127> asymmetric"),
        (W8, replace(A8, axis=1), "the activation spec u8<0:255>:axis1 asymmetric"),
    ],
)  # fmt: skip
def test_forms_that_the_runtime_has_no_kernel_for(weight, activation, words):
    with pytest.raises(Problem) as caught:
        check(weight, activation)
    assert f"p.yaml:3: model.0.conv: ort-cpu cannot run {words}" in str(caught.value)


@pytest.mark.parametrize("op", [op for op, place in ORT_CPU.places.items() if place is Place.NONE])
def test_what_runs_in_float_only(op):
    check(op=op)
    with pytest.raises(Problem, match=f"ort-cpu runs {op} in float only; add {{op: {op}, float: true}} above"):
        check(activation=A8, op=op)


def test_a_decode_is_never_quantized():
    with pytest.raises(
        Problem, match=r"would share one scale, which rounds every score to 0; add {role: decode, float: true}"
    ):
        check(activation=A8, op="mul", roles=("decode",))


def test_the_images_are_exact_as_bytes():
    low, high = ORT_CPU.fixed["input"]
    assert (high - low) / 255 == 1 / 255
    assert isinstance(ORT_CPU.activation, QuantSpec)
