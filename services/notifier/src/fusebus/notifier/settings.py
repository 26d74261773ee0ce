"""The notifier's settings, read once at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, ConsumerSettings
from fusebus.host import Secret
from fusebus.ledger import LedgerSettings

Address = Annotated[
    str, Meta(pattern=r"^[^\s@<>,;:\"\\()\[\]]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z", max_length=254)
]
"""An e-mail address in its plain form: no display name, no comment, nothing that could end a header."""


class SmtpSettings(Struct, frozen=True, kw_only=True):
    """Section `smtp`: the relay that takes the mail."""

    host: Annotated[str, Meta(description="The relay's name.")] = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535, description="587 submission, 465 TLS from the first byte.")] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        Meta(description="How the connection is encrypted; `none` sends no credentials and is for a relay next door."),
    ] = "starttls"
    username: Annotated[str, Meta(description="Empty: no login.")] = ""
    password: Annotated[Secret, Meta(description="Sent over TLS only.")] = Secret()
    ca_file: Annotated[str, Meta(description="PEM file of the relay's own authority; empty: the system's.")] = ""


class TeamsSettings(Struct, frozen=True, kw_only=True):
    """Section `teams`: channels of Microsoft Teams that get cards."""

    webhook: Annotated[
        Secret,
        Meta(
            description="Address of a Teams workflow (When a Teams webhook request is received), https; "
            "gets a card for each run and each alert; empty: no cards."
        ),
    ] = Secret()
    alerts_webhook: Annotated[
        Secret, Meta(description="Where alerts go in place of `webhook`: operators and reviewers apart.")
    ] = Secret()
    timeout_seconds: Annotated[
        float,
        Meta(gt=0, le=120, description="Seconds a post may take, half of them for connecting."),
    ] = 20.0
    patience_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds after a run's closing, or an alert's cause, in which a webhook that does not answer, "
            "answers 5xx or asks for a pause is tried again; then runs end without their card.",
        ),
    ] = 3600.0


class NotifierSettings(Struct, frozen=True, kw_only=True):
    """Section `notifier`."""

    bus: BusSettings
    consumer: ConsumerSettings
    blobs: BlobSettings
    ledger: LedgerSettings
    smtp: SmtpSettings
    teams: TeamsSettings = TeamsSettings()

    run_quiet_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds without an upload after which a run closes; a later upload opens a new one."),
    ] = 600.0
    recheck_seconds: Annotated[
        float,
        Meta(gt=0, le=120, description="Seconds between looks at a closed run whose finals or mail are outstanding."),
    ] = 30.0
    dead_letter_interval_seconds: Annotated[
        float, Meta(gt=0, description="Seconds between looks at the dead-letter queues while the notifier is awake.")
    ] = 60.0
    ledger_retry_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds before a message comes back whose ledger write failed; doubles up to 300."),
    ] = 5.0

    receipt_patience_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds after a run's last final in which a refused receipt is tried again."),
    ] = 3600.0

    mailer: Annotated[
        Literal["folder", "smtp"], Meta(description="Where mail goes: .eml files in `mail_folder`, or the SMTP relay.")
    ] = "folder"
    mail_folder: Annotated[Path, Meta(description="Folder for .eml files; made when missing.")] = Path("out/mail")
    sender: Annotated[Address, Meta(description="From; its domain also names the Message-ID.")] = "fusebus@localhost"
    recipients: Annotated[
        tuple[Address, ...],
        Meta(description="To, of every summary and alert; empty: no mail is sent, runs complete without."),
    ] = ("operations@localhost",)
    mail_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0, le=120, description="Seconds a send may take; another process waits this long before it repeats one."
        ),
    ] = 30.0
    mail_patience_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds after closing in which an unreachable relay is tried again, then given up."),
    ] = 86_400.0
    mail_pictures: Annotated[int, Meta(ge=0, le=12, description="Most pictures inside a mail.")] = 6

    report_pictures: Annotated[
        int, Meta(ge=0, le=2000, description="Most pictures inside a report, about 25 kB each; the rest are linked.")
    ] = 400
    report_address: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s\"<>]+/)?\Z",
            description="Web address of the results, ending in /; empty: mails name the report's place without a link.",
        ),
    ] = ""
