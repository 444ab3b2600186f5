"""Slurm's host lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.contexts.hostlist import MAX_NODES, MAX_TEXT, expand
from disbatch.model.errors import UsageError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", "node1"),
        ("node[1-2]", "node1 node2"),
        ("node[1,3]", "node1 node3"),
        ("node[1-3,07-09],login", "node1 node2 node3 node07 node08 node09 login"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[9-11]", "n9 n10 n11"),
        ("n[099-100]", "n099 n100"),
        ("rack[1-2]n[01-02]", "rack1n01 rack1n02 rack2n01 rack2n02"),
        ("a[1]-ib", "a1-ib"),
        ("a[1-2]-ib,b[3].x.org", "a1-ib a2-ib b3.x.org"),
        ("b,a,b", "b a b"),
        ("nid[000012-000013,000100]", "nid000012 nid000013 nid000100"),
        (" x[1-2]\n", "x1 x2"),
        ("[1-3]", "1 2 3"),
        ("n[0-0]", "n0"),
        ("worker_7", "worker_7"),
    ],
)
def test_lists(text: str, names: str) -> None:
    assert expand(text) == names.split()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a host's name is missing"),
        (",", "a host's name is missing"),
        ("a,,b", "a host's name is missing"),
        ("a[1-2", "brackets"),
        ("a]1[", "brackets"),
        ("a[1[2]]", "brackets"),
        ("a[]", "e.g. [1-3,7]"),
        ("a[1,]", "e.g. [1-3,7]"),
        ("a[2-1]", "e.g. [1-3,7]"),
        ("a[x]", "e.g. [1-3,7]"),
        ("a[1-2-3]", "e.g. [1-3,7]"),
        ("a[-1]", "e.g. [1-3,7]"),
        ("a[1-" + "9" * 5000 + "]", "e.g. [1-3,7]"),
        ("a[٣]", "e.g. [1-3,7]"),
        ("a[0-10000]", "more than 10000 hosts"),
        ("a[1-999999999999999999]", "more than 10000 hosts"),
        ("a[0-99]b[0-99]c[0-1]", "more than 10000 hosts"),
        ("a[0-99]" * 1000, "more than 10000 hosts"),
        ("a[0-9999]" * 100_000, "more than 10000 hosts"),
        ("a[0-9999]," * 100_000, "more than 10000 hosts"),
        ("x," * 10_000 + "x", "more than 10000 hosts"),
        ("-oProxyCommand=x", "not a host's name"),
        ("(null)", "not a host's name"),
        ("a b", "not a host's name"),
        ("a\x1b[1]", "not a host's name"),
        ("$(x)", "not a host's name"),
        ("h" * 256, "not a host's name"),
        ("x" * (MAX_TEXT + 1), "longer than"),
    ],
)
def test_nonsense_gives_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(text, "SLURM_JOB_NODELIST")
    assert says in str(caught.value)
    assert str(caught.value).startswith("SLURM_JOB_NODELIST: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@given(st.text("ab19[],-0 é", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_list_or_a_usage_error(text: str) -> None:
    try:
        names = expand(text)
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert 0 < len(names) <= MAX_NODES


RANGES = st.tuples(st.integers(1, 4), st.integers(0, 120), st.integers(0, 12))
"""Width, first number, how many more."""
ITEMS = st.tuples(
    st.sampled_from(["n", "rack-1.", "x_"]), st.lists(RANGES, max_size=3), st.sampled_from(["", "-ib"])
)


@given(st.lists(ITEMS, min_size=1, max_size=5))
def test_what_is_compressed_comes_back(items: list[tuple[str, list[tuple[int, int, int]], str]]) -> None:
    texts: list[str] = []
    names: list[str] = []
    for before, ranges, after in items:
        inside = [f"{first:0{width}}-{first + more:0{width}}" for width, first, more in ranges]
        texts.append(f"{before}[{','.join(inside)}]{after}" if inside else f"{before}{after}")
        names += [
            f"{before}{number:0{max(width, len(str(first)))}}{after}"
            for width, first, more in ranges
            for number in range(first, first + more + 1)
        ]
        names += [] if inside else [f"{before}{after}"]
    assert expand(",".join(texts)) == names
