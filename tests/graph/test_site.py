"""Sites and globs."""

from __future__ import annotations

import fnmatch

import pytest
import torch
from graph.asking import traced
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from fxqat.graph.site import Sites, covers, first_free, nearest, set_site, site_of

SITES = st.lists(st.text("ab0_", min_size=1, max_size=3), min_size=1, max_size=4).map(".".join)
GLOBS = st.lists(
    st.sampled_from(["a", "b", "0", "_", ".", "*", "**", "?", "[ab]", "[0-9]", "[!a]", "[^b]", "+", "("]), max_size=7
).map("".join)


def plain(glob: str, site: str) -> bool:
    """The same by recursion over characters, without a regular expression."""
    if not glob:
        return not site
    if glob.startswith("**"):
        return any(plain(glob[2:], site[i:]) for i in range(len(site) + 1))
    if glob[0] == "*":
        part = site.split(".")[0]
        return any(plain(glob[1:], site[i:]) for i in range(len(part) + 1))
    if glob[0] == "[" and "]" in glob:
        end = glob.index("]")
        return (
            bool(site)
            and site[0] != "."
            and fnmatch.fnmatchcase(site[0], glob[: end + 1])
            and plain(glob[end + 1 :], site[1:])
        )
    if glob[0] == "?":
        return bool(site) and site[0] != "." and plain(glob[1:], site[1:])
    return site[:1] == glob[0] and plain(glob[1:], site[1:])


@given(GLOBS, SITES)
@example("**", "a.b.0")
@example("a*", "a.b")  # a star stays within its part
@example("a.**", "a")  # a dot is a dot
@example("?", ".")
@example("***", "a.b")
def test_globs_cover_what_a_plain_matcher_says(glob, site):
    assert covers(glob, site) == plain(glob, site)


@given(SITES)
def test_a_site_covers_itself_and_nothing_longer(site):
    assert covers(site, site)
    assert covers("**", site)
    assert not covers(site, f"{site}.x")
    assert not covers(site, f"x{site}")


@pytest.mark.parametrize(
    ("glob", "covered", "left"),
    [
        (
            "model.22.cv[23].*.2",
            ["model.22.cv2.0.2", "model.22.cv3.1.2"],
            ["model.22.cv4.0.2", "model.22.cv2.0.2.conv"],
        ),
        ("model.?.conv", ["model.0.conv"], ["model.10.conv", "model.0xconv"]),
        ("**.conv", ["model.0.conv", "model.2.m.0.cv1.conv"], ["conv", "model.0.conv.silu"]),
        ("model.0.[!b]*", ["model.0.conv"], ["model.0.bn"]),
    ],
)
def test_globs_of_the_policies(glob, covered, left):
    assert [covers(glob, site) for site in covered] == [True] * len(covered)
    assert [covers(glob, site) for site in left] == [False] * len(left)


@given(st.lists(SITES, max_size=6), SITES)
def test_a_free_site_is_free(taken, wanted):
    free = first_free(wanted, taken)
    assert free not in taken
    assert free == wanted or wanted in taken


def test_sites_are_unique_and_say_where_and_what():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.SiLU()

        def forward(self, x):
            a, b = torch.split(self.act(x), [1, 1], 1)
            return torch.relu(self.act(a)) + torch.relu(b)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Twice()

        def forward(self, x):
            return self.inner(x).mean()

    class Counted(torch.fx.Proxy):
        def __iter__(self):
            return iter([self[0], self[1]])

    gm = traced_with(Outer(), Counted)
    assert [site_of(node) for node in gm.graph.nodes] == [
        "x",
        "inner.act",
        "inner.split",
        "inner.split.0",
        "inner.split.1",
        "inner.act_1",
        "inner.relu",
        "inner.relu_1",
        "inner.add",
        "mean",
        "output",
    ]


def traced_with(root, proxy):
    class Tracer(torch.fx.Tracer):
        def proxy(self, node):
            return proxy(node, self)

    from fxqat.graph.site import assign_sites

    graph = Tracer().trace(root)
    assign_sites(graph)
    return torch.fx.GraphModule(root, graph)


def test_a_taken_site_gets_a_suffix():
    gm = traced(nn.Sequential(nn.ReLU(), nn.ReLU()))
    second = list(gm.graph.nodes)[2]
    assert site_of(set_site(second, "0")) == "0_1"
    assert site_of(set_site(second, "free")) == "free"


def test_an_index_of_sites_follows_what_is_placed_and_erased():
    gm = traced(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()))
    sites, (_, first, second, third, output) = Sites(gm.graph), gm.graph.nodes
    assert site_of(sites.set_site(first, "0")) == "0", "its own"
    assert site_of(sites.set_site(second, "0")) == "0_1"
    assert "1" not in sites, "second has left it"
    output.replace_input_with(third, second)
    gm.graph.erase_node(third)
    assert site_of(sites.set_site(second, "2")) == "2"
    with gm.graph.inserting_after(second):
        fresh = gm.graph.call_function(torch.relu, (second,))
    assert site_of(sites.set_site(fresh, "0_1")) == "0_1"
    assert all(site_of(node) in sites for node in gm.graph.nodes)


def test_nearest_is_a_question_or_nothing():
    assert nearest("detekt", ["detect", "dfl"]) == "did you mean 'detect'?"
    assert nearest("xyz", ["detect", "dfl"]) == ""
