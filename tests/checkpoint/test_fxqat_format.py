"""The .fxqat file: round trips bit for bit at every stage, and every way in which a file can be wrong."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from refusals import refusal
from safetensors import safe_open
from safetensors.torch import save_file

import fxqat
from fxqat.graph.text import text


@pytest.fixture(scope="module")
def file(tmp_path_factory, calibrated):
    return fxqat.save(calibrated, tmp_path_factory.mktemp("saved") / "qat.fxqat")


def header(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["fxqat"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewritten(path, target, **changes):
    """A copy of ``path`` whose header says something else."""
    words, tensors = header(path)
    save_file(tensors, target, metadata={"fxqat": json.dumps({**words, **changes})})
    return target


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        a, b = list(a.values()), list(b.values())
    return all(same(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize("stage", ["yolov8n", "calibrated", "converted"])
def test_a_round_trip_gives_the_same_bits(stage, request, tmp_path, images):
    model = request.getfixturevalue(stage)
    again = fxqat.load(fxqat.save(model, tmp_path / "a.fxqat"))
    assert again.recipe == model.recipe
    assert again.source == model.source
    assert text(again.gm.graph) == text(model.gm.graph)
    with torch.no_grad():
        assert same(again(images), model(images))


def test_a_model_that_was_only_prepared_comes_back_and_does_not_run(tmp_path, prepared, images):
    again = fxqat.load(fxqat.save(prepared, tmp_path / "a.fxqat"))
    assert again.recipe == prepared.recipe
    assert same(again.gm.state_dict(), prepared.gm.state_dict())
    assert "quantizes without a range; calibrate it" in refusal(again, images)


def test_saving_twice_gives_the_same_tensors_and_recipe(tmp_path, calibrated):
    first, second = (header(fxqat.save(calibrated, tmp_path / f"{name}.fxqat")) for name in "ab")
    assert {key: value for key, value in first[0].items() if key != "written"} == {
        key: value for key, value in second[0].items() if key != "written"
    }
    assert list(first[1]) == list(second[1])


def test_there_is_no_pickle_and_no_path_in_the_file(file):
    words, _ = header(file)
    assert set(words) >= {"format", "source", "recipe", "versions", "tensors_sha256"}
    assert "/" not in words["source"]["name"]
    assert not file.read_bytes().startswith(b"PK")


def test_a_loaded_model_can_go_on(file):
    int8, _ = fxqat.convert(fxqat.load(file))
    assert int8.stage == "int8"


def test_a_missing_an_empty_and_a_truncated_file(tmp_path, file):
    path = tmp_path / "x.fxqat"
    assert refusal(fxqat.load, path) == f"{path}: no such file; expected a .fxqat file; make it with fxqat prepare"
    for content in (b"", b"hello", file.read_bytes()[:1000], file.read_bytes()[:-1]):
        path.write_bytes(content)
        words = refusal(fxqat.load, path)
        assert words.startswith(f"{path}: is damaged or truncated (")
        assert words.endswith("expected a .fxqat file; make it again")


def test_a_flipped_letter_in_the_recipe_is_noticed(tmp_path, file):
    content = file.read_bytes()
    path = tmp_path / "flipped.fxqat"
    path.write_bytes(content.replace(b"method: mse", b"method: msd", 1))
    assert path.read_bytes() != content
    assert refusal(fxqat.load, path) == (
        f"{path}: is damaged: its recipe does not have the checksum written with it; make it again"
    )


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_flipped_bit_is_noticed(tmp_path, file, place):
    content = bytearray(file.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    content[start + int(place * (len(content) - start))] ^= 1
    path = tmp_path / "flipped.fxqat"
    path.write_bytes(bytes(content))
    assert (
        refusal(fxqat.load, path)
        == f"{path}: is damaged: its tensors do not have the checksum written with them; make it again"
    )


def test_a_newer_format(tmp_path, file):
    words = refusal(fxqat.load, rewritten(file, tmp_path / "new.fxqat", format=3, versions={"fxqat": "9.1"}))
    assert words.endswith("was written by fxqat 9.1 in format 3; expected format 2; update fxqat")


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "other.fxqat"
    save_file({"a": torch.ones(1)}, path)
    assert refusal(fxqat.load, path) == f"{path}: is a safetensors file of another program; expected a .fxqat file"


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": {}},
        {"source": None},
        {"source": {"names": 3}},
        {"recipe": {"stage": "qat", "patterns": [], "passes": [], "extra": 1}},
        {"recipe": {"stage": 3, "patterns": [], "passes": []}},
        {"format": "one"},
        {"format": 0},
        {"tensors_sha256": None},
    ],
)
def test_a_header_that_makes_no_sense(tmp_path, file, change):
    assert "is damaged" in refusal(fxqat.load, rewritten(file, tmp_path / "odd.fxqat", **change))


def test_a_header_that_is_no_json(tmp_path, file):
    path = tmp_path / "odd.fxqat"
    save_file(header(file)[1], path, metadata={"fxqat": "{"})
    assert "is damaged" in refusal(fxqat.load, path)


def test_an_architecture_in_the_header_is_a_record_that_nothing_evaluates(tmp_path, file):
    ran = tmp_path / "ran"
    source = header(file)[0]["source"]
    source["architecture"]["activation"] = f"__import__('os').system('touch {ran}')"
    odd = fxqat.load(rewritten(file, tmp_path / "odd.fxqat", source=source))
    assert odd.source.architecture["activation"].startswith("__import__")
    assert not ran.exists()


def test_graphs_that_unpack_to_too_much_are_refused(tmp_path, file, monkeypatch):
    monkeypatch.setattr("fxqat.checkpoint.fxqat_format._MOST_BYTES", 1000)
    assert "its recipe makes no sense (its graphs are too large)" in refusal(fxqat.load, file)


def test_another_suffix_is_refused(tmp_path, yolov8n):
    assert refusal(fxqat.save, yolov8n, tmp_path / "a.pt").endswith(
        "ends in '.pt'; expected a name that ends in .fxqat"
    )


def test_a_folder_that_is_not_there(tmp_path, yolov8n):
    path = tmp_path / "no" / "a.fxqat"
    assert refusal(fxqat.save, yolov8n, path) == (
        f"{path}: its folder does not exist; create {path.parent} or choose another -o"
    )


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, yolov8n, monkeypatch):
    path = fxqat.save(yolov8n, tmp_path / "a.fxqat")
    before = path.read_bytes()

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("fxqat.checkpoint.tensors.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        fxqat.save(yolov8n, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stage", ["yolov8n", "calibrated", "converted"])
def test_graphs_take_a_hundredth_of_the_file(stage, request, tmp_path):
    path = fxqat.save(request.getfixturevalue(stage), tmp_path / "a.fxqat")
    assert header(path)[1]["#graphs"].numel() < path.stat().st_size / 50
