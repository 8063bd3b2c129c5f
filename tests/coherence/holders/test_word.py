"""What a node says of itself, as Redis writes it."""

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from app.caching.cluster.exchange import exchange
from app.coherence.holders.word import QUESTIONS, Word
from tests.caching.cluster.conftest import redis_cluster as redis_cluster
from tests.caching.cluster.conftest import three_primaries as three_primaries
from tests.faults.redis_cluster import RedisCluster

PRIMARY = b"# Replication\r\nrole:master\r\nmaster_replid:1234567890abcdef1234567890abcdef12345678\r\n"
WORKS = b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"
NODES = (
    b"07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004 slave e7d1ee 0 1426238317239 4 connected\n"
    b"e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001,host myself,master - 0 0 7 connected "
    b"0-5460 5500 [93-<-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f] [77->-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]\n"
)


def test_a_primary_says_what_it_owns_and_what_it_gives_away() -> None:
    word = Word.read([PRIMARY, WORKS, NODES])
    assert (word.id, word.epoch) == ("e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca", 7)
    assert word.replication.startswith("1234567890")
    assert word.counts
    assert list(word.owned()) == [(0, 5460), (5500, 5500)]
    assert word.kept() == {*range(5461), 5500} - {77}


@pytest.mark.parametrize(
    ("told", "state"),
    [(PRIMARY.replace(b"master\r", b"slave\r"), WORKS), (PRIMARY, WORKS.replace(b"ok", b"fail"))],
    ids=["a replica", "cut off"],
)
def test_the_word_of_a_node_that_may_have_been_replaced_does_not_count(told: bytes, state: bytes) -> None:
    assert not Word.read([told, state, NODES]).counts


def test_an_error_is_raised_and_a_redis_without_a_cluster_has_no_word() -> None:
    with pytest.raises(NoPermissionError):
        Word.read([PRIMARY, NoPermissionError("NOPERM"), NODES])
    with pytest.raises(ResponseError, match="no node of a cluster"):
        Word.read([PRIMARY, WORKS, b""])


async def test_real_nodes_say_which_slots_they_own(redis_cluster: RedisCluster) -> None:
    node, other, _third = redis_cluster.nodes
    moving = await redis_cluster.moving(5, other)
    words = [Word.read(await exchange(each.redis, QUESTIONS)) for each in (node, other)]
    assert [word.id for word in words] == [node.id, other.id]
    assert all(word.counts for word in words)
    assert list(words[0].owned()) == [(0, 5460)]
    assert 5 not in words[0].kept()
    assert list(words[1].owned()) == [(5461, 10921)]
    await moving.finish()
    word = Word.read(await exchange(other.redis, QUESTIONS))
    assert list(word.owned()) == [(5, 5), (5461, 10921)]
