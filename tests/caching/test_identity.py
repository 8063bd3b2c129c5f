"""Which Redis a process talks to."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.caching import Breaker, Identity, Trust


def test_another_run_of_redis_ends_the_trust_before_a_command_is_sent(
    trust: Trust, breaker: Breaker, identity: Identity
) -> None:
    identity.meet("first")
    identity.meet("first")
    assert trust.held
    with pytest.raises(RedisConnectionError, match="Redis has restarted or was replaced"):
        identity.meet("second")
    assert trust.lost
    assert breaker.reachable, "It may be told, before it is believed."
    identity.meet("second")
