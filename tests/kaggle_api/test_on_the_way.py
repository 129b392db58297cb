"""Proxies and certificates between here and Kaggle: what fails there is told at once, with the variable to set."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme

from tests.doubles.kaggle import faulty_kaggle
from tests.support import SLUG, clean_environment, error_line, here

pytestmark = pytest.mark.usefixtures("quick_client")
ADDRESS = "is not the address of a proxy, which is like http://HOST:PORT"
PYSOCKS = "needs a package that is not installed: pip install pysocks"


def usage(cwd: Path, environ: dict[str, str]) -> str:
    """The error of a download, after one try, which shows no password."""
    result = here("download", "--competition", SLUG, cwd=cwd, environ=environ)
    assert "trying again" not in result.stderr and "hunter" not in result.stderr
    return error_line(result, 2).removeprefix("error: ")


def environment(**proxies: str) -> dict[str, str]:
    others = {name: value for name, value in clean_environment().items() if not name.lower().endswith("_proxy")}
    return {**others, "KAGGLE_USERNAME": "u", "KAGGLE_KEY": "0123456789abcdef", **proxies}


@pytest.mark.parametrize(
    ("name", "proxy", "says"),
    [
        ("HTTPS_PROXY", "socks5://u:hunter2@127.0.0.1:9", f"the proxy in HTTPS_PROXY (127.0.0.1:9) {PYSOCKS}"),
        ("all_proxy", "socks5h://127.0.0.1:9", f"the proxy in all_proxy (socks5h://127.0.0.1:9) {PYSOCKS}"),
        ("https_proxy", "ftp://127.0.0.1:9", f"https_proxy (ftp://127.0.0.1:9) {ADDRESS}"),
        ("ALL_PROXY", "http://127.0.0.1:port", f"ALL_PROXY (http://127.0.0.1:port) {ADDRESS}"),
        ("HTTPS_PROXY", "http://", f"HTTPS_PROXY (http://) {ADDRESS}"),
        ("HTTPS_PROXY", "http://u:hunter/2@127.0.0.1:9", f"HTTPS_PROXY (127.0.0.1:9) {ADDRESS}"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(tmp_path: Path, name: str, proxy: str, says: str) -> None:
    if "socks" in proxy and find_spec("socks"):
        pytest.skip("PySocks is installed")
    assert usage(tmp_path, environment(**{name: proxy})) == says


@pytest.fixture
def locked() -> Iterator[str]:
    """A proxy that wants a password."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ("http", "wants a user and a password: http://USER:PASSWORD@HOST:PORT"),
        ("https", "is reached by http://, not https://"),
    ],
)
def test_a_proxy_that_answers_otherwise_is_named(tmp_path: Path, locked: str, scheme: str, says: str) -> None:
    line = usage(tmp_path, environment(HTTPS_PROXY=f"{scheme}://u:hunter2@{locked}"))
    assert line == f"the proxy in HTTPS_PROXY ({locked}) {says}"


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        (None, "behind a company's proxy, name the file of its CA in REQUESTS_CA_BUNDLE"),
        (datetime(2019, 1, 1), "(certificate has expired): is this machine's clock right?  It says 20"),
        (datetime(2095, 1, 1), "(certificate is not yet valid): is this machine's clock right?  It says 20"),
    ],
)
def test_a_certificate_that_is_not_accepted_names_the_cure(tmp_path: Path, begins: datetime | None, says: str) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ends = begins and begins + timedelta(days=365)
    authority.issue_cert("api.kaggle.com", not_before=begins, not_after=ends).configure_cert(tls)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/x").touch()
    with faulty_kaggle(tmp_path / "source", tmp_path / "state", slug=SLUG, tls=tls) as kaggle:
        trust = {"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")} if begins else {}
        assert says in usage(tmp_path, {**environment(), **kaggle.environment, **trust})
