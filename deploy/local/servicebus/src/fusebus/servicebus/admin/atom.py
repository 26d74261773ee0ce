"""ATOM documents as the service writes them: default namespaces only, because the JavaScript SDK knows no prefixes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from fusebus.servicebus.admin.durations import format_instant
from fusebus.servicebus.admin.reader import read_xml
from fusebus.servicebus.engine import InvalidArgument

ATOM: Final = "http://www.w3.org/2005/Atom"
SERVICE_BUS: Final = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
COUNTS: Final = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA: Final = "http://www.w3.org/2001/XMLSchema"
_UNWRITABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROLOG: Final = '<?xml version="1.0" encoding="utf-8"?>'


@dataclass(frozen=True, slots=True)
class Entry:
    """One entity in a feed; `path` is its address below the namespace, `content` its description as XML."""

    path: str
    title: str
    created_at: float
    updated_at: float
    content: str

    @property
    def etag(self) -> str:
        return f'"{int(self.updated_at * 1e6)}"'


def element(name: str, value: object) -> str:
    """Booleans and numbers as XML schema writes them; nothing at all for None."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escaped(text)}</{name}>"


def escaped(text: str) -> str:
    """As element text; what XML 1.0 has no way to write becomes U+FFFD."""
    return escape(_UNWRITABLE.sub("\ufffd", text))


def description(name: str, *children: str) -> str:
    return f'<{name} xmlns="{SERVICE_BUS}" xmlns:i="{INSTANCE}">{"".join(children)}</{name}>'


def entry_document(entry: Entry, base: str) -> str:
    """`base` is the address of the namespace, such as `https://localhost:5672`."""
    return _PROLOG + _entry(entry, base, f' xmlns="{ATOM}"')


def feed_document(title: str, entries: Sequence[Entry], base: str, self_url: str, next_url: str | None) -> str:
    """A page; its second link, if there is one, leads to the next."""
    links = f'<link rel="self" href={quoteattr(self_url)}/>'
    if next_url:
        links += f'<link rel="next" href={quoteattr(next_url)}/>'
    updated = format_instant(max((entry.updated_at for entry in entries), default=0.0))
    return (
        f'{_PROLOG}<feed xmlns="{ATOM}"><title type="text">{escaped(title)}</title>{element("id", self_url)}'
        f"{element('updated', updated)}{links}{''.join(_entry(entry, base, '') for entry in entries)}</feed>"
    )


def error_document(code: int, detail: str) -> str:
    return f"{_PROLOG}<Error>{element('Code', code)}{element('Detail', detail)}</Error>"


def _entry(entry: Entry, base: str, attributes: str) -> str:
    url = f"{base}/{quote(entry.path, safe='/$')}"
    return (
        f"<entry{attributes}>{element('id', url)}"
        f'<title type="text">{escaped(entry.title)}</title>'
        f"{element('published', format_instant(entry.created_at))}"
        f"{element('updated', format_instant(entry.updated_at))}"
        f'<link rel="self" href={quoteattr(url)}/>'
        f'<content type="application/xml">{entry.content}</content></entry>'
    )


def parse_description(body: bytes) -> Element:
    """The description element inside an entry; raises InvalidArgument."""
    content = read_xml(body).find(f"{{{ATOM}}}content")
    if content is None or len(content) != 1:
        raise InvalidArgument("The request body is not an ATOM entry with one description.")
    return content[0]


def tag(name: str) -> str:
    return f"{{{SERVICE_BUS}}}{name}"


def text_of(parent: Element, name: str) -> str | None:
    """The text of a child, as it is; None if it is absent or blank."""
    text = parent.findtext(tag(name)) or ""
    return text if text.strip() else None


def type_of(found: Element) -> str:
    """The `xsi:type` without its prefix; empty if there is none."""
    return found.get(f"{{{INSTANCE}}}type", "").rpartition(":")[2]
