"""Policies: who decides a site, and every error by its text, with file and line."""

# ruff: noqa: E501  (one message a line, as it is printed)

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fxqat.graph.site import covers
from fxqat.policy import Policy, Site
from fxqat.policy.resources import OLD_NAMES, find, shipped
from fxqat.quant.spec import QuantSpec

HEAD = """version: 1
target: ort-cpu
specs:
  a8: {bits: 8, signed: false, symmetric: false}
  w8: {bits: 8, signed: true, symmetric: true, narrow: true, axis: 0}
rules:
"""
CONV = Site(path="model.0.conv", op="QATConv2d", roles=frozenset({"first_conv"}))
ADD = Site(path="model.2.m.0.add", op="add")
LOGITS = Site(path="model.22.cv2.0.2", op="QATConv2d", roles=frozenset({"detect", "detect_out"}))
SOFTMAX = Site(path="model.22.dfl.softmax", op="softmax", roles=frozenset({"dfl"}))
SCORES = Site(path="model.22.scores.sigmoid", op="sigmoid", roles=frozenset({"decode"}))
SITES = [CONV, ADD, LOGITS, SOFTMAX, SCORES]
REST = '  - {site: "**", float: true}\n'
SPECS = {"a8": QuantSpec(bits=8, signed=False, symmetric=False)}


def read(*rules: str, head: str = HEAD, rest: str = REST) -> Policy:
    return Policy.parse(head + "".join(f"  - {rule}\n" for rule in rules) + rest, "p.yaml")


def test_the_first_rule_that_matches_decides():
    decisions = read(
        '{site: "model.0.*", weight: w8, activation: a8, why: the stem}',
        "{op: add, activation: a8}",
        "{role: detect, float: true}",
    ).assign(SITES)
    assert [(path, decision.rule.line, str(decision.qconfig)) for path, decision in decisions.items()] == [
        ("model.0.conv", 7, "w=i8<-127:127>:axis0 a=u8<0:255>"),
        ("model.2.m.0.add", 8, "a=u8<0:255>"),
        ("model.22.cv2.0.2", 9, "float"),
        ("model.22.dfl.softmax", 10, "float"),
        ("model.22.scores.sigmoid", 10, "float"),
    ]
    assert decisions["model.0.conv"].rule.why == "the stem"


def test_a_weight_spec_is_for_what_has_a_weight():
    decisions = read('{site: "model.[02].**", weight: w8, activation: a8}').assign(SITES)
    assert decisions[CONV.path].qconfig.weight is not None
    assert decisions[ADD.path].qconfig.weight is None


def test_all_selectors_of_a_rule_must_hold():
    decisions = read("{role: detect, op: QATConv2d, weight: w8, activation: a8}").assign(SITES)
    assert [path for path, decision in decisions.items() if not decision.qconfig.is_float] == [LOGITS.path]
    assert decisions[LOGITS.path].rule.selector == "role: detect, op: QATConv2d"


PATHS = st.lists(st.sampled_from(["a", "b", "c.a", "c.b", "d"]), min_size=1, unique=True)


