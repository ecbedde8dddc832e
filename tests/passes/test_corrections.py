"""Corrections by name: what a policy may say, what calibrate does with it, what a file remembers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from passes.networks import TEXT, Chain, calibrated, images, prepared
from refusals import refusal
from torch import nn

import fxqat
from fxqat.cli import main
from fxqat.commands.calibrate import ADVISED
from fxqat.errors import Problem
from fxqat.passes.calibrate import use_method
from fxqat.passes.corrections.adaround import AdaRound
from fxqat.passes.corrections.bias_correction import BiasCorrection
from fxqat.passes.corrections.equalize import Equalize
from fxqat.passes.corrections.layerwise import Images, LayerBatch, layers, lockstep
from fxqat.passes.corrections.registry import correct, corrections, options
from fxqat.passes.quant_graph import QuantGraph
from fxqat.policy import Policy

SMALL = "model.0.conv"


def read(words: str) -> Policy:
    return Policy.parse(f"{TEXT.replace('BITS', '8')}corrections: {words}\n", "p.yaml")


def test_names_and_options_become_passes_in_order():
    made = corrections(read("[equalize, adaround, {bias_correction: {images: 5, order: parallel}}]"))
    assert made == (Equalize(), AdaRound(), BiasCorrection(images=5, order="parallel"))
    assert options(made[2]) == {"images": 5, "order": "parallel", "weighted": True, "float_layers": True}


def test_a_policy_without_corrections_has_none():
    assert corrections(Policy.load("critical")) == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("[adaruond]", "p.yaml:8: unknown correction 'adaruond'"),
        ("[adaruond]", "did you mean 'adaround'?"),
        ("[{bias_correction: {image: 3}}]", "p.yaml:8: unknown option 'image' of bias_correction"),
        ("[{bias_correction: {image: 3}}]", "did you mean 'images'?"),
        (
            "[{bias_correction: {images: many}}]",
            "bias_correction: images is 'many'; expected a whole number such as 32",
        ),
        ("[{bias_correction: {weighted: 1}}]", "bias_correction: weighted is 1; expected true or false"),
        ("[{bias_correction: {order: both}}]", "order: 'both' is not legal, expected one of sequential, parallel"),
        ("[{bias_correction: {images: 0}}]", "images: 0 is not legal, expected 1 or more"),
        ("[{adaround: {columns: 1}}]", "columns: 1 is not legal, expected 8 or more"),
        ("[{equalize: {tolerance: 0}}]", "tolerance: 0 is not legal, expected more than 0"),
        ("[{bn_reestimate: {batch: 0}}]", "batch: 0 is not legal, expected 1 or more"),
        ("[adaround, equalize]", "p.yaml:8: equalize stands after adaround, but works before ranges are chosen"),
        ("adaround", "p.yaml:8: corrections: is text; expected a list of names"),
        ("[3]", "p.yaml:8: a correction is 3; expected a name, or {name: {option: value}}"),
        ("[{adaround: 3}]", "p.yaml:8: a correction is {'adaround': 3}"),
    ],
)
def test_mistakes_are_one_line_with_the_place(words, message):
    with pytest.raises(Problem, match=re.escape(message)) as caught:
        corrections(read(words))
    assert "\n" not in str(caught.value)


def test_an_error_names_the_line_of_its_own_item():
    with pytest.raises(Problem, match=re.escape("p.yaml:11: unknown correction 'b'")):
        corrections(read("\n  - equalize\n  - adaround\n  - b"))


def test_prepare_refuses_what_calibrate_would(tmp_path):
    text = Policy.load("w8a8").text + "corrections: [nonsense]\n"
    with pytest.raises(Problem, match="unknown correction 'nonsense'"):
        fxqat.prepare("yolov8n.yaml", Policy.parse(text, "p.yaml"))


def test_each_runs_on_its_side_of_observing_and_reports_in_order():
    gm = prepared(Chain(nn.ReLU))
    names: list[str] = []
    chosen = corrections(read("[equalize, {bias_correction: {images: 2}}]"))
    first = correct(gm, chosen, images(), before_ranges=True, on_step=names.append)
    assert ([one["name"] for one in first], names) == (["equalize"], ["equalize"])
    assert first[0]["options"] == {"rounds": 20, "tolerance": 0.01}


def test_lockstep_gives_what_plain_runs_give():
    gm, material = calibrated(Chain(nn.SiLU))
    found: dict[str, LayerBatch] = {}
    batches = list(images().read())[:1]
    lockstep(gm, material.reference, batches, lambda layer, seen: found.update({layer.site: seen[0]}))
    outputs = {}
    for layer in layers(gm):
        layer.module.register_forward_hook(lambda module, args, out, site=layer.site: outputs.update({site: out}))
    with torch.no_grad():
        gm(batches[0])
    assert list(found) == ["first.conv", "second.conv", "last"]
    assert all(torch.equal(found[site].quantized, outputs[site]) for site in found)


def test_lockstep_applies_the_activation_that_a_layer_owns():
    gm, material = calibrated(Chain(nn.ReLU))
    found: dict[str, LayerBatch] = {}
    batches = list(images().read())[:1]
    lockstep(gm, material.reference, batches, lambda layer, seen: found.update({layer.site: seen[0]}))
    assert float(found["first.conv"].reference.min()) < 0
    assert float(found["second.conv"].arguments[0].min()) >= 0
    assert all(layer.owned is None or layer.module.activation is layer.owned for layer in layers(gm))


@pytest.mark.parametrize(("wanted", "taken"), [(3, [0, 2, 5]), (8, list(range(8))), (20, list(range(8)))])
def test_images_are_spread_evenly(wanted, taken):
    every = torch.cat(list(images().read()))
    assert torch.equal(torch.cat(list(images().spread(wanted))), every[taken])


def test_a_method_changes_every_range_that_is_observed():
    gm = prepared(Chain(nn.SiLU))
    use_method(gm, "percentile")
    specs = {site: fake.spec for site, fake in QuantGraph(gm).quantizers().items()}
    assert {spec.method for spec in specs.values() if spec.fixed is None} == {"percentile"}
    assert specs["first.conv"].through is None
    assert specs["first.conv.sigmoid"].fixed == (0.0, 1.0)
    use_method(gm, "mse")
    specs = {site: fake.spec.through for site, fake in QuantGraph(gm).quantizers().items()}
    assert (specs["first.conv"], specs["first.conv.silu"], specs["last"]) == ("silu", None, None)


def test_an_unknown_method_is_named_with_the_nearest():
    expected = "--method: unknown method 'entropi'; expected one of: standard, percentile, entropy, mse"
    with pytest.raises(Problem, match=re.escape(expected)) as caught:
        use_method(prepared(Chain(nn.SiLU)), "entropi")
    assert "did you mean 'entropy'?" in str(caught.value)


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    return list(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).split(1))


@pytest.fixture(scope="module")
def corrected(batches):
    text = Policy.load("w8a8").text
    text += (
        "corrections: [equalize, {adaround: {images: 1, columns: 32, iterations: 2}}, {bias_correction: {images: 2}}]\n"
    )
    torch.manual_seed(0)
    model, _ = fxqat.prepare("yolov8n.yaml", Policy.parse(text, "p.yaml"))
    return fxqat.calibrate(model, batches, method="percentile")


def test_calibrate_records_method_and_corrections(corrected):
    done = corrected.recipe.calibration
    assert (done["method"], done["images"]) == ("percentile", 2)
    says = [one["says"] for one in done["corrections"]]
    assert says[0].startswith("nothing to equalize: 57 layers refused: SiLU is not positively homogeneous")
    assert says[1].endswith("(1 images)")
    assert says[2].startswith("63 layers corrected (sequential, 2 images)")


def test_a_corrected_file_reloads_to_the_bit(corrected, batches, tmp_path):
    path: Path = fxqat.save(corrected, tmp_path / "x.fxqat")
    again = fxqat.load(path)
    specs = [fake.spec for fake in QuantGraph(again.gm).quantizers().values()]
    assert {spec.method for spec in specs if spec.fixed is None} == {"percentile"}
    with torch.no_grad():
        assert torch.equal(again(batches[0])[0], corrected(batches[0])[0])


def test_what_was_corrected_is_not_calibrated_again(corrected, batches):
    with pytest.raises(Problem) as caught:
        fxqat.calibrate(corrected, batches)
    assert str(caught.value) == (
        "yolov8n.yaml: its weights were changed when it was calibrated (equalize, adaround, bias_correction); expected "
        "a detector that is not calibrated yet; take the .fxqat that fxqat prepare wrote"
    )


def test_a_stream_cannot_be_read_again(batches):
    text = Policy.load("w8a8").text + "corrections: [bias_correction]\n"
    model, _ = fxqat.prepare("yolov8n.yaml", Policy.parse(text, "p.yaml"))
    with pytest.raises(Problem, match="can be read only once, and corrections read it again"):
        fxqat.calibrate(model, iter(batches))


def test_images_that_nobody_counted_are_all_taken():
    unknown = Images(read=images().read, total=0)
    assert len(list(unknown.spread(3))) == 8


@pytest.fixture(scope="module")
def prepared_file(tmp_path_factory) -> Path:
    text = Policy.load("critical").text + "corrections: [{bias_correction: {images: 1, order: parallel}}]\n"
    model, _ = fxqat.prepare("yolov8n.yaml", Policy.parse(text, "p.yaml"))
    return fxqat.save(model, tmp_path_factory.mktemp("cli") / "x.fxqat")


def test_the_command_takes_a_method_and_tells_what_corrections_did(prepared_file, tiny_data, capsys):
    words = f"calibrate {prepared_file} --data {tiny_data} --images 1 --imgsz 64 --method percentile --quiet"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "bias_correction: 63 layers corrected (parallel, 1 images)" in said
    again = fxqat.load(prepared_file.with_name("x_ptq.fxqat"))
    assert again.recipe.calibration["method"] == "percentile"


@pytest.mark.parametrize(
    ("names", "says"),
    [("bias_correction", ["bias_correction: 63 layers corrected (sequential, 1 images)"]), ("none", [])],
)
def test_the_command_takes_corrections_instead_of_the_policys(prepared_file, tiny_data, tmp_path, capsys, names, says):
    target = tmp_path / "corrected.fxqat"
    words = f"calibrate {prepared_file} --data {tiny_data} --images 1 --imgsz 64 --correct {names} -q -o {target}"
    assert main(words.split()) == 0
    told = [line.partition(", largest")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [f"calibrated on 1 images; {ADVISED}", *says, f"wrote {target}"]
    done = fxqat.load(target).recipe.calibration.get("corrections", [])
    assert [one["name"] for one in done] == [one.partition(":")[0] for one in says]


def test_unknown_corrections_and_a_wrong_order_are_refused(prepared_file, batches):
    model = fxqat.load(prepared_file)
    expected = "one of: equalize, adaround, bias_correction, bn_reestimate"
    words = refusal(fxqat.calibrate, model, batches, corrections=["bias_corection"])
    assert (
        words
        == f"corrections: unknown correction 'bias_corection'; expected {expected}; did you mean 'bias_correction'?"
    )
    words = refusal(fxqat.calibrate, model, batches, corrections=["adaround", "equalize"])
    assert words.startswith("corrections: equalize stands after adaround, but works before ranges are chosen; ")


def test_the_command_refuses_an_unknown_method_in_one_line(prepared_file, tiny_data, capsys):
    assert main(f"calibrate {prepared_file} --data {tiny_data} --method mean".split()) == 2
    assert (
        "--method: unknown method 'mean'; expected one of: standard, percentile, entropy, mse"
        in capsys.readouterr().err
    )
