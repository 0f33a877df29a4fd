"""The memory limit: how it is written, divided, and what happens near it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import memory
from engine.config import make
from engine.errors import ConfigError

MB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("512MiB", 512 << 20),
        ("1500MB", 1_500_000_000),
        ("1.5 gib", 3 << 29),
        ("300000000", 300_000_000),
        (300_000_000, 300_000_000),
    ],
)
def test_sizes_are_written_as_people_do(text, size):
    assert make({"id": "x", "memory_limit": text}, {}).memory_limit == size
    assert make({"id": "x"}, {"HEADRACE_MEMORY_LIMIT": str(text)}).memory_limit == size


@pytest.mark.parametrize("text", ["much", "2 gigs", "", "GiB", "2GiB2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="write it as 2GiB"):
        make({"id": "x", "memory_limit": text}, {})


def test_what_the_limit_divides_is_not_given_beside_it():
    with pytest.raises(ConfigError, match="leave out cache_bytes, memory_bytes"):
        make({"id": "x", "memory_limit": "1GiB", "memory_bytes": 1 << 30, "cache_bytes": MB}, {})


@given(st.integers(160 * MB, 1 << 40), st.integers(0, 110 * MB))
def test_the_parts_leave_something_to_spare(limit, base):
    budget = memory.divide(limit, base)
    assert all(part > 0 for part in budget)
    assert base + sum(budget) <= limit - (limit - base) // 4


def test_too_little_is_an_error_that_says_how_much_it_takes():
    with pytest.raises(ConfigError, match="give it 149 MiB at least"):
        memory.divide(140 * MB, 100 * MB)
    assert memory.divide(149 * MB, 100 * MB).decoded > 16 * MB


def test_a_limit_fits_the_settings_and_none_leaves_them():
    plain = make({"id": "x"}, {})
    if not memory.group_limit():
        assert memory.fitted(plain) == plain
    fitted = memory.fitted(make({"id": "x", "memory_limit": "1GiB"}, {}))
    parts = (fitted.memory_bytes, fitted.fetch_memory, fitted.cache_bytes)
    assert parts[0] > parts[1] == parts[2] > 0
    assert sum(parts) < (1 << 30) - memory.used()


def test_what_is_in_use_is_what_the_system_says():
    before = memory.used()
    held = bytearray(64 * MB)
    held[::4096] = b"x" * len(held[::4096])
    assert 50 * MB < memory.used() - before < 100 * MB


@pytest.mark.parametrize(
    ("groups", "bounds", "limit"),
    [
        ("0::/shop/one", {"shop/memory.max": "1000000000", "shop/one/memory.max": "max"}, 800),
        ("0::/", {"memory.max": "500000000"}, 400),
        ("4:memory:/shop\n0::/", {"memory/shop/memory.limit_in_bytes": "1000000000"}, 800),
        ("4:memory:/shop", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 0),
        ("0::/", {"memory.max": "64000000000"}, 0),  # plenty
        ("0::/shop", {}, 0),
    ],
)
def test_a_control_group_is_a_limit_where_it_is_small(tmp_path, groups, bounds, limit):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for name, bound in bounds.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bound + "\n")
    assert memory.group_limit(root=tmp_path) == limit * 1_000_000
    assert memory.group_limit(4, root=tmp_path) in {limit * 250_000, 0}


@given(st.lists(st.floats(0, 2), max_size=60))
def test_the_factor_stays_in_bounds_and_comes_back(shares):
    factor = 1.0
    for share in shares:
        factor = memory.eased(factor, share)
        assert memory.LEAST <= factor <= 1.0
    for _ in range(40):
        factor = memory.eased(factor, 0.5)
    assert factor == 1.0


def test_nothing_is_given_out_near_the_limit():
    pressure = memory.Pressure(memory.used() // 2)  # it may give much of it back meanwhile
    for now_ms in range(0, 1_000, 60):
        pressure.look(now_ms)
    assert pressure.factor == memory.LEAST
    assert pressure.full
    free = memory.Pressure(0)
    free.look(0)
    assert (free.factor, free.full, free.used) == (1.0, False, 0)