@given(PATHS, st.lists(st.sampled_from(["a", "c.*", "*", "?", "**"]), max_size=4))
def test_assign_agrees_with_reading_from_the_top(paths, globs):
    globs = [*globs, "**"]
    rules = [f'{{site: "{glob}", activation: a8}}' for glob in globs]
    policy, sites = read(*rules, rest=""), [Site(path=path, op="add") for path in paths]
    first = {path: next(i for i, glob in enumerate(globs) if covers(glob, path)) for path in paths}
    if set(first.values()) == set(range(len(globs))):
        assert {path: d.rule.line - 7 for path, d in policy.assign(sites).items()} == first
    else:
        words = refusal(policy.assign, sites)
        assert "matches no site" in words or "decides nothing" in words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{sight: x, float: true}", "p.yaml:7: unknown key 'sight' in rule; expected one of: site, role, op, "),
        ("{site: x, wieght: w8}", "p.yaml:7: unknown key 'wieght' in rule; expected one of: site, role, op, weight, activation, preactivation, input, float, when, why; did you mean 'weight'?"),
        ("{site: x, weight: w9}", "p.yaml:7: unknown spec 'w9'; expected one of: a8, w8; did you mean 'w8'?"),
        ("{float: true}", "p.yaml:7: a rule selects nothing; expected site:, role: or op:"),
        ("{site: x, activation: a8, input: a8}", "p.yaml:7: a rule gives an input spec without a weight spec; expected both"),
        ("{site: x, weight: w8, activation: a8, input: t8}", "p.yaml:7: an input spec looks through silu, which no layer applies to its input; expected a spec without through"),
        ("{site: x}", "p.yaml:7: a rule says nothing to do; expected float: true, or weight: and activation:"),
        ("{site: x, float: false}", "p.yaml:7: a rule says nothing to do; expected float: true, or weight: and activation:"),
        ("{site: x, float: true, weight: w8}", "p.yaml:7: a rule says float and weight at once; expected one of them"),
        ("{site: x, site: y, float: true}", "p.yaml:7: is not YAML (the key 'site' stands twice); expected a policy file"),
        ('{site: "[b-a]", float: true}', "p.yaml:7: the glob '[b-a]' is not legal (bad character range b-a"),
        ("{site: [x, y], float: true}", "p.yaml:7: site is a list; expected one word or text"),
        ("{role: , float: true}", "p.yaml:7: role is empty; expected one word or text"),
        ("{site: x, float: 'true'}", "p.yaml:7: float is 'true'; expected true or false"),
        ("site", "p.yaml:7: rule is text; expected a mapping of keys to values"),
        ("{site: x", "p.yaml:8: is not YAML ("),
    ],
)  # fmt: skip
def test_a_bad_rule(rule, words):
    head = (
        HEAD.replace("rules:", "  t8: {observer: histogram, method: mse, through: silu}\nrules:")
        if "t8" in rule
        else HEAD
    )
    assert words.replace(":7:", f":{head.count(chr(10)) + 1}:", 1) in refusal(read, rule, head=head)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (HEAD.replace("version: 1", "version: 2"), "p.yaml:1: version is 2; expected version: 1"),
        (HEAD.replace("version: 1\n", ""), "p.yaml:1: version is None; expected version: 1"),
        (HEAD.replace("ort-cpu", "ort-cpo"), "p.yaml:2: unknown target 'ort-cpo'; expected one of: ort-cpu"),
        (HEAD.replace("target:", "traget:"), "p.yaml:2: unknown key 'traget' in policy; expected one of: version, "),
        (HEAD.replace("bits: 8, signed: false", "bit: 8, signed: false"), "p.yaml:4: unknown key 'bit' in spec a8; expected one of: bits, "),
        (HEAD.replace("bits: 8, signed: false", "bits: 99, signed: false"), "p.yaml:4: spec a8: bits: 99 is not legal, expected an integer from 2 to 16"),
        (HEAD.replace("axis: 0", "observer: histogran"), "p.yaml:5: spec w8: observer: 'histogran' is not legal, expected one of "),
        (HEAD.replace("axis: 0", "observer: 7"), "p.yaml:5: spec w8: observer: 7 is not legal"),
        (HEAD.replace("  a8:", "  w8:"), "p.yaml:5: is not YAML (the key 'w8' stands twice); expected a policy file"),
        (HEAD.replace("rules:", "rules: {site: x, float: true}\nqat: {}\ndoc:"), "p.yaml:6: rules is a mapping; expected a list: each rule after a dash"),
        (HEAD.replace("rules:", "  x: 7\nrules:"), "p.yaml:6: spec x is a number; expected a mapping of keys to values"),
        (HEAD.replace("rules:", "rules: []\nqat: {}\ndoc:"), "p.yaml:6: has no rules; expected a list under rules:"),
    ],
)  # fmt: skip
def test_a_bad_head(head, words):
    assert words in refusal(lambda: read(head=head, rest="" if "doc:" in head else REST))


def test_the_nearest_name_is_suggested():
    assert "did you mean 'ort-cpu'?" in refusal(lambda: read(head=HEAD.replace("ort-cpu", "ort-cpo")))
    assert "did you mean 'target'?" in refusal(lambda: read(head=HEAD.replace("target:", "traget:")))
    assert "did you mean 'bits'?" in refusal(lambda: read(head=HEAD.replace("bits: 8, signed: f", "bit: 8, signed: f")))


@pytest.mark.parametrize("content", ["", "- 1\n", "words", "a: b: c", "\t", "a: !!python/object:os.system x"])
def test_what_is_no_policy_at_all(content):
    assert refusal(Policy.parse, content, "p.yaml").startswith("p.yaml")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (['{site: "model.0.cnov", float: true}'], "p.yaml:7: the rule for site: model.0.cnov matches no site; did you mean 'model.0.conv'?"),
        (["{role: detekt, float: true}"], "p.yaml:7: the rule for role: detekt matches no site; did you mean 'detect'?"),
        (["{op: QATConv, float: true}"], "p.yaml:7: the rule for op: QATConv matches no site; did you mean 'QATConv2d'?"),
        (['{site: "model.0.**", float: true}', "{role: first_conv, float: true}"], "p.yaml:8: the rule for role: first_conv decides nothing: line 7 decides model.0.conv and all it matches first; move it up or delete it"),
        (['{site: "**", float: true}'], 'p.yaml:8: the rule for site: ** decides nothing: line 7 decides model.0.conv'),
    ],
)  # fmt: skip
def test_a_rule_that_decides_nothing(rules, words):
    assert words in refusal(read(*rules).assign, SITES)


