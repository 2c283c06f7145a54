"""The life of a request.

Read `Gateway.handle` from top to bottom: a request whose head has been checked is routed, sent to a target, answered,
and accounted for exactly once. Everything it calls either decides (without I/O) or is one step on one connection.

`handle` is a coroutine without a task: the connections post events to the exchange, and each event runs the coroutine
to its next wait (see `devhost_server.exchange`). A wait is the only place where anything else can happen.
"""

import asyncio
import base64
import hashlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from devhost_server import answers
from devhost_server.accounting import Accounts
from devhost_server.clients import Clients
from devhost_server.exchange import REPLAY_LIMIT, Exchange, internal_fault
from devhost_server.failures import (
    BAD_HOST,
    BAD_REQUEST,
    BODIES_FULL,
    CLIENT_FULL,
    CLIENT_GONE,
    CLIENT_STALLED,
    LOOP,
    NO_ROUTE,
    UPGRADE_FAILED,
    UPSTREAM_PROTOCOL,
    UPSTREAM_RESET,
    Blame,
    Fault,
    Retry,
)
from devhost_server.messages import forwarding as forward
from devhost_server.messages import reuse
from devhost_server.messages.body_buffer import BodyBuffer, BodyMemory
from devhost_server.messages.fields import tokens
from devhost_server.messages.paths import normal_path
from devhost_server.messages.replies import Reply
from devhost_server.messages.request_head import hop_lines, offered, protocols
from devhost_server.messages.reuse import Reason
from devhost_server.observe.access_log import AccessLog
from devhost_server.route import Route
from devhost_server.shared.board import Scoreboard, Slot
from devhost_server.snapshot import Snapshot
from devhost_server.timing.admission import Admission
from devhost_server.timing.deadlines import Soon, Wheel
from devhost_server.timing.hangups import Hangups
from devhost_server.upstream.caller import Event
from devhost_server.upstream.client import UpstreamPool
from devhost_server.upstream.http1 import ServerConnection
from devhost_server.upstream.line import Waiter
from devhost_server.upstream.target import Target

if TYPE_CHECKING:
    from devhost_server.messages.request_head import RequestFields
    from devhost_server.messages.response_head import ResponseHead
    from devhost_server.upstream.upstream import Upstream

_log = logging.getLogger("devhost_server.gateway")

# RFC 6455 §1.3.
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DISPUTED: Final = BAD_REQUEST(
    "Servers read this path differently, and what some read belongs to another route; `server.paths` is strict."
)
# How much of a body is waited for, and how long, before a target's connection is taken for it; and all of it.
_ENOUGH: Final = 16 * 1024
_GATHER_SECONDS: Final = 1.0
_ALL: Final = 1 << 62
# Request ids drawn at once.
_IDS: Final = 256


