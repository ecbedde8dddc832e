"""What each runtime runs as integers: the types it wants, where quantizers go, what must share a scale. Data, not code
paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
        activation: the legal form of activations, and the one that a policy's spec has where it names none; a policy
            may differ in observer and learning, not in type or scheme.
        weight: the same for weights.
        places: for every operation of the closed vocabulary, where its output's quantizer comes from.
        readers: operations that want integers: only tensors that one of them reads, directly or through operations that
            only move values, get a quantizer. None: every tensor that may.
        channels_last: files are arranged for kernels that want a pixel's channels side by side (see
            runtime/ort_layout.py).
        suffix: what the name of its files ends in.
        arithmetic: of its integer kernels, by its name in fxqat.quant.arithmetic; None where it is not known.
        restates: what only moves codes (Concat, MaxPool, Split ...) is quantized again in the file, which a runtime may
            need to run it on codes; else they are carried through (see runtime/redundant_qdq.py).
        integer_bias: biases are int32 codes at the accumulator's scale; else they stay in float.
        fixed: operations whose output range is known without observing it.
        float_roles: roles that stay in float whatever a policy says, and why.
        reasons: why a form is the only legal one, by the field of the spec that says otherwise, ``weight.bits``.
    """

    name: str
    doc: str
    activation: QuantSpec
    weight: QuantSpec
    places: Mapping[str, Place]
    readers: frozenset[str] | None = None
    restates: bool = True
    integer_bias: bool = True
    channels_last: bool = False
    suffix: str = ".onnx"
    arithmetic: str | None = None
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    float_roles: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

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

    def check(
        self,
        qconfig: QConfig,
        *,
        op: str,
        roles: frozenset[str],
        where: str,
        site: str,
        preactivation: QuantSpec | None = None,
    ) -> None:
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
            ("preactivation", preactivation, self.activation),
        ):
            if given is not None:
                self._check_form(kind, given, legal, where, site)

    def _check_form(self, kind: str, given: QuantSpec, legal: QuantSpec, where: str, site: str) -> None:
        wrong = list(_illegal(given, legal))
        if not wrong:
            return
        near = replace(legal, bits=min(given.bits, legal.bits))
        reasons = (self.reasons.get(f"{'weight' if kind == 'weight' else 'activation'}.{name}") for name in wrong)
        why = ", ".join(dict.fromkeys(reason for reason in reasons if reason))
        raise Problem(
            where,
            f"{site}: {self.name} cannot run the {kind} spec {_form(given)}" + (f" ({why})" if why else ""),
            expected=_form(near),
            remedy=f"leave {', '.join(wrong)} out of the spec and it is {self.name}'s own",
        )


def _illegal(given: QuantSpec, legal: QuantSpec) -> Iterator[str]:
    """The fields in which ``given`` is not what the runtime runs."""
    if given.bits > legal.bits:
        yield "bits"
    if given.signed != legal.signed:
        yield "signed"
    if legal.symmetric and not given.symmetric:
        yield "symmetric"
    if given.axis is not None and given.axis != legal.axis:
        yield "axis"


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

# What becomes of a Conv, a SiLU and a residual Add in one kernel has no codes in between: only what the next
# convolution reads is rounded, and what a sum reads beside it.
_LAYERS = frozenset({"QATConv2d", "QATLinear"})
_DECODE = {"decode": "boxes in pixels and scores in 0..1 would share one scale, which rounds every score to 0"}
# A sigmoid ends at exactly 1.0 with scale 1/255; images are bytes over 255, so they are exact as uint8.
_FIXED = {"input": (0.0, 1.0), "sigmoid": (0.0, 1.0)}
_U8 = QuantSpec(bits=8, signed=False, symmetric=False)
_W8 = QuantSpec(bits=8, signed=True, symmetric=True, narrow=True, axis=0)
_WEIGHT_REASONS = {
    "weight.symmetric": "a weight's zero point costs a sum over the input in every kernel",
    "weight.axis": "kernels rescale by output channel",
}

ORT_CPU = Target(
    name="ort-cpu",
    doc="ONNX Runtime on x86: uint8 activations, int8 weights per channel; quantized after Conv, Sigmoid, Mul, Add",
    activation=_U8,
    weight=_W8,
    places=_PLACES,
    fixed=_FIXED,
    channels_last=True,
    arithmetic="ort-x86",
    float_roles=_DECODE,
    reasons={**_WEIGHT_REASONS, "activation.signed": "on x86 it fuses integer convolutions of uint8 only"},
)
ORT_CPU_AVX2 = replace(
    ORT_CPU,
    name="ort-cpu-avx2",
    doc="ONNX Runtime on x86 without VNNI: as ort-cpu with 7-bit weights",
    weight=replace(_W8, bits=7),
    reasons={
        **ORT_CPU.reasons,
        "weight.bits": "without VNNI two products of uint8 and int8 are added in 16 bits, which overflow",
    },
)
ORT_ARM = replace(
    ORT_CPU,
    name="ort-arm",
    doc="ONNX Runtime on Arm: int8 activations and weights; quantized as for ort-cpu",
    activation=replace(_U8, signed=True),
    channels_last=False,  # its kernels differ, and no such machine was at hand to measure on
    reasons={**_WEIGHT_REASONS, "activation.signed": "on Arm its integer kernels multiply int8 by int8"},
)
LITERT = replace(
    ORT_ARM,
    name="litert",
    doc="LiteRT (TensorFlow Lite) with XNNPACK: int8 activations and weights; sigmoids in steps of 1/256",
    suffix=".tflite",
    arithmetic="xnnpack",
    fixed={"input": (0.0, 1.0), "sigmoid": (0.0, 255 / 256)},
    reasons={**_WEIGHT_REASONS, "activation.signed": "its kernels for weights per channel take int8 only"},
)
OPENVINO = Target(
    name="openvino",
    doc="OpenVINO's CPU plugin: uint8 at the inputs of convolutions and residual branches, SiLU inside the convolution",
    activation=_U8,
    weight=_W8,
    places=_PLACES,
    readers=_LAYERS,
    restates=False,
    integer_bias=False,
    fixed={"input": (0.0, 1.0)},
    float_roles=_DECODE,
    reasons={**_WEIGHT_REASONS, "activation.signed": "its convolutions multiply uint8 by int8"},
)
TENSORRT = replace(
    OPENVINO,
    name="tensorrt",
    doc="TensorRT: symmetric int8 at the inputs of convolutions and residual branches, zero points 0, biases in float",
    restates=True,  # as it was; no such runtime was at hand to measure in
    activation=QuantSpec(bits=8, signed=True, symmetric=True),
    reasons={
        **_WEIGHT_REASONS,
        "activation.signed": "it has int8 only",
        "activation.symmetric": "its zero points are 0",
    },
)

TARGETS: dict[str, Target] = {
    target.name: target for target in (ORT_CPU, ORT_CPU_AVX2, ORT_ARM, LITERT, OPENVINO, TENSORRT)
}
