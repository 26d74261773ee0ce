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
    sent = 0
    try:
        while sent < 1000:
            engine.send("q", [message(sent)])
            assert store.commit(), "the reserve takes what was let in"
            sent += 1
    except QuotaExceeded as refusal:
        assert "full" in str(refusal)
    assert 10 < sent < 1000, sent
    store.retry()
    assert store.refusal, "there is no room yet"
    for delivery in engine.receive("q", 5):
        assert delivery.lock_token is not None
        engine.complete("q", delivery.lock_token)
    assert store.commit(), "what frees room can still be said"
    ballast.unlink()
    store.retry()
    assert store.refusal is None
    engine.send("q", [message(sent)])
    assert store.commit()
    store.close()
    store, engine = opened(disk / "data")
    assert engine.counts("q").active == sent + 1 - 5
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
