"""A schedule drawn as a race: one column per process, and time runs down.

reader                          writer
GET k → nothing
                                UPDATE to 1 → 1
"""

from collections.abc import Sequence

from app.lab.races.gate import Line

WIDTH = 116
GAP = 2


def timeline(names: Sequence[str], lines: Sequence[Line]) -> str:
    """Draws the lines in columns, with `names` above them. A process that did nothing gets no column, and no column is
    wider than its content: a narrow terminal would fold the lines, and the columns would be lost."""
    actors = sorted({line.actor for line in lines if line.actor is not None})
    longest = max((len(line.text) for line in lines if line.actor is not None), default=0)
    needed = max(longest, *(len(names[actor]) for actor in actors)) + GAP if actors else 1
    width = min(needed, max(1, WIDTH // max(1, len(actors))))
    rows = ["".join(names[actor].ljust(width) for actor in actors)]
    for line in lines:
        if line.actor is None:
            rows.append(f"— {line.text} —".center(width * len(actors)))
            continue
        indent = " " * (width * actors.index(line.actor))
        rows += [indent + part for part in _wrapped(line.text, width - GAP)]
    return "\n".join(row.rstrip() for row in rows)


def _wrapped(text: str, width: int) -> list[str]:
    rows = [""]
    for word in text.split(" "):
        if rows[-1] and len(rows[-1]) + 1 + len(word) > width:
            rows.append("  " + word)
        else:
            rows[-1] = f"{rows[-1]} {word}" if rows[-1] else word
    return rows
