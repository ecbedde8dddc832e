"""Error analysis: sums against plain formulas, the divergence against training's own, the probe against switching
quantizers on one by one."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fxqat
from fxqat.errors import Problem
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, cut
from fxqat.models.families.detect import DETECT
from fxqat.models.family import HeadSpec
from fxqat.models.links import directions, divergence, divergences
from fxqat.passes.quant_graph import QuantGraph
from fxqat.passes.selective import asleep, members, run
from fxqat.quant.affine import choose_qparams
from fxqat.quant.spec import QuantSpec
from fxqat.sensitivity.error_report import COLUMNS, ErrorReport, analyze
from fxqat.sensitivity.error_statistics import Tally
from fxqat.sensitivity.gradient_probe import probe
from fxqat.training.losses import DistillationLoss, LossInputs

OUTPUTS = {bins: DETECT.compared(HeadSpec(classes=3, bins=bins)) for bins in (1, 16)}


@pytest.fixture(scope="module")
def report(calibrated: Detector, images: torch.Tensor) -> ErrorReport:
    return analyze(calibrated, [images[:2]], probes=2)


def logits(
    seed: int, anchors: int = 6, classes: int = 3, *, bins: int = 16, images: int = 1
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "boxes": torch.randn(images, 4 * bins, anchors, generator=generator),
        "scores": torch.randn(images, classes, anchors, generator=generator) - 1,
    }


@given(st.integers(0, 1000), st.integers(1, 40))
def test_a_tally_is_the_plain_formula_over_all_it_saw(seed, count):
    generator = np.random.default_rng(seed)
    x, d = generator.normal(size=(2, count)), generator.normal(size=(2, count)) * 0.1
    tally = Tally()
    for one, error in zip(x, d, strict=True):
        tally.add(torch.tensor(one), torch.tensor(error))
    q = x + d
    # float64 sums of at most 80 terms: 1e-12 relative leaves three digits beyond their rounding
    assert tally.sqnr == pytest.approx(10 * np.log10((x**2).sum() / (d**2).sum()), rel=1e-9)
    assert tally.cosine == pytest.approx((x * q).sum() / np.sqrt((x**2).sum() * (q**2).sum()), rel=1e-9)


def test_a_tally_without_noise_or_signal():
    tally = Tally()
    tally.add(torch.ones(3), torch.zeros(3))
    assert (tally.sqnr, tally.cosine, tally.clipped) == (math.inf, 1.0, 0.0)
    silent = Tally()
    silent.add(torch.zeros(3), torch.ones(3))
    assert (silent.sqnr, silent.cosine) == (-math.inf, 0.0)


def test_clipping_and_range_use():
    qparams = choose_qparams(
        torch.tensor([0.0]), torch.tensor([255.0]), QuantSpec(bits=8, signed=False, symmetric=False)
    )
    tally = Tally()
    tally.add(torch.zeros(4), torch.zeros(4))
    tally.add_range(torch.tensor([0.0, 255.4, 255.6, -0.6]), qparams)  # half a step beyond an end still rounds to it
    assert (tally.clipped, tally.used) == (0.5, 1.0)
    half = Tally()
    half.add_range(torch.tensor([51.0, 178.5]), qparams)
    assert half.used == pytest.approx(0.5)


@pytest.mark.parametrize("bins", [1, 16])
def test_the_divergence_is_what_distillation_minimises(bins):
    teacher, student = (logits(seed, bins=bins, images=3) for seed in (1, 2))
    outputs, images = OUTPUTS[bins], torch.zeros(3, 3, 64, 64)
    seen = LossInputs(raw=student, batch={"img": images}, gm=nn.Module())
    parts = DistillationLoss(lambda images: teacher, outputs)(seen)
    each = divergence(outputs, teacher, student)
    # float32 sums of some hundred terms of size 1
    assert float(each.mean()) == pytest.approx(float(sum(parts.values())), rel=1e-5)
    alone = [
        divergence(outputs, *({key: raw[key][[i]] for key in raw} for raw in (teacher, student))) for i in range(3)
    ]
    assert torch.allclose(torch.cat(alone), each, rtol=1e-5), "an image's divergence is its own"
    assert divergence(outputs, teacher, teacher).tolist() == [0.0] * 3


def test_distances_without_bins_are_means_of_normal_distributions():
    teacher, student = logits(1, bins=1), logits(2, bins=1)
    p = teacher["scores"].double().sigmoid().amax(1)
    one = [torch.distributions.Normal(raw["boxes"].double(), 1.0) for raw in (teacher, student)]
    kl = torch.distributions.kl_divergence(*one).mean(1)
    expected = float((kl * p).sum() / p.sum())
    assert expected > 0.1, "boxes differ"
    assert float(divergences(OUTPUTS[1], teacher, student)["boxes"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bins", [1, 16])
def test_directions_feel_the_divergence_of_a_small_change(bins):
    teacher, change = logits(3, bins=bins), logits(4, bins=bins)
    step = 0.02
    student = {key: teacher[key] + step * change[key] for key in teacher}
    generator = torch.Generator().manual_seed(0)
    felt = []
    for _ in range(4000):
        boxes, scores = directions(OUTPUTS[bins], teacher, generator)
        felt.append(float((boxes * change["boxes"]).sum() + (scores * change["scores"]).sum()) * step)
    # The mean of 4000 squares of a sum of many independent terms deviates by sqrt(2 / 4000) = 2.2 %: 5 deviations;
    # the third order adds about the step, 2 %.
    assert np.mean(np.square(felt)) / 2 == pytest.approx(float(divergence(OUTPUTS[bins], teacher, student)), rel=0.13)


def test_all_on_is_the_quantized_network_and_none_on_the_float_one(calibrated, images):
    gm, names = calibrated.gm, {node.name for node in members(calibrated.gm)}
    with torch.no_grad():
        quantized = calibrated(images)[0]
    before = [module.quantizing for module in gm.modules() if hasattr(module, "quantizing")]
    with asleep(gm), torch.no_grad():
        assert torch.equal(run(gm, images, names)[0], quantized)
        assert torch.equal(run(gm, images, ())[0], gm(images)[0])
        assert not torch.equal(run(gm, images, ())[0], quantized)
    assert before == [module.quantizing for module in gm.modules() if hasattr(module, "quantizing")]
    assert all(before)


def test_the_probe_feels_what_a_quantizer_alone_does(calibrated, images):
    one = images[:1]
    found = probe(calibrated, [one], probes=200, seed=1)
    alone, view = found.alone(), cut(calibrated.gm, 1)
    strongest = sorted(alone, key=lambda name: -alone[name])[:12]
    with asleep(view):
        plain = run(view, one, ())
        exact = [float(divergence(calibrated.compared, plain, run(view, one, {name}))) for name in strongest]
    ratios = np.array([alone[name] for name in strongest]) / np.array(exact)
    # 200 squares of a sum of four anchors' terms: a deviation of 10 to 20 %, plus what is not linear; a wrong
    # gradient or a missing factor of two would be off everywhere.
    assert 0.75 < np.median(ratios) < 1.33


def test_what_all_do_together_counts_their_correlations(calibrated, images):
    found = probe(calibrated, [images[:1]], probes=8)
    assert found.together([]) == 0.0
    pair = found.names[:2]
    z = found.samples[:, :2].sum(1)
    assert found.together(pair) == pytest.approx((z**2).mean() / 2)
    assert found.together(found.names[:1]) == pytest.approx(found.alone()[found.names[0]])


def test_rows_name_every_tensor_once_with_what_decided_it(report, calibrated):
    sites = [row.site for row in report.rows]
    assert len(set(sites)) == len(sites)
    assert [row.site for row in report.rows[:4]] == [
        *("images", "model.0.conv", "model.0.conv.sigmoid", "model.0.conv.silu"),
    ]
    silu = report["model.0.conv.silu"]
    assert (silu.op, silu.decided, silu.spec, silu.weight_spec) == ("mul", "model.0.conv", "u8<0:255>", None)
    conv = report["model.0.conv"]
    assert conv.weight_spec == "i8<-127:127>:axis0"
    assert conv.low <= 0 <= conv.high
    assert sum(row.share for row in report.rows) == pytest.approx(1.0)


def test_layers_in_float_have_the_error_that_gathered_there(yolov8n, images):
    model = fxqat.calibrate(fxqat.prepare(yolov8n, "critical")[0], [images[:2]])
    row = analyze(model, [images[:1]], probes=1)["model.22.cv2.0.2"]
    assert (row.quantized, row.sqnr, row.weight_sqnr, row.share) == (False, None, None, 0.0)
    assert row.why.startswith("box logits")
    assert 0 < row.accumulated_sqnr < 60


def test_numbers_of_a_row_are_what_they_say(report, calibrated, images):
    row = report["model.0.conv.silu"]
    layer = next(str(node.target) for node in calibrated.gm.graph.nodes if site_of(node) == row.decided)
    with asleep(calibrated.gm), torch.no_grad():
        x = torch.nn.functional.silu(calibrated.gm.get_submodule(layer)(images[:2]))
    q = QuantGraph(calibrated.gm).quantizers()[row.site].quantize(x)
    # float32 sums of 32,768 values: 1e-4 relative is 0.0005 dB
    assert row.sqnr == pytest.approx(float(10 * torch.log10(x.square().sum() / (q - x).square().sum())), abs=1e-2)
    assert row.seen_high == pytest.approx(float(x.max()), rel=1e-5)


def test_worst_first_by_any_column(report):
    for column in COLUMNS:
        values = [getattr(row, column) for row in report.sorted(column)]
        falling = [-value for value in values] if column.endswith(("sqnr", "cosine", "used")) else values
        assert falling == sorted(falling, reverse=True)
    assert {row.site.split(".")[1] for row in report.sorted("share", "model.22.**")} == {"22"}
    with pytest.raises(Problem, match=r"sqnrr: is no column; expected one of: share.*; did you mean 'sqnr'\?"):
        report.sorted("sqnrr")
    with pytest.raises(Problem, match=r"model\.0\.cnv: is not in the report; did you mean 'model\.0\.conv'\?"):
        report["model.0.cnv"]


def test_csv_and_json_hold_every_row(report):
    rows = list(csv.DictReader(io.StringIO(report.csv())))
    assert [row["site"] for row in rows] == [row.site for row in report.rows]
    assert float(rows[3]["sqnr"]) == report.rows[3].sqnr
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert len(summary["sites"]) == len(report.rows)
    assert summary["output"]["divergence"] == report.output.divergence > 0


def test_refusals(yolov8n, prepared, calibrated):
    with pytest.raises(Problem, match=r"yolov8n\.yaml: is at stage float; expected stage qat for analyze"):
        analyze(yolov8n, [])
    with pytest.raises(Problem, match=r"was never calibrated; expected a calibrated \.fxqat; run fxqat calibrate"):
        analyze(prepared, [])
    with pytest.raises(Problem, match=r"analysis: saw no image"):
        analyze(calibrated, [])


def test_the_model_is_left_as_it_was(calibrated, images):
    state = {key: value.clone() for key, value in calibrated.gm.state_dict().items()}
    gradients = [parameter.requires_grad for parameter in calibrated.parameters()]
    analyze(calibrated, [images[:1]], probes=1)
    assert all(torch.equal(value, state[key]) for key, value in calibrated.gm.state_dict().items())
    assert gradients == [parameter.requires_grad for parameter in calibrated.parameters()]
