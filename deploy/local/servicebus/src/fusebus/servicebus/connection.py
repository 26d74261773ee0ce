"""One client connection: the handshake, frames to sessions, and output gathered per turn of the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, cast

from fusebus.servicebus.amqp import sasl
from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.frames import (
    AMQP_FRAME,
    AMQP_HEADER,
    EMPTY_FRAME,
    MAX_FRAME_BYTES,
    SASL_FRAME,
    SASL_HEADER,
    Frame,
    FrameReader,
    build_frame,
)
from fusebus.servicebus.amqp.performatives import Attach, Begin, Close, End, Error, Open, SaslInit
from fusebus.servicebus.amqp.types import CodecError
from fusebus.servicebus.claims import Claims
from fusebus.servicebus.conditions import DECODE_ERROR, FRAMING_ERROR, INTERNAL_ERROR, NOT_ALLOWED, Refusal
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.link import Link
from fusebus.servicebus.lobby import Guest
from fusebus.servicebus.nodes import open_link
from fusebus.servicebus.session import Session
from fusebus.servicebus.watch import Watch

logger = logging.getLogger(__name__)

MAX_SESSIONS = 5000  # per connection, as in the service: the JavaScript SDK opens one for each receiver
MIN_FRAME_BYTES = 512  # the least that AMQP lets a peer announce


class Stage(Enum):
    """What is expected next."""

    SASL_HEADER = auto()
    SASL_INIT = auto()
    AMQP_HEADER = auto()
    OPEN = auto()
    RUNNING = auto()
    ENDED = auto()


_RUNNING: Final = Stage.RUNNING  # looked up for every frame


class Connection(asyncio.Protocol):
    """Everything that one client may do; no byte from it raises out of here."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.remote_max_frame = MIN_FRAME_BYTES
        self.claims = Claims(self)
        if gateway.insecure:
            self.claims.add("", gateway.verify(""))
        self.output_paused = False
        self._delayed_until = 0.0  # of the loop's clock
        self._flush_planned = self._receiving = False
        self.container_id = ""
        self._stage = Stage.SASL_HEADER
        self._reader = FrameReader()
        self._sessions: dict[int, Session] = {}
        self._handlers: dict[type[Composite] | type[None], Callable[[Frame], None]] = {
            Open: self._on_open,
            Begin: self._on_begin,
            End: self._on_end,
            Close: self._on_close,
        }
        self._output: list[bytes] = []
        self._output_size = 0
        self._most_output = gateway.bounds.unread_bytes  # in one turn
        self._choked = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._guest: Guest | None = None
        self._watch = Watch(self)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._guest = self.gateway.lobby.enter(self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._stage = Stage.ENDED
        self.gateway.connections.discard(self)
        self._leave_lobby()
        self._watch.stop()
        self.claims.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for session in list(self._sessions.values()):
            self.forget(session)
        # Nothing refers to itself by way of this any more: it goes now, with what it had read last, and is not left to
        # the collector, which comes seldom.
        self._handlers.clear()
        self._transport = None

    def pause_writing(self) -> None:
        self._set_paused(True)

    def resume_writing(self) -> None:
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        self.output_paused = paused
        self._watch.paused_changed(paused)
        for link in self.links():
            link.paused_changed()
        if self._choked and not paused:
            self._loop.call_soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        if self._stage is Stage.ENDED:
            return
        self._watch.heard_at = self._loop.time()
        self._reader.feed(data)
        if not self._choked:
            self._work()

    def _work(self) -> None:
        """Handles what has arrived, as long as its answers are not too much for one turn."""
        self._receiving, self.gateway.reading = True, self
        try:
            while self._output_size <= self._most_output:
                if self._stage is not _RUNNING:
                    if not self._step_of_handshake():
                        break
                elif not self._reader.more or (frame := self._reader.next_frame()) is None:
                    break
                elif frame.performative is not None:  # else a heartbeat
                    self._on_running_frame(frame)
        except CodecError as error:
            code = FRAMING_ERROR if self._stage is not Stage.RUNNING else DECODE_ERROR
            logger.warning("a client's bytes are not AMQP: %s", error)
            self.close(Error(condition=code, description=str(error)))
        except Refusal as error:
            self.close(Error(condition=error.condition, description=str(error)))
        except Exception:
            logger.exception("a connection failed")
            self.close(Error(condition=INTERNAL_ERROR, description="the broker failed; its log says how"))
        self._receiving = False
        if self._output_size > self._most_output:
            self._choke()
        if not self._flush_planned:
            if self.gateway.answer_at_once:
                self._flush()
            else:
                self._plan_flush()
        self.gateway.reading = None

    def _choke(self) -> None:
        """Leaves the rest of the input where it is until the answers so far have gone."""
        self._choked = True
        self.read_on(False)
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._choked and not self.output_paused and self._stage is not Stage.ENDED:
            self._choked = False
            self.read_on(True)
            self._work()

    # --- from the client

    def _on_running_frame(self, frame: Frame) -> None:
        performative = frame.performative
        assert performative is not None
        if frame.kind != AMQP_FRAME:
            raise CodecError("a frame of another layer")
        handler = self._handlers.get(type(performative))
        if handler is not None:
            handler(frame)
            return
        session = self._sessions.get(frame.channel)
        if session is not None:  # the Python SDK detaches its management links after it ended their session
            try:
                session.on_frame(performative, frame.payload)
            except Refusal as refusal:
                session.end(refusal)

    def _step_of_handshake(self) -> bool:
        """Handles the next header or frame; False if it has not arrived completely, or nothing more is wanted."""
        if self._stage is Stage.ENDED:
            return False
        if self._stage in (Stage.SASL_HEADER, Stage.AMQP_HEADER):
            header = self._reader.next_protocol_header()
            if header is not None:
                self._on_protocol_header(header)
            return header is not None
        frame = self._reader.next_frame()
        if frame is not None:
            self._on_frame(frame)
        return frame is not None

    def _on_protocol_header(self, header: bytes) -> None:
        expected = SASL_HEADER if self._stage is Stage.SASL_HEADER else AMQP_HEADER
        self.write(expected)  # what is spoken here, also as the answer to anything else
        if header != expected:
            self._stage = Stage.ENDED
            self._end_transport()
        elif expected == SASL_HEADER:
            self.write(sasl.mechanisms_frame())
            self._stage = Stage.SASL_INIT
        else:
            self._stage = Stage.OPEN

    def _on_frame(self, frame: Frame) -> None:
        if frame.performative is None:
            return  # a heartbeat
        if (frame.kind == SASL_FRAME) != (self._stage is Stage.SASL_INIT):
            raise CodecError("a frame of another layer")
        (self._on_sasl_init if self._stage is Stage.SASL_INIT else self._on_open)(frame)

    def _on_sasl_init(self, frame: Frame) -> None:
        init = frame.performative
        if not isinstance(init, SaslInit):
            raise CodecError("expected sasl-init")
        accepted = self._judge(init)
        self.write(sasl.outcome_frame(sasl.OK if accepted else sasl.REFUSED))
        if accepted:
            self._stage = Stage.AMQP_HEADER
        else:
            self._stage = Stage.ENDED
            self._end_transport()

    def _judge(self, init: SaslInit) -> bool:
        """Whether the client may go on. Only PLAIN proves anything by itself; the others do later, by claims."""
        if init.mechanism not in sasl.MECHANISMS:
            return False
        if init.mechanism != sasl.PLAIN or self.gateway.insecure:
            return True
        credentials = sasl.plain_credentials(init)
        claim = None if credentials is None else self.gateway.log_in(*credentials)
        return claim is not None and self.claims.add("", claim)

    def _on_open(self, frame: Frame) -> None:
        opened = frame.performative
        if not isinstance(opened, Open) or self._stage is not Stage.OPEN:
            raise Refusal(NOT_ALLOWED, "open comes first, and once")
        self.container_id = opened.container_id
        self.remote_max_frame = min(max(opened.max_frame_size, MIN_FRAME_BYTES), MAX_FRAME_BYTES)
        self._reader.limit = MAX_FRAME_BYTES
        self._stage = Stage.RUNNING
        self._leave_lobby()
        self.gateway.connections.add(self)
        self._watch.start()
        reply = Open(
            container_id=self.gateway.container_id,
            max_frame_size=MAX_FRAME_BYTES,
            channel_max=MAX_SESSIONS - 1,
            idle_time_out=round(self.gateway.bounds.idle_seconds * 1000) or None,
        )
        self.write(build_frame(0, reply.encoded()))
        if opened.idle_time_out:
            self._keep_alive(max(opened.idle_time_out / 2000, 0.05))

    def _leave_lobby(self) -> None:
        if self._guest is not None:
            self.gateway.lobby.leave(self._guest)
            self._guest = None

    def _keep_alive(self, seconds: float) -> None:
        """Sends empty frames at half of the client's idle time-out."""
        self.write(EMPTY_FRAME)
        self._timer = self._loop.call_later(seconds, self._keep_alive, seconds)

    def _on_begin(self, frame: Frame) -> None:
        assert isinstance(frame.performative, Begin)
        if frame.channel in self._sessions or len(self._sessions) >= MAX_SESSIONS:
            raise Refusal(NOT_ALLOWED, "that channel is in use, or there are too many sessions")
        session = Session(self, frame.channel, frame.performative)
        self._sessions[frame.channel] = session
        session.begin()

    def _on_end(self, frame: Frame) -> None:
        session = self._sessions.get(frame.channel)
        if session is not None:
            self.forget(session)
            session.send(End())

    def _on_close(self, frame: Frame) -> None:
        self.close(None)

    # --- for sessions and links

    def open_link(self, session: Session, attach: Attach) -> Link:
        """The link that the client's attach asks for; raises Refusal or EngineError."""
        return open_link(self.gateway, self, session, attach)

    def links(self) -> list[Link]:
        """All attached links."""
        return [link for session in self._sessions.values() for link in session.links()]

    def forget(self, session: Session) -> None:
        """The session has ended."""
        self._sessions.pop(session.channel, None)
        session.close()

    # --- to the client

    def write(self, data: bytes) -> None:
        """Queues bytes; everything queued in one turn of the event loop goes out in one write."""
        if not self._flush_planned and not self._receiving:
            self._plan_flush()
        self._output.append(data)
        self._output_size += len(data)

    def _plan_flush(self) -> None:
        self._flush_planned = True
        self._loop.call_soon(self._flush)

    @property
    def output_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + sum(map(len, self._output))

    @property
    def has_output(self) -> bool:
        """Whether answers wait for the end of this turn."""
        return bool(self._output)

    def _flush(self) -> None:
        self._flush_planned = False
        self.gateway.before_output()  # which may abort this connection
        output, self._output, self._output_size = self._output, [], 0
        if output and self._transport is not None and not self._transport.is_closing():
            self._put(self._transport, b"".join(output))
            if self.output_paused:
                self._watch.output_grew(self.output_bytes)

    def _put(self, transport: asyncio.Transport, data: bytes) -> None:
        """Writes at once, unless a latency was ordered; what waits for it goes out in its order."""
        latency = self.gateway.faults.latency_seconds
        if (latency or self._delayed_until) and (now := self._loop.time()) < max(self._delayed_until, now + latency):
            self._delayed_until = max(self._delayed_until, now + latency)
            self._loop.call_at(self._delayed_until, transport.write, data)
        else:
            transport.write(data)

    def hold(self, size: int) -> None:
        """`size` more bytes (or less, if negative) are kept for the client; cuts it off if that is too much."""
        self._watch.hold(size)

    def read_on(self, on: bool) -> None:
        """Whether anything more is read from the client."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def close(self, error: Error | None) -> None:
        """Says goodbye, with the reason if there is one, and ends the transport once that is sent."""
        if self._stage is Stage.ENDED:
            return
        if self._stage is Stage.RUNNING:
            self.write(build_frame(0, Close(error=error).encoded()))
        self._stage = Stage.ENDED
        for session in list(self._sessions.values()):
            self.forget(session)
        self._end_transport()

    def abort(self) -> None:
        """Cuts the transport without waiting for what is still to be sent."""
        self._stage = Stage.ENDED
        if self._transport is not None:
            self._transport.abort()

    def _end_transport(self) -> None:
        self._stage = Stage.ENDED
        self._flush()
        if self._transport is not None:
            self._transport.close()
