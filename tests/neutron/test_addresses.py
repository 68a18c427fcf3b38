"""The lowest free address, whatever the pools and whatever is taken."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.neutron.conftest import Cloud

Ranges = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 6)), min_size=1, max_size=3)


def ranges_from(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order that do not overlap."""
    found, at = [], 0
    for gap, length in pairs:
        start = at + gap
        found.append((start, start + length))
        at = start + length + 1
    return found


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(Ranges, st.sets(st.integers(1, 90), max_size=12), st.integers(1, 3))
def test_the_lowest_free_addresses_are_chosen(pairs: list[tuple[int, int]], taken: set[int], count: int) -> None:
    cloud, ranges = Cloud(), ranges_from(pairs)
    network = cloud.create("alice", "network")["id"]
    pools = [{"start": f"10.0.0.{start}", "end": f"10.0.0.{end}"} for start, end in ranges]
    wish = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "gateway_ip": None, "enable_dhcp": False}
    subnet = cloud.create("alice", "subnet", allocation_pools=pools, **wish)["id"]
    for number in sorted(taken):
        cloud.create("alice", "port", network_id=network, fixed_ips=[{"ip_address": f"10.0.0.{number}"}])
    free = [slot for start, end in ranges for slot in range(start, end + 1) if slot not in taken]
    body = {"port": {"network_id": network, "fixed_ips": [{"subnet_id": subnet}] * count}}
    status, answer = cloud.call("alice", "POST", "/ports", body)
    if len(free) < count:
        assert (status, answer["NeutronError"]["type"]) == (409, "IpAddressGenerationFailure")
    else:
        assert [one["ip_address"] for one in answer["port"]["fixed_ips"]] == [
            f"10.0.0.{slot}" for slot in free[:count]
        ]


def test_ports_in_bulk_cost_little_more_than_their_addresses(cloud: Cloud) -> None:
    """Statements are counted, which is what grows; a list is one query per table."""
    from sqlalchemy import event

    network, _ = cloud.network()
    counted: list[str] = []
    event.listen(cloud.db.engine, "before_cursor_execute", lambda *about: counted.append(about[2]))

    def statements(method: str, url: str, body: object = None) -> int:
        counted.clear()
        cloud.good("alice", method, url, body)
        return len(counted)

    def made(number: int) -> int:
        return statements("POST", "/ports", {"ports": [{"network_id": network}] * number})

    one, eleven = made(1), made(11)
    assert one < 25
    assert eleven - one <= 10 * 3 + 1
    few = statements("GET", "/ports")
    made(50)
    assert statements("GET", "/ports") == few <= 6


def test_a_mac_that_is_asked_for_twice(cloud: Cloud) -> None:
    network, _ = cloud.network()
    wish = {"network_id": network, "mac_address": "fa:16:3e:00:00:01"}
    body = {"ports": [{"network_id": network}, wish, wish]}
    assert cloud.refused("alice", "POST", "/ports", body) == (409, "MacAddressInUse")
    cloud.good("alice", "POST", "/ports", {"ports": [{"network_id": network}, wish]})
    assert cloud.refused("alice", "POST", "/ports", {"ports": [wish]}) == (409, "MacAddressInUse")
