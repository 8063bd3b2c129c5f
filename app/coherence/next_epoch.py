"""Claims the next epoch in each store where others may have trust, and begins it when the claims have stood.

What can go wrong: a member refutes the claim, in one of the stores. Then this instance pauses (`candidacy.py`).
"""

import secrets

from app.coherence.candidacy import Candidacy
from app.coherence.epochs import Epochs, Look
from app.coherence.membership import owner_of
from app.coherence.places import Heard


async def claim_next(epochs: Epochs, candidacy: Candidacy, look: Look, heard: Heard, run: str) -> None:
    """Claims the epoch after the one in `look`, in which `run` is trusted, or begins it. Raises what the stores
    raise."""
    epoch, owner = look.epoch, owner_of(look)
    assert epoch is not None
    candidacy.sees(candidacy.claim, epoch.claim)
    for membership, seen in heard.items():
        candidacy.sees(membership.claim, seen.claim)
    if candidacy.pauses:
        return
    stood = await candidacy.claimed(epoch, run)
    for membership, seen in heard.items():
        if seen.epoch is not None:
            stood = await membership.claimed(seen, owner) and stood
    if not stood:
        return
    token = secrets.token_hex(8)
    if await epochs.begin(epoch, epoch.claim or "", token, run, look.history):
        for membership in heard:
            await membership.record.tell(token, owner, membership.claim.token)
