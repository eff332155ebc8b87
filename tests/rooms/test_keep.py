"""Checkpoints of many ranks: damaged, cut, forged and stray files; the older round that all have whole."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from byzopt.checkpoint import load, save
from byzopt.distributed import RankCheckpoints
from byzopt.errors import InvalidInput
from tests.ranks import play_ranks


class Box(nn.Module):
    """One number to keep."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.full((50,), float(value)))


class Code:
    """What a pickle of somebody else's may do."""

    def __reduce__(self):
        return os.system, ("true",)


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-300] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "a flipped bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "without a checksum": lambda path: torch.save({"box": {}}, path),
}
STRAY = ["rank-0-round-1 (copy).pt", "rank-0-round-.pt", "rank-0-round-09.pt", "rank-0-round--5.pt"]
STRAY += [
    "rank-0-round-١.pt",
    "rank-0-round-99999999999999999999.pt",
    "rank-00-round-9.pt",
    "rank-0-round-9.pt~",
]


def restored(folder: Path) -> tuple[int, float, list[str], str]:
    """The round, the number, warnings, and the error if there was one."""
    box = Box()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            t, error = RankCheckpoints(folder).restore(box=box), ""
        except InvalidInput as refused:
            t, error = -1, str(refused)
    return t, float(box.x[7]), [str(one.message) for one in caught], error


def through(rank: int, folder: Path):
    """What two ranks find after each kind of damage."""
    seen = {}
    for what, damage in DAMAGE.items():
        place = folder / what
        keep = RankCheckpoints(place)
        for t in (1, 2, 3):
            keep.save(t, box=Box(10 * rank + t))
        if rank == 1:
            damage(keep._path(3))
        seen[what] = restored(place)
        if rank == 1 and what == "a flipped bit":
            damage(keep._path(2))
        seen[what, "both"] = restored(place)
    return seen


def test_a_damaged_file_of_one_rank_takes_all_ranks_back_a_round_and_they_say_so(tmp_path):
    first, second = play_ranks(2, through, tmp_path)
    for what in DAMAGE:
        for rank, seen in enumerate((first, second)):
            t, value, said, error = seen[what]
            assert (t, value, error) == (2, 10 * rank + 2, "")
            assert len(said) == 1
            assert "damaged: round 3 of rank 1. Round 2 is restored." in said[0]
        assert "rank-1-round-3.pt" in second[what][2][0]
        assert "rank-1-round-3.pt" not in first[what][2][0]
    for seen in (first, second):
        t, _, _, error = seen["a flipped bit", "both"]
        assert t == -1
        assert "rank 0: [2, 3]; rank 1: []; damaged: round 2 of rank 1, round 3 of rank 1" in error


def kept(rank: int, folder: Path, rounds):
    checkpoints = RankCheckpoints(folder)
    for t in rounds:
        checkpoints.save(t, box=Box(10 + t), own=Box(100 * rank + t))


def restored_two(rank: int, folder: Path):
    box, own, said = Box(), Box(), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            t = RankCheckpoints(folder).restore(box=box, own=own)
        except InvalidInput as refused:
            return -1, 0.0, 0.0, str(refused)
    said = [str(one.message) for one in caught]
    return t, float(box.x[0]), float(own.x[0]), " ".join(said)


