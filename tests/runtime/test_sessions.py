"""verify in several runtimes, --strict, and what an INT8 graph has of integers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import onnx
import pytest
import torch
from refusals import refusal

import fxqat
from fxqat.cli import main
from fxqat.errors import Problem
from fxqat.runtime import runtimes
from fxqat.runtime.reference.int8_summary import account
from fxqat.runtime.runtime import Runtime
from fxqat.runtime.runtimes import RUNTIMES, chosen, register_runtime
from fxqat.runtime.verify import Difference, Row, Verification


def found(*differing: int) -> Verification:
    rows = [
        Row(site=f"model.{i}", reference_runtime=Difference(codes=1000, differing=count, largest=min(count, 1)))
        for i, count in enumerate(differing)
    ]
    return Verification(rows=tuple(rows), images=1, output_error={})


def test_a_failure_names_the_first_site_that_differs():
    assert found(0, 0).failure(0.0) is None
    assert found(0, 1, 3).failure(2e-3) is None, "4 of 3000 are fewer"
    assert found(0, 1, 3).failure(1e-3) == (
        "4 of 3000 codes differ between the reference and ONNX Runtime: 1.33e-03, above the bound 1.00e-03; first at "
        "model.1: 1 of 1000 codes, by at most 1 LSB"
    )


def test_runtimes_are_compared_side_by_side(calibrated, exported, images):
    seen = fxqat.verify(calibrated, exported, [images[:1]], imgsz=64, runtimes=["ort", "ort-plain"])
    assert seen.runtimes == ("ort", "ort-plain")
    assert seen.total("reference_runtime").differing == 0
    # without optimizations each operation rounds floats: the same but for ties, which a random network amplifies
    assert seen.rows[0].others["ort-plain"].differing == 0, "images are exact"
    assert seen.total("ort-plain").codes == seen.total("reference_runtime").codes
    assert seen.summary()["totals"]["ort-plain"]["share"] == seen.total("ort-plain").share


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino: pip install .[peers]")
def test_openvino_gives_codes(calibrated, exported, images):
    seen = fxqat.verify(calibrated, exported, [images[:1]], imgsz=64, runtimes="openvino")
    assert seen.rows[0].reference_runtime.differing == 0


def test_a_runtime_that_is_missing_is_told(monkeypatch, calibrated, exported, images):
    monkeypatch.setattr(Runtime, "installed", property(lambda self: self.name != "openvino"))
    assert fxqat.verify(calibrated, exported, [images[:1]], imgsz=64, runtimes="ort,openvino").missing == ("openvino",)
    with pytest.raises(Problem, match="--runtimes: openvino is not installed; pip install openvino"):
        fxqat.verify(calibrated, exported, [images[:1]], imgsz=64, runtimes="openvino")


def test_a_zero_point_that_is_no_constant_is_for_the_runtime_to_refuse(calibrated, exported, tmp_path):
    proto, path = onnx.load(exported), tmp_path / "odd.onnx"
    first = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    first.input[2] = "nowhere"
    onnx.save(proto, path)
    words = refusal(fxqat.verify, calibrated, path, [torch.zeros(1, 3, 64, 64)], imgsz=64)
    assert words.startswith(f"{path}: ONNX Runtime cannot run it: ")


def test_names_of_runtimes():
    for suffix in (".onnx", ".tflite"):
        able = [one.name for one in RUNTIMES.values() if one.suffix == suffix]
        assert sorted(one.name for part in chosen("all", suffix) for one in part) == sorted(able)
        assert [one.name for part in chosen(None, suffix) for one in part] == able[:1]
    with pytest.raises(Problem) as caught:
        chosen("ort,openvin")
    assert str(caught.value) == (
        "--runtimes: unknown runtime 'openvin'; expected of: ort, ort-plain, onnx, openvino, litert, litert-plain, "
        "all; did you mean 'openvino'?"
    )


@pytest.fixture
def files(calibrated, exported, tiny_data, tmp_path):
    path = fxqat.save(calibrated, tmp_path / "x.fxqat")
    return [str(path), "--onnx", str(exported), "--data", str(tiny_data), "--images", "2", "--imgsz", "64", "-q"]


def test_strict_is_silent_where_all_is_equal(files, capsys):
    assert main(["verify", *files, "--strict", "--bound", "0"]) == 0
    assert "reference / ONNX Runtime: every code equal" in capsys.readouterr().out


def test_strict_ends_with_code_1(files, exported, tmp_path, capsys):
    """One weight is changed in the file: what runs is no longer what was trained."""
    proto = onnx.load(exported)
    (weight,) = (one for one in proto.graph.initializer if list(one.dims) == [32, 12, 3, 2])
    tampered = onnx.numpy_helper.to_array(weight).copy()
    tampered[0] = -tampered[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(tampered, weight.name))
    files[2] = str(tmp_path / "tampered.onnx")
    onnx.save(proto, files[2])
    with pytest.raises(SystemExit) as caught:
        main(["verify", *files, "--strict"])
    assert caught.value.code == 1
    words = capsys.readouterr().err
    assert words.startswith("fxqat: ")
    assert "above the bound 1.00e-06; first at model.0.conv: " in words


def test_account_says_what_is_integer_and_why_the_rest_is_not(converted, yolov8n, images):
    assert str(account(converted.gm)) == "63 of 63 convolutions integer, 100.0% of the multiply-adds"
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, "critical", target="openvino")[0], [images])
    told = account(fxqat.convert(qat)[0].gm)
    assert (told.integer, told.layers) == (57, 63)
    assert 0.97 < told.share < 1
    assert str(told).splitlines()[1] == (
        "in float: model.22.cv2.0.2 and 2 more (box logits: these and the class logits carry most of the loss in mAP)"
    )


def test_a_runtime_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", dict(RUNTIMES))
    mine = replace(RUNTIMES["ort"], name="mine")
    register_runtime(mine)
    register_runtime(mine)
    assert chosen("mine") == ([mine], [])
    with pytest.raises(ValueError, match=r"runtime: 'mine' is taken, expected one that is not one of ort, .*mine"):
        register_runtime(replace(mine, title="another"))
