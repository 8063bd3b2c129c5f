"""Where a message of Redis ends, however the bytes are split."""

import pytest

from tests.faults.resp import Resp

MESSAGES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$9\r\n*1\r\n+OK\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n$-1\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n+deep\r\n",
    b"%1\r\n+key\r\n*1\r\n_\r\n",
    b">2\r\n+notice\r\n:1\r\n",
    b"+last\r\n",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_come_out_as_they_were_sent(size: int) -> None:
    resp, stream = Resp(), b"".join(MESSAGES)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [message for chunk in chunks for message in resp.feed(chunk)] == MESSAGES


def test_a_message_is_complete_with_its_last_byte() -> None:
    resp = Resp()
    assert list(resp.feed(b"*2\r\n$3\r\nGET\r\n$1\r\nx\r")) == []
    assert list(resp.feed(b"\n")) == [b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"]