def test_another_number_of_ranks_goes_on_and_new_ones_take_what_most_have(tmp_path):
    play_ranks(3, kept, tmp_path, (4, 5))
    (tmp_path / "rank-0-round-5.pt").write_bytes((tmp_path / "rank-0-round-4.pt").read_bytes())
    for rank, found in enumerate(play_ranks(2, restored_two, tmp_path)):  # fewer ranks
        assert found[:3] == (5, 15.0 if rank else 14.0, 100.0 * rank + (5 if rank else 4))
    results = play_ranks(5, restored_two, tmp_path)  # more
    for rank, (t, box, own, said) in enumerate(results):
        assert t == 5
        # Rank 0's file is of another content: what two of three have is taken, of their own the lowest's.
        assert box == (14.0 if rank == 0 else 15.0)
        assert own == (4.0 if rank in (0, 3, 4) else 100.0 * rank + 5)
        assert "Ranks [3, 4] have no checkpoint of round 5 and take the states of others." in said
    flip(tmp_path / "rank-1-round-4.pt")
    flip(tmp_path / "rank-1-round-5.pt")
    for t, box, _, said in play_ranks(3, restored_two, tmp_path):
        assert (t, box) in ((5, 14.0), (5, 15.0))
        assert "damaged: round 4 of rank 1, round 5 of rank 1" in said
        assert "Ranks [1] have no checkpoint" in said
    flip(tmp_path / "rank-2-round-4.pt")
    flip(tmp_path / "rank-2-round-5.pt")
    for t, _, _, error in play_ranks(3, restored_two, tmp_path):
        assert t == -1
        assert "rank 1: []; rank 2: []" in error


def alone(rank: int, folder: Path):
    keep, seen = RankCheckpoints(folder), {}
    for name in STRAY:
        (folder / name).write_bytes(b"mine")
    (folder / ".rank-0-round-4.pt.0123abcd").write_bytes(b"half")
    seen["nothing"] = restored(folder)
    for t in (1, 2, 3, 4):
        keep.save(t, box=Box(t))
    seen["names"] = sorted(path.name for path in folder.iterdir())
    seen["last"] = restored(folder)
    save(keep._path(4), {"box": Code()})
    seen["code"] = restored(folder)
    save(keep._path(4), {"other": {}})
    seen["no part"] = restored(folder)
    save(keep._path(4), {"box": {"x": torch.ones(3)}})
    seen["misfit"] = restored(folder)
    flip(keep._path(4))
    seen["back"] = restored(folder)
    keep = RankCheckpoints(folder)
    with pytest.warns(UserWarning, match="damaged"):
        keep.restore(box=Box())
    keep.save(5, box=Box(5))
    seen["both whole"] = keep._rounds()  # not the damaged round 4, which would leave one of the two
    keep.save(4, box=Box(40))  # the job went back, and its later rounds are those of an earlier life
    seen["earlier life"] = restored(folder)
    seen["rounds"] = keep._rounds()
    for call in (lambda: keep.save(0, box=Box()), lambda: RankCheckpoints(folder / STRAY[0])):
        with pytest.raises(InvalidInput):
            call()
    return seen


def test_stray_names_leftovers_and_forged_states(tmp_path):
    (seen,) = play_ranks(1, alone, tmp_path)
    assert seen["nothing"] == (0, 0.0, [], "")
    assert seen["names"] == sorted([*STRAY, "rank-0-round-3.pt", "rank-0-round-4.pt"])
    assert seen["last"] == (4, 4.0, [], "")
    for what, told in {
        "code": "Unpickling",
        "no part": "hold the state of 'box'",
        "misfit": "should fit",
    }.items():
        t, value, _, error = seen[what]
        assert (t, value) == (-1, 0.0)
        assert "rank-0-round-4.pt" in error
        assert told in error
    assert seen["back"][:2] == (3, 3.0)
    assert seen["both whole"] == [3, 5]
    assert seen["earlier life"] == (4, 40.0, [], "")
    assert seen["rounds"] == [3, 4]


def test_an_archive_that_unfolds_to_more_than_its_length_is_not_unfolded(tmp_path):
    import io
    from hashlib import sha256
    from zipfile import ZIP_DEFLATED, ZipFile

    buffer, packed = io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.zeros(1_000_000)}, buffer)
    with ZipFile(buffer) as whole, ZipFile(packed, "w", ZIP_DEFLATED) as small:
        for one in whole.infolist():
            small.writestr(one.filename, whole.read(one))
    body = packed.getvalue()
    path = tmp_path / "c.pt"
    path.write_bytes(b"byzopt checkpoint 1\n" + sha256(body).digest() + body)
    assert len(body) < 100_000
    with pytest.raises(InvalidInput, match=r"c\.pt"):
        load(path)
