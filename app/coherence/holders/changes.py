"""Which slots have to get another holder, by what their holders and their owners say of themselves.

    the holder says that it owns the slot              it is believed about the slot
    it says that it does not, and another node does    the slot is handed over at once: the holder answers MOVED
    it is silent or a replica, and another owns it     a claim: members that hear the holder refute it; after `SETTLED`
                                                       the owner holds the slot, under a new term

`tests/coherence/holders` models this, and shows what goes wrong without each rule.

What can go wrong: nobody owns a slot. Then its holder stays, and nobody is believed about it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.caching.cluster.slot_map import SLOTS
from app.coherence.holders.view import View
from app.coherence.holders.word import Word


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """`believed`: for each slot, the id of its holder if it says that it owns it, else None. `handed`: the view after
    slots were handed over, None if none is to be. `claims`: by the holder that is silent, the view to claim."""

    believed: list[str | None]
    handed: View | None
    claims: dict[str, View]

    @classmethod
    def between(cls, view: View, words: Mapping[str, Word], late: Mapping[str, Word]) -> "Changes":
        """Compares what Postgres says with what the nodes say, each under its id. Of those whose answer is `late`, what
        they said before: it changes nothing, as they are trusted only for what is left of their time."""
        owners = owners_of(words)
        owned = {id_: [False] * SLOTS for id_ in (*words, *late)}
        for id_, word in (*words.items(), *late.items()):
            if word.counts:
                for first, last in word.owned():
                    owned[id_][first : last + 1] = [True] * (last + 1 - first)
        believed: list[str | None] = [None] * SLOTS
        handed, claimed = dict[int, str](), dict[str, dict[int, str]]()
        for slot, holder in enumerate(view.holders):
            if holder is not None and holder in owned and owned[holder][slot]:
                believed[slot] = holder
            elif holder in late or (owner := owners[slot]) is None:
                continue
            elif holder is None or (holder in words and words[holder].counts):
                handed[slot] = owner
            else:
                claimed.setdefault(holder, {})[slot] = owner
        claims = {holder: _given(view, slots, [holder, *slots.values()]) for holder, slots in claimed.items()}
        return cls(believed, _given(view, handed, ()) if handed else None, claims)


def owners_of(words: Mapping[str, Word]) -> list[str | None]:
    """Returns the owner of each slot, by its own word. Of two, the one with the newer configuration."""
    owners: list[str | None] = [None] * SLOTS
    for id_, word in sorted(words.items(), key=lambda each: each[1].epoch):
        if word.counts:
            for first, last in word.owned():
                owners[first : last + 1] = [id_] * (last + 1 - first)
    return owners


def takes_from(view: View, claimed: View) -> set[int]:
    """Returns the slots whose holder loses them by a claim."""
    pairs = zip(view.holders, claimed.holders, strict=True)
    return {slot for slot, (now, then) in enumerate(pairs) if now is not None and now != then}


def _given(view: View, slots: Mapping[int, str], renewed: Iterable[str]) -> View:
    """Returns the view in which some slots have another holder, and some nodes a new term."""
    holders = list(view.holders)
    for slot, owner in slots.items():
        holders[slot] = owner
    term = max(view.terms.values(), default=0) + 1
    return View(holders, dict(view.terms) | dict.fromkeys(renewed, term))
