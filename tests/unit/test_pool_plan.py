"""Free prefixes: whatever the pool and whatever is taken."""

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from cumulet.neutron import pool_plan

Small = st.builds(lambda at, length: IPv4Network(((at << 4) & (-1 << (32 - length)), length)), st.integers(0, 15),
                  st.integers(25, 28))  # fmt: skip


@given(st.lists(Small, min_size=1, max_size=3), st.lists(Small, max_size=5), st.integers(26, 30))
def test_the_lowest_free_prefix_is_chosen(held: list[IPv4Network], taken: list[IPv4Network], length: int) -> None:
    pool = pool_plan.prefixes([str(one) for one in held])
    free = [
        part
        for prefix in map(IPv4Network, pool)
        if prefix.prefixlen <= length
        for part in prefix.subnets(new_prefix=length)
        if not any(part.overlaps(other) for other in taken)
    ]
    assert pool_plan.choose(pool, map(str, taken), length) == (str(min(free)) if free else None)


def test_ipv6() -> None:
    assert pool_plan.choose(["fd00::/60"], ["fd00::/64", "fd00:0:0:2::/63"], 64) == "fd00:0:0:1::/64"
    assert pool_plan.choose(["fd00::/60"], ["fd00::/61"], 61) == "fd00:0:0:8::/61"
    assert pool_plan.choose(["::/0"], [], 8) == "::/8"
    assert pool_plan.units("fd00::/62") == 4
