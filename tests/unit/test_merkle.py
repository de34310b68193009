"""Merkle trees: the published vectors of RFC 6962 and RFC 9162, and proofs that hold for every tree and for nothing else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrity import merkle

# Source: the test vectors of Certificate Transparency's reference implementation, for RFC 6962.
ENTRIES = [
    bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert merkle.root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle.root([]) == hashlib.sha256(b"").digest()


def test_published_inclusion_path() -> None:
    assert [found.hex() for found in merkle.inclusion_path(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_published_consistency_path() -> None:
    assert [found.hex() for found in merkle.consistency_path(LEAVES, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def tree(size: int) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]


@given(st.integers(1, 70), st.data())
def test_every_entry_is_proved_and_no_other_place_leaf_or_size(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(leaves, index)
    assert merkle.root_from_inclusion(leaves[index], index, size, path) == merkle.root(leaves)
    other = data.draw(st.integers(0, size + 3))
    if other != index:
        assert merkle.root_from_inclusion(leaves[index], other, size, path) != merkle.root(leaves)
    assert merkle.root_from_inclusion(merkle.leaf_hash(b"forged"), index, size, path) != merkle.root(leaves)
    assert merkle.root_from_inclusion(leaves[index], index, size, [*path, bytes(32)]) != merkle.root(leaves)
    if path:
        assert merkle.root_from_inclusion(leaves[index], index, size, path[:-1]) != merkle.root(leaves)


@given(st.integers(1, 70), st.data())
def test_every_beginning_is_proved_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    first = data.draw(st.integers(1, size))
    path = merkle.consistency_path(leaves, first)
    old, new = merkle.root(leaves[:first]), merkle.root(leaves)
    assert merkle.is_consistent(first, size, old, new, path)
    assert not merkle.is_consistent(first, size, merkle.leaf_hash(b"other"), new, path)
    assert not merkle.is_consistent(first, size, old, merkle.leaf_hash(b"other"), path)
    if first < size:
        # A tree whose beginning was rewritten has no proof, whichever is tried.
        rewritten = [merkle.leaf_hash(b"forged"), *leaves[1:]]
        assert not merkle.is_consistent(first, size, old, merkle.root(rewritten), merkle.consistency_path(rewritten, first))
        assert not merkle.is_consistent(first, size, old, new, path[:-1])
        assert not merkle.is_consistent(first, size, old, new, [*path, bytes(32)])