class Gateway:
    """What one worker serves with: the current snapshot, the clients it serves, and the books it keeps."""

    def __init__(
        self, scoreboard: Scoreboard, slot: int, snapshot: Snapshot, log: AccessLog, wheel: Wheel, soon: Soon
    ) -> None:
        self.snapshot = snapshot
        self.wheel = wheel
        self.accounts = Accounts(scoreboard.row(slot), log, snapshot.unrouted, soon)
        self.clients = Clients(self.accounts.row)
        self.hangups = Hangups()
        self.admission = Admission(soon)
        self.pool = UpstreamPool(self._upstream)
        self.bodies = BodyMemory()
        self._ids: list[bytes] = []
        self.serve(snapshot)

    def serve(self, snapshot: Snapshot) -> None:
        """Serve this snapshot from the next request on."""
        self.snapshot = snapshot
        self.limits = snapshot.limits
        self.timeouts = snapshot.timeouts
        self.clients.serve(snapshot)
        self.accounts.unrouted = snapshot.unrouted
        self.accounts.row[Slot.GENERATION] = snapshot.generation

    def _upstream(self, name: str) -> "Upstream | None":
        return self.snapshot.upstreams.get(name)

    # -- the life of a request ----------------------------------------------------------------------------------------

    async def handle(self, x: Exchange) -> None:
        """Take a request whose head is sound from its routing to the end of its answer."""
        try:
            route = self._route(x)
            if isinstance(route, Fault):
                self.refuse(x, route)
                return
            fields = x.fields
            if (route.answers or fields is None or not fields.plain) and self._answer_here(x, route):
                return

            connection = self._send_at_once(x, route)
            event = None if connection is None else await x.event()
            if connection is None or event is not Event.RESPONSE:
                answered = await self._send(x, route, connection, event)
                if isinstance(answered, Fault):
                    self.refuse(x, answered)
                    return
                connection = answered

            response = x.response
            if response is None or response.status == 101:
                await self._switch(x, connection, response)
                return
            self._begin_answer(x, connection, response)
            if not x.finished_early:
                event = await x.event()
                if isinstance(event, Fault):
                    self._cut(x, event)
                    return
                x.client.end_body(connection.trailers)
            self._part(x, connection)
            self._close_books(x)
            x.client.finish()
        except Exception:
            self.broke(x)

    def _route(self, x: Exchange) -> Route | Fault:
        """Decide who answers, and take the request in for them."""
        snapshot, fields = self.snapshot, x.fields
        if fields is None:
            return internal_fault()
        x.request_id = fields.request_id or (self._ids.pop() if self._ids else self._new_id())
        x.client_address = fields.client_address
        levels = snapshot.routes.levels(x.host)
        if levels is None:
            return BAD_HOST
        if fields.via is not None and forward.loops(fields.via, snapshot.instance):
            return LOOP("The request has already been through this gateway: a target points back at it.")
        route = snapshot.routes.find(levels, x.target_path, x.method, fields.sole)
        if route is None:
            return NO_ROUTE(f"No route answers {answers.host_text(x)}{answers.target_text(x)}.")
        if snapshot.strict_paths and snapshot.routes.is_disputed(levels, x.target_path, x.method, fields.sole):
            return _DISPUTED
        self.accounts.begin(x, route)
        return route if self.clients.in_flight.most is None else self._join_client(x) or route

    def _send_at_once(self, x: Exchange, route: Route) -> ServerConnection | None:
        """Send a request about which there is nothing special, if there is an idle connection for it.

        The common case, without a coroutine of its own. None leaves everything to `_send`, which begins with the
        target that was picked here.
        """
        upstream, fields = route.upstream, x.fields
        if upstream is None or fields is None:
            return None
        upstream.budget.deposit()
        if not fields.plain or x.client.private is not None:
            return None
        x.target = target = upstream.pick(x) if upstream.sole is None else upstream.sole
        if target is None:
            return None
        path = x.target_path
        if route.prefix or target.base_path:
            rewritten = forward.rewrite(path, route.prefix, target.base_path)
            if rewritten is None:
                return None
            path = rewritten
        connection = target.pool.take()
        if connection is None:
            return None
        x.connection, connection.caller = connection, x  # whatever fails now, it is given back
        x.attempts = 1
        connection.begin(x, self._request_head(x, path, target, route, 0), route.timeouts)
        return connection

    async def _send(
        self, x: Exchange, route: Route, connection: ServerConnection | None, event: object
    ) -> ServerConnection | Fault:
        """Send the request to targets until one answers; return its connection, or why there is no answer.

        `event` is what came of a first try over `connection`, if there was one. A try that fails is repeated if it is
        certain that nothing was executed, or harmless if it was: on another target, or on a fresh connection if an
        idle one turned out to be dead.
        """
        upstream = route.upstream
        if upstream is None:
            return internal_fault()
        if connection is None and (route.buffer_body or not x.request_complete):
            gone = await self._gather(x, route)
            if gone is not None:
                return gone
        tried: list[Target] = []
        private = x.client.private
        own = None if private is None else upstream.owned_by(private)
        target = own or x.target or upstream.sole or upstream.pick(x)
        fresh = False
        while target is not None:
            if connection is None:
                connection, event = await self._try(x, route, target, fresh=fresh)
            if connection is not None and event is Event.RESPONSE:
                return connection
            fault = self._attempt_failed(x, target, connection, event)
            last, connection = connection, None
            fresh = last is not None and _was_stale(last, fault)
            if fault.failure is BAD_REQUEST or (last is not None and last.is_private):
                return fault  # over another connection the target would take it for somebody else's
            target = self._next_try(x, upstream, target, tried, fault, stale=fresh)
            if target is None:
                return fault
        return internal_fault()

    async def _try(
        self, x: Exchange, route: Route, target: Target, *, fresh: bool
    ) -> tuple[ServerConnection | None, object]:
        """Send the request to `target` and wait for what comes of it.

        Returns the connection over which it went, None if there was none, and the event.
        """
        path = forward.rewrite(x.target_path, route.prefix, target.base_path)
        if path is None:
            return None, BAD_REQUEST("The path climbs or hides the part that this route cuts off or puts before it.")
        x.target = target
        x.attempts += 1
        connection = await self._acquire(x, target, fresh=fresh)
        if isinstance(connection, Fault):
            return None, connection
        x.connection, connection.caller = connection, x  # whatever fails now, it is given back
        reasons = 0 if x.fields is None or x.fields.plain else self._reasons(x, route, connection)
        x.attach(connection, self._request_head(x, path, target, route, reasons), route.timeouts, reasons)
        return connection, await x.event()

    async def _gather(self, x: Exchange, route: Route) -> Fault | None:
        """Wait until enough of the body is there to be worth a connection: all, or 16 KiB, or what comes in a second.

        A client that waits for a 100 waits for the target's: its request goes on at once. A chunked body that is to be
        sent with a length is waited for as long as it may still get one.
        """
        if route.buffer_body and x.fields is not None and x.fields.chunked:
            fault = await self._buffer(x, route.buffer_body)
            if fault is not None:
                return fault
        if x.request_complete or x.body_size >= _ENOUGH or _awaits_continue(x):
            return None
        x.wanted = _ENOUGH
        left = x.started + _GATHER_SECONDS - time.monotonic()
        timer = asyncio.get_running_loop().call_later(max(left, 0.0), x.post, Event.ENOUGH)
        event = await x.event()
        timer.cancel()
        x.wanted = 0
        return event if isinstance(event, Fault) else None

    async def _buffer(self, x: Exchange, most: int) -> Fault | None:
        """Wait until a chunked body is complete, or is larger than `most` bytes: only then it goes in chunks.

        It does too where its route passes trailers on and it has some: behind a length there can be none.
        """
        x.buffer = buffer = BodyBuffer(most, self.bodies)
        if not x.request_complete and x.body_size <= most:
            if buffer.count(x.body_size):
                x.wanted = most + 1
                x.client.invite_body(x)
                event = await x.event()
                x.wanted = 0
                if isinstance(event, Fault):
                    return event
            if not x.request_complete and x.body_size <= most:
                return BODIES_FULL(
                    f"This worker keeps {self.bodies.held >> 20} MiB of request bodies that are to be sent with a "
                    "length, and no more at once."
                )
        if x.request_complete and x.body_size <= most and not x.trailers_to_send:
            buffer.length = x.body_size
        return None

    async def _find_place(self, x: Exchange, target: Target) -> Fault | None:
        """Take one of a target's places for unfinished uploads, or wait for one, or for the rest of the body.

        The wait for a place has an end once the client can do nothing more; until then, the body's time-outs bound it.
        """
        if target.pool.uploads.enter(x):
            return None
        loop, x.wanted = asyncio.get_running_loop(), _ALL
        while True:
            timer = loop.call_later(max(target.pool.options.wait, _GATHER_SECONDS), x.post, Event.WAITED)
            event = await x.event()
            timer.cancel()
            if event is Event.WAITED and x.body_size < REPLAY_LIMIT and not _awaits_continue(x):
                continue
            x.wanted = 0
            target.pool.uploads.forget(x)
            if event is Event.WAITED:
                return target.pool.full_of_uploads()
            return event if isinstance(event, Fault) else None

    async def _acquire(self, x: Exchange, target: Target, *, fresh: bool) -> ServerConnection | Fault:
        """Take an idle connection to the target, or wait: for one that becomes free or a new one, whichever is first.

        A client that has authenticated one goes on with that.
        """
        private = x.client.private
        held = None if private is None else target.pool.take_private(private)
        if held is None and not x.request_complete:
            fault = await self._find_place(x, target)
            if fault is not None:
                return fault
        if held is None and not fresh:
            held = target.pool.take()
        if held is not None:
            return held
        waiter = target.pool.wait_for(x, None if x.route is None else x.route.timeouts, fresh=fresh)
        if isinstance(waiter, Waiter):
            event: ServerConnection | Fault = await x.event()
            if isinstance(event, Fault):
                waiter.leave()
            return event
        return waiter

    def _next_try(
        self, x: Exchange, upstream: "Upstream", target: Target, tried: list[Target], fault: Fault, *, stale: bool
    ) -> Target | None:
        """Decide whether and where a failed try on `target` is repeated; `tried` gathers those that failed."""
        retry = fault.failure.retry
        if retry is Retry.NEVER or (retry is Retry.REPLAY and not x.replayable):
            return None
        if stale:
            # Not the target's failure: it closed an idle connection at the moment we used it. The fresh connection
            # that follows cannot be stale, so this happens once.
            self.accounts.count_retry(upstream, "stale")
            return target
        tried.append(target)
        free = retry is Retry.SAFE
        again = None if len(tried) >= upstream.attempts else upstream.pick_again(x, tried, free=free)
        if again is not None:
            self.accounts.count_retry(upstream, "connect" if free else "reset")
        return again

    def _attempt_failed(self, x: Exchange, target: Target, connection: ServerConnection | None, event: object) -> Fault:
        """Part from a connection that brought no response, if there was one; return what is wrong."""
        self._drop_connection(x)
        fault = event if isinstance(event, Fault) else internal_fault()
        x.leave_place()
        if fault.failure.blame is not Blame.CLIENT:
            if connection is None or fault.failure.blame is Blame.UPSTREAM:
                self.accounts.count_target(target, x.method, fault.failure.status)
            x.tried += (fault.detail if target.address in fault.detail else f"{target.address}: {fault.detail}",)
        return fault

    def _reasons(self, x: Exchange, route: Route, connection: ServerConnection) -> int:
        """Return what about a request speaks against using its connection again."""
        fields = x.fields
        if fields is None:
            return 0
        return reuse.of_request(
            x.method,
            body=fields.has_body,
            upgrade=not x.old and offered(fields.upgrade, route.upgrades) is not None,
            credentials=fields.credentials,
            bodies_read=connection.pool.options.reuse_after_body,
            challenged=bool(connection.reasons & Reason.CHALLENGE),
        )

    def _request_head(self, x: Exchange, path: bytes, target: Target, route: Route, reasons: int) -> bytes:
        fields = x.fields
        if fields is None or route.upstream is None:
            raise ValueError(x)
        hop, prefix = fields.hop, route.prefix_line
        if not fields.plain or x.old:
            if reasons or x.old or fields.trailer is not None or x.buffer is not None:
                hop = _hop_lines(x, fields, route, reasons)
            if fields.forwarded_prefix is not None:
                prefix = forward.prefix_line(fields.forwarded_prefix, route.public_prefix)
        host, pass_host = x.host, route.upstream.pass_host
        if pass_host and host and host is fields.host and not x.old:
            # The common case; with the same fields, all but method, path and id is the same.
            if not fields.head_before:
                fields.head_before, fields.head_behind = forward.around_request_id(
                    fields, x.client.peer, self.snapshot.instance, old=False, host=host, host_line=None
                )
            head = b"".join((x.method, b" ", path, fields.head_before, x.request_id, prefix, fields.head_behind, hop))
        else:
            head = forward.request_head(
                x.method,
                path,
                fields,
                old=x.old,
                host=host or target.authority,
                host_line=host if pass_host and host else target.authority,
                peer=x.client.peer,
                request_id=x.request_id,
                instance=self.snapshot.instance,
                prefix=prefix,
                hop=hop,
            )
        if fields.max_forwards is not None and x.method == b"OPTIONS":
            return forward.with_one_hop_less(head, fields.max_forwards)
        return head

    def _begin_answer(self, x: Exchange, connection: ServerConnection, response: "ResponseHead") -> None:
        """Pass the response on with what has come of its body."""
        x.status = response.status
        x.response_started = True
        if x.buffer is not None:
            x.body_taken()
        trailers = connection.trailers if x.finished_early and response.chunked else b""
        x.client.respond(x, response, x.first_pieces, complete=x.finished_early and not trailers)
        if trailers:
            x.client.end_body(trailers)

    async def _switch(self, x: Exchange, connection: ServerConnection, response: "ResponseHead | None") -> None:
        """Join client and target by a tunnel until either ends, if a 101 is what was asked for."""
        client, route, target = x.client, x.route, x.target
        if response is None or route is None or target is None or not _upgrades(x, response):
            self.refuse(x, _bad_upgrade(x))
            return
        x.status = 101
        x.response_started = True
        target.pool.surrender(connection)
        self.accounts.count_tunnels(route, 1)
        tunnel = None
        try:
            self._leave_client(x)  # from now on it is a connection
            idle = (target.timeouts if route.timeouts is None else route.timeouts).tunnel_idle
            tunnel = client.join(x, response, connection, idle)
            self.clients.tunnels.add(tunnel)
            await x.event()
        except BaseException:
            connection.destroy()  # what is left of it belongs to nobody else
            raise
        finally:
            if tunnel is not None:
                self.clients.tunnels.discard(tunnel)
            self.accounts.count_tunnels(route, -1)
        x.bytes_in, x.bytes_out = tunnel.bytes_up, tunnel.bytes_down
        x.connection = None
        x.told_to_go = tunnel.closing or tunnel.was_cut
        self._close_books(x)
        client.finish()

    # -- answers of our own -------------------------------------------------------------------------------------------

    def refuse_unhandled(self, x: Exchange, fault: Fault) -> None:
        """Refuse a request of whose body enough is known before it is handled; it counts for its route."""
        try:
            self._route(x)
            self.refuse(x, fault)
        except Exception:
            self.broke(x)

    def refuse_head(self, x: Exchange, fault: Fault) -> None:
        """Refuse a request whose head cannot be judged; no route is known."""
        try:
            self.refuse(x, fault)
        except Exception:
            self.broke(x)

    def refuse(self, x: Exchange, fault: Fault) -> None:
        """End an exchange that failed before its response began: with an answer that says why, if anybody listens."""
        self._drop_connection(x)
        x.fault = fault
        x.status = fault.failure.status
        if not x.request_id:
            x.request_id = self._new_id()
            x.client_address = x.client_address or x.client.peer.address
        if fault.failure not in (CLIENT_GONE, CLIENT_STALLED) and not x.client.is_closing:
            since = 0 if x.target is None else self.accounts.failing_since(x.target)
            details = self._may_see_details(x)
            x.response_started = True
            instance = self.snapshot.instance
            x.client.reply(x, answers.refusal(x, fault, instance=instance, failing_since=since, details=details))
        self._close_books(x)
        x.client.finish()

    def _reply(self, x: Exchange, reply: Reply) -> None:
        """Answer a request that goes to no target."""
        x.status, x.response_started = reply.status, True
        x.client.reply(x, reply)
        self._close_books(x)
        x.client.finish()

    def _may_see_details(self, x: Exchange) -> bool:
        """Return whether the client may see what is behind the gateway."""
        audience = (x.route or self.snapshot.unrouted).details
        if audience.everybody:
            return True
        # Somebody who speaks for others without being trusted, or whose words were not read, may not be the client.
        peer, fields = x.client.peer, x.fields
        speaks_for_others = peer.trusted if fields is None else bool(fields.disbelieved) and not peer.trusted
        return not speaks_for_others and audience.includes(x.client_address)

    def _answer_here(self, x: Exchange, route: Route) -> bool:
        """Answer what goes to no target; False if this does."""
        hops = None if x.fields is None else x.fields.max_forwards
        if hops is not None and x.method == b"OPTIONS":
            # RFC 9110 §7.6.2. TRACE, the other method that counts, is refused as soon as it is read.
            left = forward.hops_left(hops)
            if left is None:
                self.refuse(x, BAD_REQUEST("Max-Forwards is not one number (RFC 9110 §7.6.2)."))
            elif not left:
                self._reply(x, answers.allowed(x))
            if not left:
                return True
        if route.slash and normal_path(x.target_path) == route.path:
            self._reply(x, answers.redirect(x, 308, forward.with_slash(x.target_path)))
            return True
        if route.respond is not None:
            self._reply(x, answers.configured(x, route.respond))
            return True
        return False

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _cut(self, x: Exchange, fault: Fault) -> None:
        """End an exchange whose response has begun and cannot be completed: only hanging up is honest now."""
        x.fault = fault
        self._drop_connection(x)
        self._close_books(x)
        x.client.cut(reset=x.old and x.response is not None and x.response.length is None)

    def _drop_connection(self, x: Exchange) -> None:
        connection = x.connection
        if connection is not None and connection.caller is x and x.target is not None:
            connection.reasons |= Reason.UNFINISHED
            x.target.pool.release(connection)
        x.connection = None

    def _part(self, x: Exchange, connection: ServerConnection) -> None:
        """Return the connection to its target."""
        if connection.reasons and connection.reasons & Reason.SURPLUS and x.route is not None:
            self.accounts.count_surplus(x.route)
        if x.target is not None:
            x.target.pool.release(connection)
        x.connection = None

    def broke(self, x: Exchange) -> None:
        """Answer for an error of ours: this exchange fails, nothing else does."""
        _log.exception("request %s failed in the gateway", x.request_id.decode("latin-1"))
        fault = internal_fault()
        try:
            if x.response_started:
                self._cut(x, fault)
            else:
                self.refuse(x, fault)
        except Exception:
            _log.exception("request %s could not be answered either", x.request_id.decode("latin-1"))
            self._abandon(x, fault)

    def _abandon(self, x: Exchange, fault: Fault) -> None:
        """Release everything that an exchange holds, whatever else fails."""
        x.fault = fault
        for let_go in (self._drop_connection, self._close_books, lambda x: x.client.cut()):
            try:
                let_go(x)
            except Exception:
                _log.exception("request %s leaves something behind", x.request_id.decode("latin-1"))

    def _close_books(self, x: Exchange) -> None:
        """Count and log an exchange that is over; once, however often it ends."""
        if x.place is not None:
            x.leave_place()
        if x.buffer is not None:
            x.body_taken()
        if x.counted_as is not None:
            self._leave_client(x)
        if self.accounts.end(x) and self.clients.draining:
            self.clients.count_end(x)

    def _join_client(self, x: Exchange) -> Fault | None:
        """Count a request of its client, unless the client has too many."""
        in_flight = self.clients.in_flight
        if in_flight.most is None:
            return None
        x.counted_as = in_flight.enter(x.client_address)
        if x.counted_as is not None:
            return None
        return CLIENT_FULL(
            f"This worker answers {in_flight.most} requests of this client already, and no more at once."
        )

    def _leave_client(self, x: Exchange) -> None:
        """Count a request of its client no longer."""
        key, x.counted_as = x.counted_as, None
        if key is not None:
            self.clients.in_flight.leave(key)

    def _new_id(self) -> bytes:
        """Return a request id: 128 random bits in hexadecimal, drawn many at a time."""
        if not self._ids:
            drawn = secrets.token_hex(16 * _IDS).encode()
            self._ids = [drawn[at : at + 32] for at in range(0, len(drawn), 32)]
        return self._ids.pop()

    def write_gauges(self) -> None:
        """Put what is only counted in this process on the scoreboard."""
        self.accounts.row[Slot.IN_FLIGHT] = self.accounts.in_flight
        self.clients.write_gauges()


