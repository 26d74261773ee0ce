"""The codec in one import: values to bytes and back."""

from fusebus.servicebus.amqp.decoding import decode, decode_exactly, skip
from fusebus.servicebus.amqp.encoding import MAX_DEPTH, encode
from fusebus.servicebus.amqp.types import CodecError

__all__ = ["MAX_DEPTH", "CodecError", "decode", "decode_exactly", "encode", "skip"]
