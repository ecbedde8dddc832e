"""What each runtime runs as integers: the types it wants, where quantizers go, what must share a scale. Data, not code
paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fxqat.errors import Problem
from fxqat.quant.spec import QConfig, QuantSpec


class Place(Enum):
    """Where the quantizer of an operation's output comes from."""

    OWN = "own output quantizer"
    SAME = "same as its input"
    SHARED = "shared among its inputs"
    NONE = "float only"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime.

    Attributes:
        name: as in a policy's ``target:``.
        activation: the legal form of activations; a policy may differ in observer and learning, not in type or scheme.
        weight: the same for weights.
        places: for every operation of the closed vocabulary, where its output's quantizer comes from.
        fixed: operations whose output range is known without observing it.
        float_roles: roles that stay in float whatever a policy says, and why.
    """

    name: str
    doc: str
    activation: QuantSpec
    weight: QuantSpec
    places: Mapping[str, Place]
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    float_roles: Mapping[str, str] = field(default_factory=dict)

    def place(self, op: str, site: str) -> Place:
        """Where the quantizer of ``op``'s output comes from.

        Raises:
            Problem: an operation outside the vocabulary.
        """
        if op not in self.places:
            raise Problem(
                site,
                f"the operation {op} is outside the vocabulary of target {self.name}",
                expected=f"one of: {', '.join(self.places)}",
                remedy="rewrite it with a rule (--patterns)",
            )
        return self.places[op]

    def has_weight(self, op: str) -> bool:
        """Whether ``op`` multiplies by a weight of its own."""
        return op in _WEIGHTED

    def check(self, qconfig: QConfig, *, op: str, roles: frozenset[str], where: str, site: str) -> None:
        """Refuse what the runtime cannot run as integers.

        Raises:
            Problem: at ``where`` (a policy's line), with the nearest legal spec.
        """
        if qconfig.is_float:
            return
        for role in roles & self.float_roles.keys():
            raise Problem(
                where,
                f"{site} cannot be quantized: {self.float_roles[role]}",
                remedy=f"add {{role: {role}, float: true}} above",
            )
        if self.place(op, site) is Place.NONE:
            raise Problem(
                where,
                f"{site} cannot be quantized: {self.name} runs {op} in float only",
                remedy=f"add {{op: {op}, float: true}} above",
            )
        if qconfig.weight is not None and qconfig.activation is None:
            raise Problem(where, f"{site} has a weight spec but no activation spec", expected="both, or float: true")
        for kind, given, legal in (
            ("weight", qconfig.weight, self.weight),
            ("activation", qconfig.activation, self.activation),
        ):
            if given is not None and not _same_form(given, legal):
                raise Problem(
                    where, f"{site}: {self.name} cannot run the {kind} spec {_form(given)}", expected=_form(legal)
                )


def _same_form(given: QuantSpec, legal: QuantSpec) -> bool:
    scheme = given.signed == legal.signed and (given.symmetric or not legal.symmetric)
    return (
        scheme
        and given.bits <= legal.bits
        and (given.axis == legal.axis or (given.axis is None and legal.axis is not None))
    )


def _form(spec: QuantSpec) -> str:
    return f"{spec} {'symmetric' if spec.symmetric else 'asymmetric'}"


_WEIGHTED = frozenset({"QATConv2d", "QATLinear"})

# Operations that only move values keep their input's codes; those that join tensors need one scale for all of them.
_PLACES = {
    "input": Place.OWN,
    "QATConv2d": Place.OWN,
    "QATLinear": Place.OWN,
    "sigmoid": Place.OWN,
    "mul": Place.OWN,
    "add": Place.OWN,
    "ReLU": Place.OWN,
    "QATReLU": Place.OWN,
    "SiLU": Place.OWN,
    "LeakyReLU": Place.OWN,
    "Hardswish": Place.OWN,
    "cat": Place.SHARED,
    "MaxPool2d": Place.SAME,
    "Upsample": Place.SAME,
    "chunk": Place.SAME,
    "split": Place.SAME,
    "getitem": Place.SAME,
    "flatten": Place.SAME,
    "Identity": Place.SAME,
    "unflatten": Place.NONE,
    "transpose": Place.NONE,
    "permute": Place.NONE,
    "softmax": Place.NONE,
    "squeeze": Place.NONE,
    "unsqueeze": Place.NONE,
    "sub": Place.NONE,
    "truediv": Place.NONE,
    "AnchorGrid": Place.NONE,
}

ORT_CPU = Target(
    name="ort-cpu",
    doc="ONNX Runtime on x86: uint8 activations, int8 weights per channel; quantized after Conv, Sigmoid, Mul, Add",
    activation=QuantSpec(bits=8, signed=False, symmetric=False),
    weight=QuantSpec(bits=8, signed=True, symmetric=True, narrow=True, axis=0),
    places=_PLACES,
    # A sigmoid ends at exactly 1.0 with scale 1/255; images are bytes over 255, so they are exact as uint8.
    fixed={"input": (0.0, 1.0), "sigmoid": (0.0, 1.0)},
    float_roles={"decode": "boxes in pixels and scores in 0..1 would share one scale, which rounds every score to 0"},
)

TARGETS: dict[str, Target] = {target.name: target for target in (ORT_CPU,)}
