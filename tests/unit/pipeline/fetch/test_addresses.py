"""Which addresses are asked, how far inside they are, and what of them is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fetch.addresses import Reach, is_plain, reach_of_name, require_url, scrubbed

_HOSTILE = (
    "", " ", "x", "/etc/passwd", "file:///etc/passwd", "FILE:///etc/passwd", "file://localhost/etc/passwd", "file:/x",
    "file:x", "fILe:///proc/self/environ", "ftp://h/x", "ftps://h/x", "sftp://h/x", "gopher://h/x", "dict://h/x",
    "ldap://h/x", "tftp://h/x", "smb://h/x", "jar:http://h/x", "data:text/plain,x", "javascript:x", "unix:///x",
    "http+unix://x/y", "netdoc:///etc/passwd", "view-source:http://h/", "blob:http://h/", "about:blank", "mailto:x@y",
    "//h/x", "http:", "http:/", "http://", "http:///x", "http:x", "http:/h/x", "https://", "http://:80/", "http://@/",
    "http://user@/x", "http://h:0/", "http://h:65536/", "http://h:-1/", "http://h:x/", "http://h:80:80/", "http://[::1",
    "http://::1/", "http://[x]/", "http://h /x", "http://h/ x", "http://h/\tx", "http://h/\nx", "http://h/\rx",
    "http://h\r\nHost: x/", "http://h/\x00", "http://h\\@x/", "http://h/\\..\\x", "\\\\h\\x", "http:\\\\h\\x", " http://h/",
    "http://h/x ", "http://h/" + "x" * 5000, "ht tp://h/", "http\n://h/", "\x01http://h/", "http://h/\x7f",
)  # fmt: skip


@pytest.mark.parametrize("url", _HOSTILE)
def test_what_is_no_address_on_the_web_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address to download from") as caught:
        require_url(url)
    assert caught.value.details
    assert len(caught.value.brief) < 4300


@pytest.mark.parametrize(
    "url",
    ["http://h", "https://h/x.iso", "HTTPS://h/x", "http://u:p@h:8080/x?y#z", "http://[::1]:80/x", "http://h/%20+~"],
)
def test_addresses_on_the_web_are_asked(url: str) -> None:
    assert require_url(url) == url


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.PUBLIC), ("2606:4700::1111", Reach.PUBLIC), ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE), ("172.31.0.1", Reach.PRIVATE), ("192.168.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE), ("fd00::1", Reach.PRIVATE), ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("224.0.0.1", Reach.PRIVATE), ("255.255.255.255", Reach.PRIVATE), ("127.0.0.1", Reach.HOST),
        ("127.255.255.254", Reach.HOST), ("0.0.0.0", Reach.HOST), ("::", Reach.HOST), ("::1", Reach.HOST),  # noqa: S104
        ("169.254.169.254", Reach.HOST), ("fe80::1%eth0", Reach.HOST), ("::ffff:127.0.0.1", Reach.HOST),
        ("64:ff9b::7f00:1", Reach.HOST), ("64:ff9b::808:808", Reach.PUBLIC), ("2002:7f00:1::", Reach.HOST),
    ],
)  # fmt: skip
def test_how_far_inside_an_address_is(address: str, reach: Reach) -> None:
    assert Reach.of(address) is reach


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("mirror.example.org", Reach.PUBLIC), ("localhost", Reach.HOST), ("LOCALHOST", Reach.HOST),
        ("x.localhost", Reach.HOST),
        ("localhost.", Reach.HOST), ("127.1", Reach.HOST), ("2130706433", Reach.HOST), ("0x7f000001", Reach.HOST),
        ("0177.0.0.1", Reach.HOST), ("10.0.0.1", Reach.PRIVATE), ("[::1]", Reach.HOST), ("8.8.8.8", Reach.PUBLIC),
    ],
)  # fmt: skip
def test_how_far_inside_a_name_is(host: str, reach: Reach) -> None:
    assert reach_of_name(f"http://user@{host}:8080/x") is reach


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://h/x.iso", "https://h/x.iso"),
        ("https://user:canary@h:8/x.iso", "https://h:8/x.iso"),
        ("https://h/x.iso?token=canary", "https://h/x.iso?..."),
        ("https://h/x.iso#canary", "https://h/x.iso"),
        ("https://a@canary@h/x", "https://h/x"),
        ("data:canary", "data:..."),
        ("http://[canary", "(an address that cannot be read)"),
    ],
)
def test_secrets_are_taken_out(url: str, told: str) -> None:
    assert scrubbed(url) == told
    assert is_plain(url) == (url == told)


@given(st.text(max_size=200))
def test_any_text_can_be_told(text: str) -> None:
    told = scrubbed(text)
    assert not any(ord(letter) < 32 for letter in told)


@given(st.text(max_size=50, alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_password_is_told(password: str) -> None:
    assert "canary" not in scrubbed(f"https://user:canary{password}@h/?canary#canary")
