"""Sends calls to the nodes that own their slots: one write per node, and whoever asks hears of each node's answers at
once.

    MOVED         the slot has another owner: the call goes there, and the slot map is read again
    ASK           the slot is half moved, and the key is there by now, or is new: this one call goes there
    NOSCRIPT      the node has forgotten the script: the call goes there again, with the script itself
    TRYAGAIN      the slot is half moved, and so are the keys of this script: it fails, or is repeated for a second
    CLUSTERDOWN   the node knows no owner of the slot: the same

A node that answers so has not executed the call, so it is not executed twice. A call whose connection was lost may have
been executed: it is not sent again, and its caller decides.

What can go wrong: a node is silent. Its calls fail after the timeout of its client, and so do those that are redirected
to it. `send` waits for them; `tell` tells the other answers before.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from ..asking import Asking
from ..errors import CacheUnavailable
from ..words import unavailable
from .address import Address
from .answer import Answer
from .call import Call, packed
from .exchange import exchange
from .holds import Holds
from .node import Node
from .nodes import Nodes
from .passing import is_new, passes
from .sent import Route, Sent, Told
from .topology import Topology

ASKING = packed(("ASKING",))
REDIRECTIONS = 5
"""How often a call is redirected. Two suffice, unless nodes disagree."""
PATIENCE, PAUSE = timedelta(seconds=1), timedelta(milliseconds=20)
UNANSWERED = CacheUnavailable("It was not sent.")


class Sending:
    """The calls of one region, `name`. `failed` is called when a node has not answered, and for each answer that is an
    error. With `drains`, nodes are also asked that may not be written to."""

    def __init__(
        self,
        topology: Topology,
        nodes: Nodes,
        name: str,
        failed: Callable[[], None],
        holds: Holds | None = None,
        drains: bool = False,
    ) -> None:
        self._topology, self._nodes, self._holds = topology, nodes, holds
        self._name, self._failed, self._drains = name, failed, drains

    async def send(
        self, calls: Iterable[Call], *, believed: bool = True, persistent: bool = False
    ) -> Sequence[Answer | CacheUnavailable]:
        """Returns the answer to each call, or why there is none, in the order of the calls. Otherwise it is `tell`."""
        calls = list(calls)
        answers: list[Answer | CacheUnavailable] = [UNANSWERED] * len(calls)

        def told(places: Sequence[int], node: Node | None, replies: Sequence[Any]) -> None:
            for place, reply in zip(places, replies, strict=True):
                answers[place] = reply if node is None or isinstance(reply, CacheUnavailable) else Answer(reply, node)

        await self.tell(calls, told, believed=believed, persistent=persistent)
        return answers

    async def one(self, call: Call, *, believed: bool = True, persistent: bool = False) -> Any:
        """Returns the reply to one call. Raises CacheUnavailable."""
        (answer,) = await self.send([call], believed=believed, persistent=persistent)
        if isinstance(answer, CacheUnavailable):
            raise answer
        return answer.reply

    async def tell(
        self, calls: MutableSequence[Call], told: Told, *, believed: bool = True, persistent: bool = False
    ) -> None:
        """Calls `told` with the answers of each node when they are there, and returns when all are. The calls may be
        executed in any order.

        With `believed`, a node is asked only while it may be believed, and its answer counts only if it still is then.
        With `persistent`, calls are repeated for up to a second while their slot is moving or has no owner, or no
        holder that is believed, or while it is not known yet what its node is.
        """
        now = asyncio.get_running_loop().time()
        until = now + PATIENCE.total_seconds() if persistent else now
        sent = Sent(calls, told, [0] * len(calls), believed, until)
        await self._to_owners(sent, range(len(calls)))

    async def _to_owners(self, sent: Sent, places: Iterable[int]) -> None:
        owned: dict[Address | None, list[int]] = defaultdict(list)
        later: list[int] = []
        calls, owner_of = sent.calls, self._topology.owner
        for place in places:
            owned[owner_of(calls[place].slot)].append(place)
        for place in owned.pop(None, ()):
            self._topology.failed()
            self._postpone(sent, place, CacheUnavailable(f"No node is known to own slot {calls[place].slot}."), later)
        await self._all(sent, {Route(owner): its for owner, its in owned.items() if owner is not None}, later)

    async def _all(self, sent: Sent, routes: Mapping[Route, list[int]], later: Sequence[int]) -> None:
        steps = [self._to_one(sent, route, places) for route, places in routes.items()]
        if later:
            steps.append(self._again(sent, later))
        if not steps:
            return
        if len(steps) == 1:
            await steps[0]  # A task of its own would cost as much as ten GETs.
        else:
            # The first one needs no task, either.
            others = asyncio.gather(*steps[1:])
            try:
                await steps[0]
            except BaseException:
                others.cancel()
                raise
            await others

    async def _again(self, sent: Sent, places: Sequence[int]) -> None:
        await asyncio.sleep(PAUSE.total_seconds())
        for place in places:
            sent.redirections[place] = 0  # Each attempt may be redirected anew, until there is no more time.
        await self._to_owners(sent, places)

    async def _to_one(self, sent: Sent, route: Route, places: list[int]) -> None:
        """Sends some of the calls to one node, and whatever it refuses to where it belongs."""
        later: list[int] = []
        held = self._holds if sent.believed else None
        changes = 0 if held is None else held.changes
        try:
            node = self._nodes.get(route.address) or await self._nodes.at(route.address)
            node.asked = True
            if held is not None:
                places = self._held(held, sent, route.asked or node, places, later)
            with node:
                replies = await self._ask(node, sent, route, places) if places else []
        except CacheUnavailable as error:
            self._topology.failed()
            if is_new(error, self._nodes.get(route.address)) and asyncio.get_running_loop().time() < sent.until:
                later += places  # Nothing was sent: a relay finds out what it is with its next poll.
            else:
                sent.told(places, None, [error] * len(places))
            if later:
                await self._again(sent, later)
            return
        if held is not None and (lost := held.lost_since(changes, (sent.calls[place].slot for place in places))):
            pairs = zip(places, replies, strict=True)
            replies = [self._unheld(sent, each) if sent.calls[each].slot in lost else reply for each, reply in pairs]
        if not later and not any(issubclass(kind, ResponseError) for kind in set(map(type, replies))):
            sent.told(places, node, replies)
            return
        # Whoever was answered does not wait for what is sent onward: the next node may be silent.
        answered = [(place, reply) for place, reply in zip(places, replies, strict=True) if not _is_error(reply)]
        if answered:
            sent.told([place for place, _ in answered], node, [reply for _, reply in answered])
        onward: dict[Route, list[int]] = defaultdict(list)
        for place, reply in zip(places, replies, strict=True):
            if not _is_error(reply):
                continue
            if (next_route := self._next(sent, place, node, route, reply)) is not None:
                onward[next_route].append(place)
            else:
                self._postpone(sent, place, self._said(sent, place, reply), later if passes(reply) else None)
        if onward or later:
            await self._all(sent, onward, later)

    def _held(self, holds: Holds, sent: Sent, holder: Node, places: Sequence[int], later: list[int]) -> list[int]:
        """Returns the calls whose slot is held by the node that answers for it. The others are not sent: the answer of
        a node that was cut off may be old."""
        held = []
        for place in places:
            if holds.believes(sent.calls[place].slot, holder):
                held.append(place)
            else:
                self._topology.failed()  # Perhaps another node owns the slot by now.
                self._postpone(sent, place, self._unheld(sent, place), later)
        return held

    def _unheld(self, sent: Sent, place: int) -> CacheUnavailable:
        slot = sent.calls[place].slot
        return CacheUnavailable(f"Redis is not asked for {self._name}: no node is known to hold slot {slot}.")

    async def _ask(self, node: Node, sent: Sent, route: Route, places: list[int]) -> Sequence[Any]:
        trust, commands = node.cache.trust, [sent.calls[place].packed for place in places]
        if sent.believed and not (trust.held or trust.lost):
            await trust.believed()
        if route.asked is not None:
            # In one write, and so on one connection:
            #     ASKING on connection 1      its command on connection 2: MOVED to the old owner, which answers ASK
            commands = [command for each in commands for command in (ASKING, each)]
        asking = Asking(node.cache, self._name, self._failed)
        asked = partial(exchange, node.cache.redis, commands, sent.calls[places[0]].waits)
        replies = await asking.ask(asked, believed=sent.believed, drains=self._drains)
        if route.asked is None:
            return replies
        # A refused ASKING is why its command was refused.
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [asked if _is_error(asked) and _is_error(reply) else reply for asked, reply in pairs]

    def _next(self, sent: Sent, place: int, node: Node, route: Route, error: ResponseError) -> Route | None:
        """Returns where a call goes that was refused, None if nowhere."""
        call = sent.calls[place]
        if isinstance(error, NoScriptError) and call.source is not None:
            sent.calls[place] = call.with_source()
            return route
        if not isinstance(error, AskError) or sent.redirections[place] == REDIRECTIONS:
            return None
        sent.redirections[place] += 1
        there = Address(error.host, error.port).resolved(route.address)
        if isinstance(error, MovedError):  # It is a kind of AskError.
            self._topology.moved(call.slot, there)
            return Route(there)
        return Route(there, asked=node)

    def _said(self, sent: Sent, place: int, error: ResponseError) -> CacheUnavailable:
        if isinstance(error, AskError):
            return CacheUnavailable(
                f"A call for {self._name} was redirected {REDIRECTIONS} times: the nodes do not agree on who owns slot "
                f"{sent.calls[place].slot}."
            )
        told = unavailable(error, f"{self._name}, slot {sent.calls[place].slot}")
        told.__cause__ = error
        return told

    def _postpone(self, sent: Sent, place: int, error: CacheUnavailable, later: list[int] | None) -> None:
        """Repeats a call later, if it may succeed then and there is time. Otherwise, it has failed."""
        if later is not None and asyncio.get_running_loop().time() < sent.until:
            later.append(place)
            return
        self._failed()
        sent.told([place], None, [error])


def _is_error(reply: Any) -> bool:
    return isinstance(reply, ResponseError)
