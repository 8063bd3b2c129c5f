"""The signals that a lab command handles."""

import signal
import weakref
from collections.abc import Iterator

import pytest
import typer

from app.lab.commands.interruption import Interruption


@pytest.fixture
def hangup() -> Iterator[None]:
    """Restores SIGHUP's handler at the end."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_under_nohup_the_end_of_the_terminal_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Interruption():
        assert signal.getsignal(signal.SIGHUP) not in (signal.SIG_IGN, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_ends_the_command_before_anything_is_started() -> None:
    """Python prints and drops what is raised in the callback of a weak reference:

    a signal comes while an object with a weak reference is freed
    its handler raises KeyboardInterrupt: dropped
                                                    the stores are started, and nobody knows of the signal
    """

    class Forgotten:
        pass

    held = [Forgotten()]
    reference = weakref.ref(held[0], lambda gone: signal.raise_signal(signal.SIGTERM))

    def forget_and_begin() -> None:
        with Interruption() as interruption:
            held.clear()
            assert reference() is None
            interruption.defer()

    with pytest.raises(typer.Exit):
        forget_and_begin()