def _was_stale(connection: ServerConnection, fault: Fault) -> bool:
    """Return whether a target closed an idle connection at the moment in which it was used."""
    return connection.served > 1 and fault.failure is UPSTREAM_RESET and not connection.heard


def _awaits_continue(x: Exchange) -> bool:
    """Return whether the client may be waiting for a 100 before it sends its body."""
    return x.fields is not None and x.fields.expect_continue and not x.continued


def _hop_lines(x: Exchange, fields: "RequestFields", route: Route, reasons: int) -> bytes:
    """Return the lines of our own hop where something about the request matters to them."""
    return hop_lines(
        fields,
        old=x.old,
        reasons=reasons,
        upgrades=route.upgrades,
        trailers=route.trailers,
        continued=x.buffer is not None and x.continued,
        length=None if x.buffer is None else x.buffer.length,
    )


def _upgrades(x: Exchange, response: "ResponseHead") -> bool:
    """Whether a 101 is an answer to what was asked (RFC 9110 §15.2.2, RFC 6455 §4.1)."""
    fields, route = x.fields, x.route
    asked = None if fields is None or route is None or x.old else offered(fields.upgrade, route.upgrades)
    if fields is None or asked is None or response.upgrade is None or not x.request_complete:
        return False
    if response.old or response.close or b"upgrade" not in response.nominated:
        return False  # RFC 9110 §7.8, RFC 6455 §4.1 item 3; a client would refuse it too, and it is not ours to mend
    if not set(tokens(response.upgrade)) <= set(tokens(asked)):
        return False
    if b"websocket" not in protocols(response.upgrade):
        return True
    expected = hashlib.sha1((fields.websocket_key or b"") + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    return response.websocket_accept == base64.b64encode(expected)


def _bad_upgrade(x: Exchange) -> Fault:
    if x.fields is None or x.route is None or offered(x.fields.upgrade, x.route.upgrades) is None:
        return UPSTREAM_PROTOCOL("The target switched protocols although nobody asked it to.")
    return UPGRADE_FAILED("The target's answer to the upgrade does not fit what was asked.")
