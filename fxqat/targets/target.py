"""Target: what one runtime executes as integers, in which types, where quantizers stand, and what shares a scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from fxqat.errors import Problem
from fxqat.quant.pair_order import Order
from fxqat.quant.spec import QConfig, QuantSpec
from fxqat.targets.operations import Place, registered


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime and the processors it runs on, as far as quantization depends on them.

    Attributes:
        name: as in a policy's ``target:`` and ``--target``.
        doc: one line for lists of targets.
        runtime: that runs its files, a name from ``fxqat.runtime.runtimes.RUNTIMES`` where it can be run here.
        activation: the integer type and scheme of activations, which a policy's spec has by default. A policy may
            choose observer, range and learning, but no other type or scheme.
        weight: the same for weights.
        places: for every operation that a graph may hold, which quantizer its output has; those that models bring with
            them are known beside these.
        rules: the name, in ``QUANTIZE`` of rule files, of rewriting rules that several targets share; those under its
            own name run first.
        readers: the operations that need integer inputs. Only tensors that one of them reads, directly or through
            operations that only move values, get a quantizer. None: every tensor that may be quantized.
        channels_last: files are arranged for kernels that want a pixel's channels side by side (see
            runtime/onnx/ort_layout.py).
        pair_orders: how its kernels read weights whose products they may add two at a time in 16 bits; the scale of
            each channel then keeps every such pair within ``fxqat.quant.pairs.PAIR_MAX``, so that the file is exact
            with VNNI and without. Empty: sums are of 32 bits, or the target requires VNNI.
        needs_wide_sums: exact only on processors that add products in 32 bits.
        replaced_by: for a retired target, the one to use instead.
        suffix: of its files.
        arithmetic: the integer arithmetic of its kernels, by its name in fxqat.quant.arithmetic; None if not known.
        restates: whether the output of an operation that only moves values (Concat, MaxPool, Split) is quantized again
            in the file, which some runtimes need to execute it on integers (see runtime/reference/redundant_qdq.py).
        restates_for_floats: whether it is quantized again also where only floats read it, before another scale.
        integer_bias: biases are int32 codes at the accumulator's scale; else they stay in float.
        fixed: output ranges that are known without observing, by operation.
        float_roles: roles that must stay in float, and why.
        reasons: why another type or scheme is not legal, by the field of the spec, such as ``weight.bits``; shown in
            errors.
    """

    name: str
    doc: str
    activation: QuantSpec
    weight: QuantSpec
    places: Mapping[str, Place]
    runtime: str = "ort"
    rules: str = ""
    readers: frozenset[str] | None = None
    restates: bool = True
    restates_for_floats: bool = True
    integer_bias: bool = True
    channels_last: bool = False
    pair_orders: tuple[Order, ...] = ()
    needs_wide_sums: bool = False
    replaced_by: str | None = None
    suffix: str = ".onnx"
    arithmetic: str | None = None
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    float_roles: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def operations(self) -> Mapping[str, Place]:
        """Its own, and those that models brought with them."""
        return {**registered(), **self.places}

    def place(self, op: str, site: str) -> Place:
        """Which quantizer the output of ``op`` has; ``site`` stands in the error.

        Raises:
            Problem: an operation outside the vocabulary.
        """
        found = self.places.get(op) or registered().get(op)
        if found is None:
            raise Problem(
                site,
                f"the operation {op} is outside the vocabulary of target {self.name}",
                expected=f"one of: {', '.join(self.places)}",
                remedy="rewrite it with a rule (--patterns)",
            )
        return found

    def is_float(self, op: str) -> bool:
        """Whether ``op`` has no integer kernel."""
        return self.operations.get(op) is Place.NONE

    def has_weight(self, op: str) -> bool:
        """Whether ``op`` has a weight."""
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
        input: QuantSpec | None = None,
    ) -> None:
        """Check that the runtime can execute a decision of a policy as integers.

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
            ("input", input, self.activation),
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
    """The fields of ``given`` that the runtime cannot execute."""
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
