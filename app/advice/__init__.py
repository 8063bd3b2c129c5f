"""Advises a strategy: the article's decision tree, as data and as code, corrected where it is wrong.

    advice = advise(Needs(stale=timedelta(0), loss=Loss.REVENUE), Traffic(reads=900, writes=100))
    best = pick(needs, bills)

The tree asks three questions: may reads be stale, how many reads are there per write, and what is lost with the cache.
It contradicts itself, because the three answers may point to three strategies, and some of its leaves are not true of
the strategies as built here. So the needs first decide which strategies are correct at all, and only among those does
the ratio decide which is cheap. Each reason names the leaf, and where the facts differ from it.

What can go wrong: the ratio comes from little traffic. `Advice.sure` says how far to trust it. Nothing here switches
anything.
"""

from app.advice.choice import Choice
from app.advice.measured import WORTH, Measured, pick
from app.advice.needs import SHORTEST, Loss, Needs, meets
from app.advice.traffic import Traffic
from app.advice.tree import Advice, advise
from app.advice.trust import Sure

__all__ = [
    "SHORTEST",
    "WORTH",
    "Advice",
    "Choice",
    "Loss",
    "Measured",
    "Needs",
    "Sure",
    "Traffic",
    "advise",
    "meets",
    "pick",
]