def test_a_rule_may_be_for_what_only_some_models_have():
    decisions = read(
        "{role: mask_out, when: present, float: true}",
        "{role: first_conv, weight: w8, activation: a8}",
        '{site: "model.0.*", when: present, float: true}',
    ).assign(SITES)
    assert decisions[CONV.path].rule.line == 8
    assert "matches no site" in refusal(read("{role: mask_out, float: true}").assign, SITES)
    assert refusal(read, "{role: mask_out, when: maybe, float: true}") == (
        "p.yaml:7: when is 'maybe'; expected present, or no such key"
    )


PARENT = """version: 1
doc: all
target: openvino
specs:
  a8: {}
  w: {bits: 8}
corrections: [equalize]
rules:
  - {role: detect_out, float: true}
  - {site: "**", weight: w, activation: a8}
qat: {lsq: true, epochs: 3}
"""
CHILD = """version: 1
extends: parent.yaml
specs:
  w: {bits: 4}
rules:
  - {role: detect_out, weight: w, activation: a8}
  - {role: decode, float: true}
  - {role: dfl, float: true}
qat: {lsq: false}
"""


@pytest.fixture
def family(tmp_path):
    """A folder with parent.yaml and child.yaml."""
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(CHILD)
    return tmp_path


def test_a_policy_extends_another(family):
    child = Policy.load(family / "child.yaml")
    decisions = child.assign(SITES)
    assert [(site, one.rule.where, str(one.qconfig)) for site, one in decisions.items()] == [
        ("model.0.conv", "parent.yaml:10", "w=i4<-7:7>:axis0 a=u8<0:255>"),
        ("model.2.m.0.add", "parent.yaml:10", "a=u8<0:255>"),
        ("model.22.cv2.0.2", "child.yaml:6", "w=i4<-7:7>:axis0 a=u8<0:255>"),
        ("model.22.dfl.softmax", "child.yaml:8", "float"),
        ("model.22.scores.sigmoid", "child.yaml:7", "float"),
    ]
    assert (child.doc, child.target.name, child.options) == ("all", "openvino", {"qat": {"lsq": False}})
    assert [one.where for one in child.corrections] == ["parent.yaml:7"]


def test_what_is_recorded_of_a_policy_needs_no_other(family):
    child = Policy.load(family / "child.yaml")
    again = Policy.parse(child.text, "child.yaml")
    assert "extends" not in child.text
    decided = [{site: one.qconfig for site, one in policy.assign(SITES).items()} for policy in (child, again)]
    assert decided[0] == decided[1]
    assert (again.options, again.target, again.doc) == (child.options, child.target, child.doc)
    assert [one.name for one in again.corrections] == ["equalize"]


def test_errors_name_the_file_that_they_stand_in(family):
    (family / "parent.yaml").write_text(PARENT.replace("bits: 8", "bits: 99").replace("a8: {}", "a8: {bits: 98}"))
    assert refusal(Policy.load, family / "child.yaml").startswith("parent.yaml:5: spec a8: bits: 98 is not legal")
    (family / "parent.yaml").write_text(PARENT.split("rules:")[0] + "rules: {role: detect_out, float: true}\n")
    assert refusal(Policy.load, family / "child.yaml").startswith("parent.yaml:8: rules is a mapping; expected a list")
    (family / "parent.yaml").write_text(PARENT.replace("detect_out", "nowhere"))
    Policy.load(family / "child.yaml").assign(SITES)  # it is the child's to say what must be there
    (family / "child.yaml").write_text(CHILD.replace("qat:", "  - {role: dlf, float: true}\nqat:"))
    assert refusal(Policy.load(family / "child.yaml").assign, SITES).startswith("child.yaml:9: the rule for role: dlf")


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        (
            "none.yaml",
            "child.yaml:2: extends 'none.yaml', but there is no such file; expected a path or one of: critical, float, ",
        ),
        ("child.yaml", "child.yaml:2: extends itself: child.yaml -> child.yaml; expected a policy above this one"),
        (
            "loop.yaml",
            "loop.yaml:2: extends itself: child.yaml -> loop.yaml -> child.yaml; expected a policy above this",
        ),
        ("words.yaml", "words.yaml: policy is text; expected a mapping of keys to values"),
    ],
)
def test_what_cannot_be_extended(family, extends, words):
    (family / "loop.yaml").write_text(CHILD.replace("parent.yaml", "child.yaml"))
    (family / "words.yaml").write_text("words")
    (family / "child.yaml").write_text(CHILD.replace("parent.yaml", extends))
    assert refusal(Policy.load, family / "child.yaml").startswith(words)


