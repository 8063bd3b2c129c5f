"""The benchmarks: speed as ratios to other ways of doing the same, measured in turns on one machine: `make bench`.

    __main__.py      the command: what is measured, and what happens with the figures
    stage.py         the servers, the processors, how long and how often
    measurement.py   samples, rounds and ratios
    load.py          HTTP load from a separate process; wrk.py, where wrk is installed
    peers/           the same services, written without this library
    the other files  one question each, named for what is measured

No time is ever asserted: a missed ratio is only reported. A wrong answer ends the run.
"""
