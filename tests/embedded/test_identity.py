"""Identities of processes."""

import os
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from app.embedded.identity import identity_of, servers_in
from app.embedded.waiting import wait_until
from tests.embedded.apps import innocent


def test_an_identity_matches_its_process_and_no_later_one_with_the_same_pid() -> None:
    me = identity_of(os.getpid())
    assert me is not None
    assert me.lives()
    assert not replace(me, started=me.started - 1).lives()


def test_processes_differ_in_their_start_time_too() -> None:
    me = identity_of(os.getpid())
    with innocent() as process:
        other = identity_of(process.pid)
    assert me is not None
    assert other is not None
    assert me.started < other.started


def test_a_zombie_does_not_count_as_alive() -> None:
    with innocent() as process:
        identity = identity_of(process.pid)
        assert identity is not None
        assert identity.lives()
        process.kill()
        assert wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 10)
        assert not identity.lives()
    assert identity_of(process.pid) is None


def test_a_server_is_recognized_by_its_program_and_its_directory() -> None:
    with innocent() as process:
        here = Path.cwd()
        assert process.pid in {found.pid for found in servers_in(here, frozenset({"cat"}))}
        assert process.pid not in {found.pid for found in servers_in(here, frozenset({"postgres"}))}
        assert servers_in(here / "elsewhere", frozenset({"cat"})) == []
