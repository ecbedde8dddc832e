"""QuantSpec, QConfig: what is legal, how it prints, and what its errors say."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import specs

from fxqat.quant.affine import choose_qparams, fake_quantize
from fxqat.quant.spec import QConfig, QuantSpec, nearest

ACT8 = QuantSpec(signed=False, symmetric=False)
W8 = QuantSpec(narrow=True, axis=0)


@pytest.mark.parametrize(
    ("spec", "text", "dtype"),
    [
        (QuantSpec(), "i8<-128:127>", torch.int8),
        (W8, "i8<-127:127>:axis0", torch.int8),
        (ACT8, "u8<0:255>", torch.uint8),
        (QuantSpec(bits=7, signed=False), "u7<0:127>", torch.uint8),
        (QuantSpec(bits=2), "i2<-2:1>", torch.int8),
        (QuantSpec(bits=4, narrow=True, axis=1), "i4<-7:7>:axis1", torch.int8),
        (QuantSpec(bits=16), "i16<-32768:32767>", torch.int16),
        (QuantSpec(bits=9, signed=False, symmetric=False), "u9<0:511>", torch.uint16),
    ],
)
def test_codes_and_text(spec: QuantSpec, text: str, dtype: torch.dtype) -> None:
    assert str(spec) == text
    assert spec.dtype == dtype
    info = torch.iinfo(dtype)
    assert info.min <= spec.quant_min < spec.quant_max <= info.max


def test_qconfig_text() -> None:
    assert str(QConfig(weight=W8, activation=ACT8)) == "w=i8<-127:127>:axis0 a=u8<0:255>"
    assert str(QConfig(activation=ACT8)) == "a=u8<0:255>"
    assert str(QConfig()) == "float"
    assert QConfig().is_float
    assert not QConfig(weight=W8).is_float


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        W8.bits = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 1}, "bits: 1 is not legal, expected an integer from 2 to 16"),
        ({"bits": True}, "bits: True is not legal, expected an integer from 2 to 16"),
        ({"bits": 17}, "bits: 17 is not legal, expected an integer from 2 to 16"),
        ({"bits": 9, "axis": 0}, "bits: 9 is not legal, expected at most 8 where axis is set"),
        ({"signed": 1}, "signed: 1 is not legal, expected true or false"),
        ({"axis": "0"}, "axis: '0' is not legal, expected an integer or none"),
        ({"percentile": 101}, "percentile: 101 is not legal, expected more than 50 and at most 100"),
        ({"averaging_constant": 0}, "averaging_constant: 0 is not legal, expected in (0, 1]"),
        (
            {"observer": "histgram"},
            "observer: 'histgram' is not legal, expected one of minmax, moving_average, histogram, or a class named "
            "from torch.ao.quantization.; did you mean 'histogram'?",
        ),
        (
            {"method": "mes"},
            "method: 'mes' is not legal, expected one of standard, percentile, entropy, mse; did you mean 'mse'?",
        ),
        ({"scale": "lsqq"}, "scale: 'lsqq' is not legal, expected one of fixed, lsq, lsq+; did you mean 'lsq'?"),
        ({"gradient": "x"}, "gradient: 'x' is not legal, expected one of ste, dsq"),
        (
            {"method": "mse"},
            "method: 'mse' is not legal, expected standard unless observer is histogram, or mse with axis set",
        ),
        ({"clip": "high"}, "clip: 'high' is not legal, expected one of both, low"),
        ({"clip": "low"}, "clip: 'low' is not legal, expected both unless observer is histogram and method mse"),
        (
            {"through": "silu"},
            "through: 'silu' is not legal, expected set only with observer histogram, method mse",
        ),
        (
            {"observer": "histogram", "axis": 0},
            "observer: 'histogram' is not legal, expected minmax with axis set",
        ),
        ({"fixed": (1.0, 0.0)}, "fixed: (1.0, 0.0) is not legal, expected two finite numbers, the lower first"),
        (
            {"fixed": (0.0, float("inf"))},
            "fixed: (0.0, inf) is not legal, expected two finite numbers, the lower first",
        ),
        (
            {"fixed": (0.0, 1.0), "scale": "lsq"},
            "scale: 'lsq' is not legal, expected fixed where the range is given by `fixed`",
        ),
        ({"scale": "lsq+"}, "scale: 'lsq+' is not legal, expected lsq where symmetric leaves no offset to learn"),
        (
            {"scale": "lsq", "power_of_two": True},
            "scale: 'lsq' is not legal, expected fixed where power_of_two is set",
        ),
        (
            {"scale": "lsq", "gradient": "dsq"},
            "scale: 'lsq' is not legal, expected fixed where gradient is not ste",
        ),
    ],
)
def test_errors_name_field_value_and_what_is_legal(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        QuantSpec(**wrong)  # type: ignore[arg-type]


def test_nearest() -> None:
    assert nearest("entorpy", ("percentile", "entropy")) == "entropy"
    assert nearest("zzz", ("percentile", "entropy")) is None


@given(specs(), st.integers(-128, 127))
def test_the_span_is_what_the_first_and_last_code_mean(spec: QuantSpec, low: int) -> None:
    qparams = choose_qparams(torch.tensor([low / 8]), torch.tensor([30.0]), spec)
    ends = fake_quantize(torch.tensor([-1e9, 1e9]), qparams)
    # the span is a product in float64 of what is rounded to float32 there
    assert qparams.span == pytest.approx(ends.tolist(), rel=2**-23)


def test_another_range_is_chosen_as_in_a_new_spec() -> None:
    spec = QuantSpec(bits=4, observer="histogram", method="mse", through="silu", clip="low", percentile=99.0)
    assert spec.ranged(fixed=(0.0, 1.0)) == QuantSpec(bits=4, percentile=99.0, fixed=(0.0, 1.0))
    asked = spec.ranged(observer="histogram", method="entropy")
    assert asked == QuantSpec(bits=4, percentile=99.0, observer="histogram", method="entropy")
