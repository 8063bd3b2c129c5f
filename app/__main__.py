"""`fourways`, or `python -m app`: runs the commands of `cli.py`. Ctrl-C ends it quietly even during their import."""

import gc
import signal


def main() -> None:
    """Runs a command."""
    # Imported objects are permanent. The garbage collector would walk them three hundred times during the import, a
    # seventh of the start.
    gc.set_threshold(50_000, 50, 1_000)
    # The imports take a second or two. Nothing has begun until then, so Ctrl-C needs no message. Where SIGINT is
    # ignored, as in a shell's background job, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from app.cli import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
