"""Reads XML that nobody vouches for: no document types, hence no entities, and bounds on size, depth and number."""

from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fusebus.servicebus.engine import InvalidArgument

MAX_BODY_BYTES: Final = 256 * 1024  # a description with all its rules and metadata takes a tenth of that
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 10_000


def read_xml(body: bytes) -> Element:
    """The root element, names as `{namespace}name`; comments are skipped. Raises InvalidArgument."""
    if len(body) > MAX_BODY_BYTES:
        raise InvalidArgument(f"The request body is larger than {MAX_BODY_BYTES} bytes.")
    reader = _Reader()
    # UTF-8 whatever the document says: other encodings would be a way around whoever looks at the bytes.
    parser = expat.ParserCreate("utf-8", "}")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.builder.data
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as error:
        raise InvalidArgument(f"The request body is not XML: {error}.") from error
    return reader.builder.close()


def _refuse_document_type(*_: object) -> None:
    raise InvalidArgument("The request body must not have a document type.")


class _Reader:
    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = 0
        self._elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise InvalidArgument(f"The request body has more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements.")
        self.builder.start(_qualified(name), {_qualified(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(_qualified(name))


def _qualified(name: str) -> str:
    return "{" + name if "}" in name else name
