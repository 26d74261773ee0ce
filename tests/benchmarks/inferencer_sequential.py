"""The loop that people write: one message, download, decode, infer, draw, encode, upload, publish, complete, the next.

    python inferencer_sequential.py COUNT MODEL_MILLISECONDS pillow|ours

Synchronous clients, everything in turn. `pillow` draws as in most tutorials, over the whole frame; `ours` uses this
project's codecs, so that only the overlap differs. Prints images a second and CPU milliseconds an image.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.storage.blob import BlobServiceClient
from inferencer_worker import EDGE, MASK_EDGE, faked
from PIL import Image, ImageDraw

from fusebus.vision import annotate, decode, encode_jpeg, postprocess, resize_to_model


def pillow(data: bytes, infer: Callable[[np.ndarray], tuple]) -> tuple[bytes, list]:
    """Masks resized to the whole frame and blended there."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    small = np.asarray(image.resize((EDGE, EDGE), Image.Resampling.BILINEAR))
    scores, boxes, masks, _ = (one[0] for one in infer(small[None]))
    found = []
    for number in np.flatnonzero(scores > 0.3):
        inside = Image.fromarray(masks[number]).resize(image.size).point(lambda value: 255 * (value > 127))
        tinted = Image.blend(image, Image.new("RGB", image.size, (0, 214, 201)), 0.28)
        image = Image.composite(tinted, image, inside)
        corners = (boxes[number] * np.array([image.width, image.height] * 2)).tolist()
        ImageDraw.Draw(image).rectangle(corners, outline=(0, 214, 201), width=4)
        found.append({"score": float(scores[number]), "box": corners})
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue(), found


def ours(data: bytes, infer: Callable[[np.ndarray], tuple]) -> tuple[bytes, list]:
    """The same with this project's functions."""
    rgb = decode(data)
    scores, boxes, masks, _ = (one[0] for one in infer(resize_to_model(rgb, EDGE)[None]))
    height, width = rgb.shape[:2]
    found = postprocess(scores, boxes, masks, width, height, mask_size=EDGE)
    return encode_jpeg(annotate(rgb, found)), [{"score": one.score, "box": one.box, "mask": one.mask} for one in found]


def loop(count: int, infer: Callable[[np.ndarray], tuple], work: Callable) -> tuple[float, float]:
    """Seconds and CPU seconds for so many images; the first one, which connects, is not counted."""
    blobs = BlobServiceClient.from_connection_string(os.environ["FUSEBUS_BLOBS_CONNECTION"])
    bus = ServiceBusClient.from_connection_string(os.environ["FUSEBUS_BUS_CONNECTION"])
    with bus, bus.get_subscription_receiver("images", "detect") as receiver, bus.get_topic_sender("results") as sender:
        for number in range(count + 1):
            if number == 1:
                started, cpu = time.perf_counter(), time.process_time()
            (message,) = receiver.receive_messages(max_message_count=1, max_wait_time=10)
            image = json.loads(str(message))
            blob = image["blob"]
            data = blobs.get_blob_client(blob["container"], blob["name"]).download_blob().readall()
            jpeg, found = work(data, infer)
            name = image["upload_id"]
            blobs.get_blob_client("results", f"sequential/{name}.jpg").upload_blob(jpeg, overwrite=True)
            blobs.get_blob_client("results", f"sequential/{name}.json").upload_blob(json.dumps(found), overwrite=True)
            sender.send_messages(ServiceBusMessage(json.dumps({"upload": name, "found": len(found)}), message_id=name))
            receiver.complete_message(message)
        return time.perf_counter() - started, time.process_time() - cpu


def main() -> None:
    """Run, print one line of JSON."""
    count, milliseconds = int(sys.argv[1]), float(sys.argv[2])
    backend = faked(milliseconds, MASK_EDGE, 8)
    seconds, cpu = loop(count, backend.run, {"pillow": pillow, "ours": ours}[sys.argv[3]])
    print(json.dumps({"per_second": count / seconds, "cpu_ms": cpu / count * 1000}))


if __name__ == "__main__":
    main()
