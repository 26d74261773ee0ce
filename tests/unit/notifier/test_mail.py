from email.message import EmailMessage

import msgspec
import pytest

from fusebus.notifier.mail import MOST_PICTURE_BYTES, Envelope, message_id, summary_mail
from fusebus.notifier.mailers.folder import FolderMailer, file_name
from fusebus.notifier.summary import Picture, Rejection, Summary

ENVELOPE = Envelope(sender="fusebus@example.com", recipients=("ops@example.com", "review@example.com"))
BAD = "a\r\nBcc: everybody@example.com\r\n\r\n<script>\u202e.jpg"


@pytest.fixture
def summary(world, make):
    pictures = tuple(
        Picture(
            upload_id=f"u{number}",
            name=BAD if number == 0 else f"site/{number}.jpg",
            analysis_id=f"a{number}",
            final="analysed",
            detections=number,
            best_score=0.9,
            model="demo-1",
            annotated="annotated/a.jpg",
            result="json/a.json",
        )
        for number in range(3)
    )
    return Summary(
        run_id=make.run_id,
        supplier="northgrid",
        opened_at=world.now,
        closed_at=world.now,
        pictures=pictures,
        rejected=(Rejection(upload_id="r", name=BAD, reason="damaged", explanation="Please\r\nexport it again."),),
        duplicates=(),
        failed=(),
    )


def test_a_mail_has_text_html_and_inline_pictures(summary, world, read_mail):
    mail = read_mail(
        summary_mail(summary, {"u0": b"\xff\xd8one", "u1": b"\xff\xd8two"}, ENVELOPE, world.now).as_bytes()
    )
    assert mail["Subject"] == "4 photos from northgrid: 3 analysed, 1 rejected"
    assert mail["To"] == "ops@example.com, review@example.com"
    assert mail.get_content_type() == "multipart/alternative"
    html = mail.get_body(("html",)).get_content()
    images = [part for part in mail.walk() if part.get_content_maintype() == "image"]
    assert [image.get_content() for image in images] == [b"\xff\xd8one", b"\xff\xd8two"]
    for image in images:
        assert f"cid:{image['Content-ID'].strip('<>')}" in html
        assert image.get_filename().startswith("picture-")
        assert image.get_content_disposition() == "inline"
    text = mail.get_body(("plain",)).get_content()
    assert "3  Analysed" in text
    assert f"results/report/{summary.run_id}/index.html" in text


def test_hostile_names_reach_neither_headers_nor_markup(summary, world, read_mail):
    summary = msgspec.structs.replace(summary, supplier="evil\r\nBcc: x@example.com\r\n" + "é" * 500)
    mail = read_mail(summary_mail(summary, {"u0": b"jpeg"}, ENVELOPE, world.now).as_bytes())
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("4 photos from evil Bcc: x@example.com é")
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in html
    text = mail.get_body(("plain",)).get_content()
    assert "\nBcc" not in text
    assert "<script>" in text  # text needs no escapes


def test_the_message_id_is_the_same_in_each_repeat_and_of_each_run_another(summary, world):
    first = summary_mail(summary, {}, ENVELOPE, world.now)
    world.pass_time(60)
    assert first["Message-ID"] == summary_mail(summary, {}, ENVELOPE, world.now)["Message-ID"]
    assert first["Message-ID"].endswith("@example.com>")
    assert message_id("run-1", ENVELOPE) != message_id("run-2", ENVELOPE)
    assert message_id("run/1", ENVELOPE) != message_id("run 1", ENVELOPE)


def test_pictures_stop_where_a_mail_would_become_too_large(summary, world):
    big = b"x" * (MOST_PICTURE_BYTES // 2)
    mail = summary_mail(summary, {"u0": big, "u1": big, "u2": b"x"}, ENVELOPE, world.now)
    assert sum(part.get_content_maintype() == "image" for part in mail.walk()) == 2


def test_links_appear_only_where_the_results_have_a_web_address(summary, world):
    there = msgspec.structs.replace(ENVELOPE, report_address="https://fusebus.example.com/results/")
    html = summary_mail(summary, {}, there, world.now).get_body(("html",)).get_content()
    assert f'href="https://fusebus.example.com/results/report/{summary.run_id}/index.html"' in html
    assert "href" not in summary_mail(summary, {}, ENVELOPE, world.now).get_body(("html",)).get_content()


async def test_a_repeat_overwrites_its_file_and_leaves_no_half_ones(summary, world, tmp_path, read_mail):
    mailer = FolderMailer(tmp_path / "mail")
    await mailer.send(summary_mail(summary, {}, ENVELOPE, world.now))
    await mailer.send(summary_mail(summary, {}, ENVELOPE, world.now))
    [file] = (tmp_path / "mail").iterdir()
    assert file.name.startswith(f"run-{summary.run_id}.")
    assert file.suffix == ".eml"
    assert read_mail(file.read_bytes())["Subject"].startswith("4 photos")


@pytest.mark.parametrize(
    ("message_id", "name"),
    [
        ("<run-1.ab@host>", "run-1.ab.eml"),
        ("<../../etc/passwd@host>", "etc-passwd.eml"),
        ("<.hidden@host>", "hidden.eml"),
    ],
)
def test_a_mails_file_name_is_harmless(message_id, name):
    mail = EmailMessage()
    mail["Message-ID"] = message_id
    assert file_name(mail) == name
