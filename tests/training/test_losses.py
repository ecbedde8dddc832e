"""The parts of the loss against formulas worked out apart, against Ultralytics', and against their own laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from fxqat.errors import Problem
from fxqat.models.families.detect import DETECT
from fxqat.models.family import HeadSpec
from fxqat.quant.modules import QATConv2d
from fxqat.quant.spec import QuantSpec
from fxqat.training.losses import (
    DistillationLoss,
    FocalLoss,
    LossConfig,
    LossInputs,
    QATPenaltyLoss,
    TaskLoss,
    build_loss_function,
)
from fxqat.training.ultralytics_model import Trainee

OUTPUTS = DETECT.trained(HeadSpec(classes=3))
LOGITS = st.floats(-8, 8, width=32)


def raw(seed: int, anchors: int = 5, classes: int = 3) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randn(2, 64, anchors, generator=generator)
    scores = torch.randn(2, classes, anchors, generator=generator)
    return {"boxes": boxes, "scores": scores, "feats": [torch.randn(2, 4, 2, 2, generator=generator)]}


def number(value: torch.Tensor) -> float:
    return value.detach().item()


def seen(student: dict[str, object], progress: float = 0.0, gm: torch.nn.Module | None = None) -> LossInputs:
    return LossInputs(
        raw=student, batch={"img": torch.zeros(2, 3, 64, 64)}, gm=gm or torch.nn.Module(), progress=progress
    )


@pytest.fixture
def batch(images):
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.2, 0.2], [0.7, 0.2, 0.3, 0.3]])
    return {
        "img": images,
        "batch_idx": torch.tensor([0.0, 1.0, 3.0]),
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": boxes,
    }


def test_the_task_loss_is_ultralytics_own(three, batch):
    model = DetectionModel(dict(three.source.architecture), verbose=False)
    model.load_state_dict({name.removeprefix("gm."): value for name, value in three.state_dict().items()}, strict=False)
    model.args = DEFAULT_CFG
    trainee = Trainee(three)
    trainee.args = DEFAULT_CFG
    criterion = build_loss_function(LossConfig(), model=trainee)
    predictions = three.gm(batch["img"])[1]
    total, items = criterion(predictions, batch, three.gm)
    expected, names = model.init_criterion()(predictions, batch)
    assert float(total.detach()) == pytest.approx(float(expected.detach().sum()), rel=1e-6)
    assert {name: float(value) for name, value in items.items()} == pytest.approx(
        {name: float(value) for name, value in names.items()}, rel=1e-6
    )


@given(st.lists(st.tuples(LOGITS, st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 5))
@settings(max_examples=50)
def test_focal_loss_is_weighted_cross_entropy(pairs, gamma):
    logits, labels = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    plain = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    assert torch.equal(FocalLoss(gamma=0.0)(logits, labels), plain)
    focal = FocalLoss(gamma=gamma)(logits, labels)
    assert bool((focal <= plain + 1e-12).all())
    for loss, logit, label, whole in zip(focal, logits, labels, plain, strict=True):
        p = 1 / (1 + math.exp(-float(logit)))
        missing = 1 - (float(label) * p + (1 - float(label)) * (1 - p))
        assert float(loss) == pytest.approx(float(whole) * missing**gamma, rel=1e-9, abs=1e-12)


def test_focal_loss_weighs_positives_by_alpha():
    loss = FocalLoss(gamma=0.0, alpha=0.25)(torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert loss.tolist() == pytest.approx([0.25 * math.log(2), 0.75 * math.log(2)])


def test_distillation_is_zero_with_zero_gradient_where_both_agree():
    student = raw(0)
    leaves = [student["boxes"].requires_grad_(), student["scores"].requires_grad_()]
    twin = {"boxes": leaves[0].detach(), "scores": leaves[1].detach(), "feats": student["feats"]}
    parts = DistillationLoss(lambda images: twin, OUTPUTS, features=1.0)(seen(student))
    assert {name: pytest.approx(0, abs=1e-6) for name in parts} == {name: number(one) for name, one in parts.items()}
    gradients = torch.autograd.grad(parts["distill_cls"] + parts["distill_box"], leaves)
    assert max(float(one.abs().max()) for one in gradients) < 1e-6


def test_distillation_is_the_formula():
    student, teacher = raw(1), raw(2)
    parts = DistillationLoss(lambda images: teacher, OUTPUTS, weight=2.0, features=3.0)(seen(student))
    p, q = teacher["scores"].double().sigmoid(), student["scores"].double().sigmoid()
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)
    weight = p.amax(1) / p.amax(1).sum(1, keepdim=True) / len(p)  # a mean over images, each of weight 1
    assert float(parts["distill_cls"]) == pytest.approx(2 * float((kl * weight).sum()), rel=1e-5)
    sides = [one["boxes"].double().view(2, 4, 16, 5).softmax(2) for one in (teacher, student)]
    boxes = (sides[0] * (sides[0] / sides[1]).log()).sum(2).mean(1)
    assert float(parts["distill_box"]) == pytest.approx(2 * float((boxes * weight).sum()), rel=1e-5)
    mine, theirs = student["feats"][0], teacher["feats"][0]
    expected = 3 * float((mine - theirs).square().mean() / theirs.square().mean())
    assert float(parts["distill_feat"]) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=25)
def test_distillation_is_never_negative(one, other):
    parts = DistillationLoss(lambda images: raw(other), OUTPUTS)(seen(raw(one)))
    assert min(float(value) for value in parts.values()) >= -1e-5


def quantized_conv() -> QATConv2d:
    torch.manual_seed(0)
    conv = QATConv2d.fused(torch.nn.Conv2d(16, 32, 3))
    conv.quantize_weight(QuantSpec(narrow=True, axis=0))
    return conv


def test_the_penalty_is_about_one_for_weights_anywhere_and_zero_on_the_grid():
    conv = quantized_conv()
    loss = QATPenaltyLoss(1.0, warmup=0.0)
    # the mean of 4608 squares of a uniform error, of relative deviation sqrt(0.8 / 4608) = 1.3 %: within four of them
    assert number(loss(seen(raw(0), gm=conv))["penalty"]) == pytest.approx(1, abs=0.053)
    with torch.no_grad():
        conv.weight.copy_(conv.weight_fake_quant.quantize(conv.weight))
    # a weight on its code comes back within rounding: (127 * 2**-23)**2 * 12 at most
    assert number(loss(seen(raw(0), gm=conv))["penalty"]) < 1e-8


def test_the_penalty_pulls_weights_to_their_codes_and_rises():
    conv = quantized_conv()
    loss = QATPenaltyLoss(2.0, warmup=0.5)
    values = [number(loss(seen(raw(0), progress, conv))["penalty"]) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert values[0] == 0
    assert values[1] == pytest.approx(values[2] / 2)
    assert values[2] == values[3]
    loss(seen(raw(0), 1.0, conv))["penalty"].backward()
    with torch.no_grad():
        towards = conv.weight - conv.weight_fake_quant.quantize(conv.weight)
    assert bool((conv.weight.grad.sign() == towards.sign()).float().mean() > 0.99)


def test_the_penalty_is_the_same_for_any_scale():
    small, large = quantized_conv(), quantized_conv()
    with torch.no_grad():
        large.weight.mul_(1024)  # a power of two: every number is the same but for its exponent
    large.calibrate_weight()
    found = [number(QATPenaltyLoss(1.0, 0.0)(seen(raw(0), gm=one))["penalty"]) for one in (small, large)]
    assert found[0] == found[1]


def test_parts_add_up_by_name(batch, three):
    trainee = Trainee(three)
    trainee.args = DEFAULT_CFG
    predictions = three.gm(batch["img"])[1]
    config = {"task": 0.5, "distill": 1.0, "focal": 1.5, "penalty": 0.1}
    criterion = build_loss_function(config, model=trainee, teacher=lambda images: predictions)
    total, items = criterion(predictions, batch, three.gm)
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss", "distill_box", "distill_cls"]  # nothing is quantized
    assert float(total.detach()) == pytest.approx(4 * sum(float(one) for one in items.values()), rel=1e-6)
    whole = TaskLoss(trainee, 1.5)(LossInputs(raw=predictions, batch=batch, gm=three.gm))
    assert float(items["box_loss"]) == pytest.approx(number(whole["box_loss"]) / 2)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"task": -1.0}, "loss: task: -1.0 is not legal, expected 0 or more"),
        ({"task": 0.0}, "loss: task: 0 is not legal where distill and features are 0 too"),
        ({"penalty_warmup": 2.0}, "loss: penalty_warmup: 2.0 is not legal, expected 0 to 1"),
        ({"tusk": 1.0}, "unexpected keyword argument 'tusk'.*expected fields of LossConfig: task, distill"),
        ({"distill": 1.0}, "loss: distillation needs a teacher; give the float detector as teacher"),
    ],
)
def test_refusals(config, says, three):
    trainee = Trainee(three)
    trainee.args = DEFAULT_CFG
    with pytest.raises(Problem, match=says):
        build_loss_function(config, model=trainee)
