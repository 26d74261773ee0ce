"""The broker's certificate authority: made once, kept private, renewed where it must be."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from fusebus.servicebus import ca

HOSTS = ("localhost", "127.0.0.1")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_is_made_once_and_kept(tmp_path: Path) -> None:
    first = ca.ensure_authority(tmp_path / "new", HOSTS)
    before = {path: path.read_bytes() for path in (first.ca_path, first.certificate_path, first.key_path)}
    assert ca.ensure_authority(tmp_path / "new", HOSTS) == first
    assert {path: path.read_bytes() for path in before} == before
    assert ca.kept_key(tmp_path / "new") == ca.kept_key(tmp_path / "new")


def test_private_files_are_their_owners_only(tmp_path: Path) -> None:
    ca.ensure_authority(tmp_path, HOSTS)
    ca.kept_key(tmp_path)
    for name in ("ca.key", "server.key", "sas.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_the_server_certificate_is_signed_by_the_authority_and_names_its_hosts(tmp_path: Path) -> None:
    authority = ca.ensure_authority(tmp_path, HOSTS)
    server = certificate(authority.certificate_path)
    server.verify_directly_issued_by(certificate(authority.ca_path))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert authority.server_context().minimum_version == ssl.TLSVersion.TLSv1_2


def test_another_host_gets_a_new_server_certificate_from_the_same_authority(tmp_path: Path) -> None:
    before = ca.ensure_authority(tmp_path, HOSTS)
    old, root = before.certificate_path.read_bytes(), before.ca_path.read_bytes()
    ca.ensure_authority(tmp_path, (*HOSTS, "broker.test"))
    assert before.certificate_path.read_bytes() != old
    assert before.ca_path.read_bytes() == root


def test_a_certificate_about_to_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "SERVER_DAYS", ca.RENEW_DAYS - 1)
    old = ca.ensure_authority(tmp_path, HOSTS).certificate_path.read_bytes()
    monkeypatch.undo()
    assert ca.ensure_authority(tmp_path, HOSTS).certificate_path.read_bytes() != old


def test_brokers_that_start_together_share_one_authority(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from fusebus.servicebus import ca; d = pathlib.Path(sys.argv[1]);"
        "a = ca.ensure_authority(d, ('localhost',)); a.server_context(); print(ca.kept_key(d))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    keys = {process.communicate(timeout=30)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(keys) == 1
    certificate(tmp_path / "server.pem").verify_directly_issued_by(certificate(tmp_path / "ca.pem"))
