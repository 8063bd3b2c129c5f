"""A client beside others, in a process of its own: how long does it wait for each answer?

It is run as a program, with a port and the server's pid, until its input ends, and prints the waits in milliseconds: of
the clock, and of the server's work meanwhile, which is the same on a machine that others use, too.
"""

import json
import select
import socket
import sys
import time

import psutil  # type: ignore[import-untyped]

ASKS = b"GET /products/KETTLE-1 HTTP/1.1\r\nHost: fourways\r\n\r\n"
PAUSE = 0.01


def main() -> None:
    """Asks again and again."""
    port, pid = map(int, sys.argv[1:])
    line, server = socket.create_connection(("127.0.0.1", port)), psutil.Process(pid)
    waits = []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        began, worked = time.perf_counter(), sum(server.cpu_times()[:2])
        line.sendall(ASKS)
        answer = line.recv(65_536)
        waits.append((time.perf_counter() - began, sum(server.cpu_times()[:2]) - worked))
        assert answer.startswith(b"HTTP/1.1 200"), answer
    print(json.dumps([[1000 * wait, 1000 * work] for wait, work in waits]))


if __name__ == "__main__":
    main()
