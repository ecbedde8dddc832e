"""Passes that training needs: learned scales, the quick view, the float network behind a prepared graph."""

from __future__ import annotations

import copy

import torch

from fxqat.graph.pipeline import Pipeline
from fxqat.models.detector import cut
from fxqat.passes.absorb_norms import AbsorbNorms, normed
from fxqat.passes.fuse_quantized_silu import Quicken
from fxqat.passes.learn_scales import LearnScales
from fxqat.passes.quant_graph import QuantGraph
from fxqat.passes.unquantize import Unquantize
from fxqat.quant.fake_quantize import LSQFakeQuantize
from fxqat.training.ultralytics_model import Trainee


def test_learned_scales_start_where_calibration_ended(calibrated, images):
    gm, report = Pipeline((LearnScales(),)).run(calibrated.gm)
    fakes = QuantGraph(gm).quantizers_by_path()
    learning = {path: one for path, one in fakes.items() if isinstance(one, LSQFakeQuantize)}
    fixed = [one for path, one in fakes.items() if path not in learning]
    assert report["learn_scales"].report.says == f"{len(learning)} of 166 activation scales are learned"
    assert len(fixed) == 58  # the images and 57 sigmoids, whose range is known
    assert all(one.spec.fixed is not None for one in fixed)
    with torch.no_grad():
        assert torch.equal(gm(images)[0], calibrated.gm(images)[0])


def test_learning_scales_renames_nothing_in_the_state(calibrated):
    gm, _ = Pipeline((LearnScales(),)).run(calibrated.gm)
    learned, given = gm.state_dict(), calibrated.gm.state_dict()
    assert sorted(learned) == sorted(given)
    assert all(torch.equal(learned[name], given[name]) for name in given)
    copy.deepcopy(calibrated.gm).load_state_dict(learned)


def test_the_quick_view_computes_the_same_bits(calibrated, images):
    before = sorted(calibrated.gm.state_dict())
    plain = cut(calibrated.gm, 1)
    quick = cut(calibrated.gm, 1)
    assert Quicken()(quick).says == "57 quantized_silu"
    with torch.no_grad():
        expected, found = plain(images), quick(images)
    assert torch.equal(found["boxes"], expected["boxes"])
    assert torch.equal(found["scores"], expected["scores"])
    assert sorted(calibrated.gm.state_dict()) == before


def test_the_quick_view_has_the_same_gradients(calibrated, images):
    gm, _ = Pipeline((LearnScales(),)).run(calibrated.gm)
    gm.requires_grad_(True).eval()
    quick = cut(gm, 1)
    Quicken()(quick)
    found = []
    for view in (cut(gm, 1), quick):
        gm.zero_grad()
        view(images[:2])["scores"].sigmoid().sum().backward()
        found.append({name: one.grad.clone() for name, one in gm.named_parameters() if one.grad is not None})
    slow, fast = found
    assert slow.keys() == fast.keys()
    # Sums over up to 64 * 64 * 16 products in another order, through 60 layers: an error of each sum of some
    # sqrt(65536) * 2**-24 = 1.5e-5 of its terms' size, which cancellation magnifies; 1e-2 of the largest entry.
    for name in slow:
        scale = float(slow[name].abs().max())
        assert float((slow[name] - fast[name]).abs().max()) <= 1e-2 * scale + 1e-7, name


def test_absorbed_norms_scale_by_one_and_compute_the_same(calibrated, images):
    gm, report = Pipeline((AbsorbNorms(),)).run(calibrated.gm)
    assert report["absorb_norms"].report.says == "57 batch norms scale by 1"
    for before, after in zip(normed(calibrated.gm), normed(gm), strict=True):
        # gamma * rsqrt(var + eps): a square root, its reciprocal and a product, each rounded once
        assert after._factor().sub(1).abs().max() <= 4 * 2**-24
        for ours, theirs in zip(after.folded(), before.folded(), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))
        assert torch.equal(after.bn.running_var, before.bn.running_var)
    floats = [Pipeline((Unquantize(),)).run(cut(one, 1))[0] for one in (calibrated.gm, gm)]
    with torch.no_grad():
        expected, found = (one(images)["scores"] for one in floats)
    # as in the next test: each weight rounded anew, through 60 layers of sums
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_unquantized_is_the_float_network(calibrated, yolov8n, images):
    view, _ = Pipeline((Unquantize(),)).run(cut(calibrated.gm, 1))
    with torch.no_grad():
        found, expected = view(images), cut(yolov8n.gm, 1)(images)
    # folding rounds each weight once, 2**-24, through 60 layers of sums; measured 3e-6
    for name in ("boxes", "scores"):
        assert float((found[name] - expected[name]).abs().max()) <= 1e-4 * float(expected[name].abs().max())


def test_a_trainee_predicts_as_its_detector(calibrated, images):
    trainee = Trainee(calibrated).eval()
    with torch.no_grad():
        assert torch.equal(trainee(images, augment=False)[0], calibrated.gm(images)[0])
    assert trainee.loss({"img": images})[1] == {}
    assert (trainee.nc, trainee.model[-1].reg_max, trainee.stride.tolist()) == (80, 16, [8, 16, 32])


def test_copies_of_a_trainee_share_nothing(calibrated):
    trainee = Trainee(calibrated)
    twin = copy.deepcopy(trainee)
    mine, theirs = trainee.state_dict(), twin.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].data_ptr() != theirs[name].data_ptr() for name in mine if mine[name].numel())
