"""Retargeting: weights, biases and ranges stay, whatever the layout, and what is missing is asked for."""

from __future__ import annotations

from itertools import permutations

import onnx
import pytest
import torch

import fxqat
from fxqat.cli import main
from fxqat.errors import Problem
from fxqat.passes.quant_graph import QuantGraph
from fxqat.passes.transfer import _tensors
from fxqat.targets import TARGETS


@pytest.fixture(scope="module")
def made(small, images):
    found = {}

    def one(target):
        if target not in found:
            qat = fxqat.prepare(small, "w8a8", target=target)[0]
            found[target] = fxqat.calibrate(qat, [images])
        return found[target]

    return one


def weights(model):
    return {name: tensor for name, tensor in model.gm.state_dict().items() if not name.startswith("quantizer.")}


def ranges(model):
    """Lowest and highest value of each rounded tensor, and its scale."""
    fakes = QuantGraph(model.gm).quantizers_by_path()
    found = {}
    for tensor, path in _tensors(model.gm):
        numbers = fakes[path].qparams()
        ends = [float((end - numbers.zero_point) * numbers.scale) for end in (numbers.quant_min, numbers.quant_max)]
        found[tensor] = (*ends, float(numbers.scale))
    return found


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "ort-cpu"])
def test_from_onnx_runtime_to_every_other(made, target):
    before = made("ort-cpu")
    after, carried = fxqat.retarget(before, target)
    assert after.recipe.target == target
    assert carried.observed == ()
    old, new = weights(before), weights(after)
    of_layers = (".weight", ".bias", ".running_mean", ".running_var")
    kept = {name for name in new if name.endswith(of_layers)}
    assert kept == {name for name in old if name.endswith(of_layers)} != set()
    assert all(torch.equal(old[name], new[name]) for name in kept)
    scales = [name for name in new if name.endswith("weight_fake_quant.scale")]
    same = [name for name in scales if torch.equal(old[name], new[name])]
    assert (carried.weights, carried.rounded) == (len(same), len(scales) - len(same))
    # within an even number of channels every runtime on x86 reads the same pairs
    bounded = TARGETS[target].pair_orders != ()
    assert all(
        name in same for name in scales if bounded and old[name.replace("_fake_quant.scale", "")].shape[1] % 2 == 0
    )
    wanted, got = ranges(before), ranges(after)
    asymmetric, fixed = not TARGETS[target].activation.symmetric, TARGETS[target].fixed
    for tensor in got.keys() - {"images"}:
        if tensor.endswith(".sigmoid"):
            assert got[tensor][:2] == fixed["sigmoid"]
        elif asymmetric:
            assert got[tensor] == wanted[tensor], "the same codes, bit for bit, shifted"
        else:
            reach = max(-wanted[tensor][0], wanted[tensor][1])
            assert reach <= max(got[tensor][1], -got[tensor][0]) * (1 + 2**-7)


def test_there_and_back_again_needs_images_for_what_was_not_rounded(made, images):
    there, _ = fxqat.retarget(made("ort-cpu"), "openvino")
    with pytest.raises(Problem) as caught:
        fxqat.retarget(there, "ort-cpu")
    words = str(caught.value)
    assert words.startswith(f"{there.label}: ")
    assert words.endswith("expected images to observe them on; give --data")
    assert "tensors that ort-cpu rounds have no range yet (first: model.0.conv)" in words
    back, carried = fxqat.retarget(there, "ort-cpu", [images])
    assert len(carried.observed) == int(words.split(": ")[1].split()[0])
    wanted, got, shared = ranges(made("ort-cpu")), ranges(back), ranges(there)
    assert all(got[tensor] == wanted[tensor] for tensor in shared)


def test_a_symmetric_range_gives_way_to_one_that_was_seen(made, images):
    blind, first = fxqat.retarget(made("tensorrt"), "openvino")
    seeing, second = fxqat.retarget(made("tensorrt"), "openvino", [images])
    assert first.observed == ()
    assert len(second.observed) == first.ranges
    wide, narrow = ranges(blind)["model.0.conv"], ranges(seeing)["model.0.conv"]
    assert wide[0] == pytest.approx(-wide[1], rel=0.02)
    assert wide[0] < -0.3 < narrow[0], "SiLU ends at -0.278"


@pytest.mark.parametrize(("source", "target"), list(permutations(("ort-cpu", "ort-arm", "ort-cpu-vnni"), 2)))
def test_the_layouts_of_onnx_runtime_need_no_images(made, source, target):
    after, carried = fxqat.retarget(made(source), target)
    assert carried.observed == ()
    assert ranges(after) == ranges(made(source))


def test_a_retargeted_model_is_saved_converted_and_run(made, images, tmp_path):
    after, _ = fxqat.retarget(made("ort-cpu"), "openvino")
    again = fxqat.load(fxqat.save(after, tmp_path / "x.fxqat"))
    assert again.recipe.calibration["retargeted"][0]["from"] == "ort-cpu"
    with torch.no_grad():
        assert torch.equal(again(images)[0], after(images)[0])
    proto = onnx.load(fxqat.export(again, tmp_path / "x.onnx", imgsz=64))
    kinds = {one.data_type for one in proto.graph.initializer if len(one.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}, "no weight of a convolution is kept in float"


def test_what_a_target_cannot_run(small, images, tmp_path, capsys):
    text = fxqat.Policy.load("w8a8").text.replace("act8: {", "act8: {signed: false, symmetric: false, ")
    policy = tmp_path / "mine.yaml"
    policy.write_text(text)
    qat = fxqat.calibrate(fxqat.prepare(small, policy)[0], [images])
    path = fxqat.save(qat, tmp_path / "x.fxqat")
    assert main(["export", str(path), "--target", "tensorrt", "-o", str(tmp_path / "a.onnx")]) == 2
    assert capsys.readouterr().err == (
        "fxqat: mine.yaml:21: images: tensorrt cannot run the activation spec u8<0:255> asymmetric (it has int8 "
        "only, its zero points are 0); expected i8<-128:127> symmetric; leave signed, symmetric out of the spec and it "
        "is tensorrt's own\n"
    )
    assert not (tmp_path / "a.onnx").exists()


def test_verbs_and_targets_that_do_not_fit(prepared, converted, made):
    for model, words in (
        (prepared, "was never calibrated; expected a calibrated .fxqat"),
        (converted, "is at stage int8; expected stage qat for retarget"),
    ):
        with pytest.raises(Problem, match=words):
            fxqat.retarget(model, "openvino")
    with pytest.raises(Problem, match="--target: unknown target 'openvin'"):
        fxqat.retarget(made("ort-cpu"), "openvin")


def test_the_commands(made, tiny_data, tmp_path, capsys):
    path = fxqat.save(made("ort-cpu"), tmp_path / "x.fxqat")
    assert main(["export", str(path), "--target", "openvino", "--imgsz", "64", "-o", str(tmp_path / "x.onnx")]) == 0
    words = capsys.readouterr().out
    count = sum(layer.integer for layer in QuantGraph(made("ort-cpu").gm).layers())
    assert "ort-cpu -> openvino: " in words
    # that of the three-channel images
    assert f"ranges carried over; {count - 1} weights kept, 1 rounded anew\n" in words
    assert f"{count} of {count} convolutions integer, 100.0% of the multiply-adds\n" in words
    assert main(["retarget", str(path)]) == 2
    assert "--target: is missing; expected one of: ort-cpu, " in capsys.readouterr().err
    assert main(["retarget", str(path), "--target", "tensorrt", "-q"]) == 0
    assert (tmp_path / "x_tensorrt.fxqat").is_file()
