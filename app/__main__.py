"""`fourways`, or `python -m app`: the commands of `cli.py`, and a quiet end while they are still being imported."""

import gc
import signal


def main() -> None:
    """Runs a command."""
    # What is imported stays, and the collector would look through it three hundred times until all of it is there: a
    # seventh of what the start takes.
    gc.set_threshold(50_000, 50, 1_000)
    # The imports take a second or two. Until they are done nothing has begun, and there is nothing to tell of Ctrl-C.
    # Where it is ignored, as in what a shell runs in the background, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from app.cli import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
