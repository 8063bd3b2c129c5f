"""How far a piece of advice can be trusted: by the amount of traffic, and the distance of its ratio from the line."""

from enum import StrEnum
from math import sqrt

from app.advice.traffic import Traffic

ENOUGH = 1_000
"""The number of operations below which no ratio is sure, because traffic comes in waves."""


class Sure(StrEnum):
    """How sure a piece of advice is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def trust(traffic: Traffic, line: int) -> tuple[Sure, str]:
    """Returns how sure it is on which side of the line the ratio lies, and the reason as a sentence. The line is in
    reads per write.

    It uses the interval in which the share of writes lies with 95 % confidence: Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22, 1927. The interval knows nothing of waves, hence ENOUGH.
    """
    total = traffic.reads + traffic.writes
    if total == 0:
        return Sure.LOW, "Nothing was read or written yet."
    z = 1.96
    share = traffic.writes / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low, high = max(middle - reach, 0), min(middle + reach, 1)
    limit = 1 / (line + 1)
    why = (
        f"Of {total:,} operations {share:.1%} write, {low:.1%} to {high:.1%} with what chance does; "
        f"the line is at {limit:.1%} ({line:,} reads to a write)."
    )
    if low <= limit <= high:
        return Sure.LOW, why
    # Another day may have twice or half as many writes.
    if total < ENOUGH or low / 2 <= limit <= high * 2:
        return Sure.MEDIUM, why
    return Sure.HIGH, why
