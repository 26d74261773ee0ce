"""Fills a small file system through the store, makes room, and checks what is there: `full_disk.py DIRECTORY`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from fusebus.servicebus.engine import Engine, Message, QuotaExceeded
from fusebus.servicebus.store import Store
from fusebus.servicebus.wire_messages import engine_message

RESERVE_BYTES = 500_000


def message(number: int) -> Message:
    return engine_message(b"\x00\x53\x75\xb0\x00\x00\x27\x10" + b"%08d" % number + b"x" * 9992)


def opened(directory: Path) -> tuple[Store, Engine]:
    store, engine = Store(directory, reserve_bytes=RESERVE_BYTES), Engine(time.time)
    assert store.restore(engine) == [], "nothing is damaged"
    return store, engine


def main(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    store, engine = opened(disk / "data")
    engine.namespace.create_queue("q")
    assert store.commit()
    sent = fill(store, engine)
    store.retry()
    assert store.refusal, "there is no room yet"
    complete(store, engine, 5)
    ballast.unlink()
    store.retry()
    assert store.refusal is None
    sent += fill(store, engine) - 5
    complete(store, engine, sent - 3)
    store.retry()
    assert store.refusal is None, "the journal gave back what nothing needs any more"
    engine.send("q", [message(0)])
    assert store.commit()
    store.close()
    store, engine = opened(disk / "data")
    assert engine.counts("q").active == 3 + 1
    store.close()


def fill(store: Store, engine: Engine) -> int:
    """Sends until the disk is full; how many messages that were."""
    sent = 0
    try:
        while sent < 1000:
            engine.send("q", [message(sent)])
            assert store.commit(), "the reserve takes what was let in"
            sent += 1
    except QuotaExceeded as refusal:
        assert "full" in str(refusal)
    assert 10 < sent < 1000, sent
    return sent


def complete(store: Store, engine: Engine, count: int) -> None:
    for delivery in engine.receive("q", count):
        assert delivery.lock_token is not None
        engine.complete("q", delivery.lock_token)
    assert store.commit(), "what frees room can still be said"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
