"""A client in its own process, which measures how long it waits for each answer while other clients are active.

The program takes a port and the server's pid, and runs until its input ends. For each request, it prints two numbers in
milliseconds: the wall-clock time, and the server's processor time, which other load on the machine does not change.
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
    """Sends requests until the input ends, and prints the waits."""
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
