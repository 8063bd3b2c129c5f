"""What nodes answer to CLUSTER SLOTS becomes a map."""

import pytest

from app.caching.cluster import Address
from app.caching.cluster.slot_map import SlotMap, slot_of

ASKED = Address("asked", 7000)


def test_the_three_keys_of_a_value_share_a_slot() -> None:
    assert len({slot_of(f"orders:{{42}}{end}") for end in ("", ":lease", ":floor")}) == 1
    assert slot_of("é") == slot_of("é".encode())


def test_the_first_node_of_a_range_owns_it() -> None:
    """The others are its replicas. Newer versions answer more about each node."""
    slots = SlotMap.read(
        [
            [0, 1, [b"10.0.0.1", 7001, b"id"], [b"10.0.0.2", 7002, b"id"]],
            [3, 3, [b"10.0.0.3", 7003, b"id", [b"hostname", b"three"]]],
        ],
        ASKED,
    )
    one, three = Address("10.0.0.1", 7001), Address("10.0.0.3", 7003)
    assert [slots.owner(slot) for slot in range(5)] == [one, one, None, three, None]
    assert slots.owners == {one, three}


@pytest.mark.parametrize("host", [None, b"", b"?"], ids=repr)
def test_a_node_without_a_name_is_at_the_host_that_was_asked(host: bytes | None) -> None:
    assert SlotMap.read([[0, 0, [host, 7001, b"id"]]], ASKED).owner(0) == Address("asked", 7001)
