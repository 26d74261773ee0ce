"""How the bus is reached and how patient a consumer is: every limit by name, with its unit and its consequence."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.host import Secret


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `bus`: where the namespace is and how long to wait for it."""

    connection: Annotated[Secret, Meta(description="Connection string; empty: `namespace` with managed identity.")] = (
        Secret("")
    )
    namespace: Annotated[
        str, Meta(description="Host name such as example.servicebus.windows.net; used without a connection string.")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="PEM file of the authority that signed the administration endpoint; empty: the system's.")
    ] = ""
    socket_poll_seconds: Annotated[
        float,
        Meta(gt=0, description="How long one read of a link waits; a settle that meets a read waits as long."),
    ] = 0.05
    gather_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a receive that has one message waits for others; one read at least.",
        ),
    ] = 0.02
    open_seconds: Annotated[float, Meta(gt=0, description="Limit for connecting and attaching one link.")] = 15.0
    close_seconds: Annotated[
        float, Meta(gt=0, description="Limit for closing one link; after that the socket is left to the system.")
    ] = 5.0
    send_seconds: Annotated[
        float, Meta(gt=0, description="Limit for one send; after that the link is opened anew and the send repeated.")
    ] = 20.0
    send_attempts: Annotated[
        int, Meta(ge=1, description="Tries of one send before publishing fails and the received message is given back.")
    ] = 6
    send_backoff_seconds: Annotated[
        float, Meta(gt=0, description="Wait before the second try of a send; doubles each time, with jitter.")
    ] = 0.5
    send_backoff_most_seconds: Annotated[float, Meta(gt=0, description="Longest wait between two tries of a send.")] = (
        15.0
    )
    batch_bytes: Annotated[
        int, Meta(ge=70_000, le=1_000_000, description="Most bytes in one send; Standard tier admits 262144.")
    ] = 200_000
    batch_messages: Annotated[int, Meta(ge=1, description="Most messages in one send.")] = 100
    depth_seconds: Annotated[
        float, Meta(gt=0, description="Limit for reading a depth; after that it is unknown, never zero.")
    ] = 10.0
    peek_messages: Annotated[int, Meta(ge=1, le=250, description="Dead letters read in one request.")] = 50
    peek_seconds: Annotated[float, Meta(gt=0, description="Limit for one request for dead letters.")] = 20.0
    queue_metrics_seconds: Annotated[
        float,
        Meta(ge=0, description="Between two measurements of all queues, for metrics, by the dispatcher; 0: none."),
    ] = 15.0
    lag_warning_seconds: Annotated[
        float, Meta(gt=0, description="An event loop that is later than this is reported: something blocks it.")
    ] = 1.0


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `consumer`: how one consumer receives, renews, retries, gives up and stops."""

    slots: Annotated[
        int, Meta(ge=1, le=1000, description="Messages handled at a time; never more are received than slots are free.")
    ] = 8
    max_attempts: Annotated[
        int,
        Meta(ge=1, description="Exceptions of the handler after which a message is dead-lettered."),
    ] = 5
    max_passing_attempts: Annotated[
        int,
        Meta(
            ge=1,
            description="Attempts after which a handler that asks for a retry is not given one; 50: about 4 hours.",
        ),
    ] = 50
    retry_seconds: Annotated[
        float, Meta(ge=0, description="Delay of the first retry after a handler's exception; doubles, with jitter.")
    ] = 5.0
    retry_most_seconds: Annotated[float, Meta(ge=0, description="Longest delay of such a retry.")] = 300.0
    handling_seconds: Annotated[
        float, Meta(gt=0, description="Limit for one handling; after that it is cancelled and counts as a failure.")
    ] = 1800.0
    idle_exit_seconds: Annotated[
        float, Meta(ge=0, description="The consumer returns after so long without work; 0: never.")
    ] = 0.0
    idle_wait_seconds: Annotated[
        float, Meta(gt=0, le=30, description="One receive without work in hand; a stop waits as long.")
    ] = 1.0
    busy_wait_seconds: Annotated[
        float,
        Meta(gt=0, le=5, description="One receive with work in hand; a finished message may wait as long."),
    ] = 0.1
    start_with_lock_share: Annotated[
        float,
        Meta(ge=0, lt=1, description="A message whose lock has less of its life left is renewed before it starts."),
    ] = 0.25
    renew_at: Annotated[
        float, Meta(gt=0, lt=1, description="Share of a lock's remaining life after which it is renewed.")
    ] = 0.5
    renew_seconds: Annotated[float, Meta(gt=0, description="Limit for one try of a renewal.")] = 10.0
    renew_backoff_seconds: Annotated[
        float, Meta(gt=0, description="Wait after a failed renewal; doubles, with jitter, until the lock has expired.")
    ] = 0.2
    renew_backoff_most_seconds: Annotated[float, Meta(gt=0, description="Longest wait between failed renewals.")] = 5.0
    fence_seconds: Annotated[
        float, Meta(ge=0, description="Nothing is published for a message whose lock has less left.")
    ] = 0.25
    publish_hold_seconds: Annotated[
        float,
        Meta(ge=0, description="A message whose results can't be published is held so long, then given back."),
    ] = 300.0
    settle_seconds: Annotated[
        float, Meta(gt=0, description="Limit for settling; after that the message comes back when its lock expires.")
    ] = 15.0
    settle_attempts: Annotated[
        int, Meta(ge=1, description="Tries of one settlement, each on a new link, before it is left to the lock's end.")
    ] = 3
    cancel_seconds: Annotated[
        float, Meta(gt=0, description="How long a cancelled handler may take to end; then it goes on without effect.")
    ] = 5.0
    drain_seconds: Annotated[
        float,
        Meta(ge=0, description="After a stop, how long handlers may go on before their messages are given back."),
    ] = 20.0
    rebuild_backoff_seconds: Annotated[
        float, Meta(gt=0, description="Wait after a failed rebuild of the link; doubles, with jitter.")
    ] = 0.5
    rebuild_backoff_most_seconds: Annotated[float, Meta(gt=0, description="Longest wait between rebuilds.")] = 15.0
    stall_seconds: Annotated[
        float,
        Meta(gt=0, description="Free slots, a depth above 0 and nothing received for so long: rebuild; again: dead."),
    ] = 300.0
    turn_seconds: Annotated[
        float, Meta(gt=0, description="The loop must come round at least so often, or the process counts as not alive.")
    ] = 120.0
    confirmed_memory: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Most completed messages remembered to notice one that comes back; 8 bytes each at the start.",
        ),
    ] = 10_000


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `sessions`: how a subscription is served whose messages come in sessions."""

    most: Annotated[
        int, Meta(ge=1, le=200, description="Sessions held at a time; each has a connection and `slots` messages.")
    ] = 24
    accepting: Annotated[
        int, Meta(ge=1, description="Of those places, how many wait for the next session together.")
    ] = 8
    accept_seconds: Annotated[
        float, Meta(ge=1, le=60, description="One wait for a session; then the link is opened anew.")
    ] = 30.0
    empty_seconds: Annotated[
        float, Meta(gt=0, le=10, description="A session is let go when nothing came of it for so long.")
    ] = 0.3
    first_seconds: Annotated[
        float, Meta(gt=0, description="An accepted session has messages: so long its first one may take.")
    ] = 10.0
    hold_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="While all places are taken, the session held longest gets no more after so long and goes.",
        ),
    ] = 5.0