def test_rules_on_one_line_are_rules_of_their_own():
    text = HEAD.replace("rules:", "rules: [{site: '**', float: true}, {site: none, float: true}]")
    words = refusal(Policy.parse(text, "p.yaml").assign, SITES)
    assert words.startswith("p.yaml:6: the rule for site: none matches no site")


def test_an_undecided_site():
    words = refusal(read("{op: QATConv2d, float: true}", rest="").assign, SITES)
    assert words == 'p.yaml: model.2.m.0.add: no rule decides this site; end the rules with {site: "**", ...}'


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{role: decode, activation: a8}", "p.yaml:7: model.22.scores.sigmoid cannot be quantized: boxes in pixels and scores in 0..1 would share one scale, which rounds every score to 0; add {role: decode, float: true} above"),
        ("{role: dfl, activation: a8}", "p.yaml:7: model.22.dfl.softmax cannot be quantized: ort-cpu runs softmax in float only; add {op: softmax, float: true} above"),
        ("{role: first_conv, weight: w8}", "p.yaml:7: model.0.conv has a weight spec but no activation spec; expected both, or float: true"),
        ("{role: first_conv, weight: w8, activation: a8, input: w8}", "p.yaml:7: model.0.conv: ort-cpu cannot run the input spec i8<-127:127>:axis0 symmetric (on x86 it fuses integer convolutions of uint8 only); expected u8<0:255> asymmetric; leave signed, axis out of the spec and it is ort-cpu's own"),
        ("{role: first_conv, weight: a8, activation: a8}", "p.yaml:7: model.0.conv: ort-cpu cannot run the weight spec u8<1:255>:axis0 asymmetric (a weight's zero point costs a sum over the input in every kernel); expected i8<-127:127>:axis0 symmetric; leave signed, symmetric out of the spec and it is ort-cpu's own"),
        ("{role: first_conv, weight: w8, activation: w8}", "p.yaml:7: model.0.conv: ort-cpu cannot run the activation spec i8<-127:127>:axis0 symmetric (on x86 it fuses integer convolutions of uint8 only); expected u8<0:255> asymmetric; leave signed, axis out of the spec and it is ort-cpu's own"),
    ],
)  # fmt: skip
def test_what_the_target_cannot_run(rule, words):
    assert refusal(read(rule).assign, SITES) == words


def test_a_torch_observer_may_be_named_and_a_wrong_one_not():
    spec = "observer: torch.ao.quantization.MovingAverageMinMaxObserver"
    assert read(head=HEAD.replace("symmetric: false", f"symmetric: false, {spec}")).rules


def test_loading_by_path_and_by_name(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + REST)
    assert Policy.load(path).name == "mine.yaml"
    monkeypatch.chdir(tmp_path)
    assert Policy.load("w8a8").name == Policy.load("policies/w8a8.yaml").name == "w8a8.yaml"
    assert Policy.load("mine.yaml").text == path.read_text()


def test_a_policy_that_is_not_there():
    names = ", ".join(shipped("policies"))
    words = refusal(Policy.load, "w8a9")
    assert words == f"w8a9: no such file; expected a path or one of: {names}; did you mean 'w8a8'?"


def test_a_policy_that_is_no_text(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read (" in refusal(Policy.load, path)


@pytest.mark.parametrize("old", sorted(OLD_NAMES))
@pytest.mark.parametrize("spelled", ["{}", "{}.yaml", "policies/{}.yaml"])
def test_old_names_are_read_and_not_listed(old, spelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = old.removeprefix("yolov8_")
    read, meant = Policy.load(spelled.format(old)), Policy.load(new)
    assert [replace(rule, optional=True) for rule in read.rules] == [
        replace(rule, optional=True) for rule in meant.rules
    ]
    assert (read.target, read.corrections, read.options) == (meant.target, meant.corrections, meant.options)
    assert new in shipped("policies")
    assert old not in shipped("policies")


@pytest.mark.parametrize("name", shipped("policies"))
def test_shipped_policies_load(name):
    policy = Policy.load(name)
    assert policy.doc
    own = find("policies", name).read_text()
    assert (policy.text == own) == ("extends:" not in own)
