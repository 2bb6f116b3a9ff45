"""Send one request to a web server; what goes wrong becomes one line, and one word on whether asking again may help."""

from __future__ import annotations

import http
import http.client
import os
import re
import socket
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
import urllib3.exceptions

_CHUNK = 1 << 16
_AGENT = "pytest-kvm"
_LENGTH = re.compile("[0-9]{1,18}")
_NO_TRUST = (
    "if a proxy or mirror of yours signs with a CA of its own, name that CA's file with REQUESTS_CA_BUNDLE or"
    " SSL_CERT_FILE"
)


class RequestFailed(Exception):
    """A server did not give what was asked for; the text says which address, and why.

    ``transient``: it may do so when asked again; ``attempts`` counts how often it was. ``status`` is its answer's, None
    if there was none; ``hint`` is the way out, where there is a special one.
    """

    def __init__(
        self, url: str, what: str, *, transient: bool = False, status: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(f"{shown(url)} {what}")
        self.attempts = 1
        self.transient = transient
        self.status = status
        self.hint = hint

    def __str__(self) -> str:
        return f"{super().__str__()}{f' ({self.attempts} attempts)' if self.attempts > 1 else ''}"


class Answer:
    """A server's answer, while the connection is open.

    ``status`` is 200 or 206, ``length`` that of the body in bytes (None: unknown).
    """

    def __init__(self, url: str, response: requests.Response, silence: float) -> None:
        self._url = url
        self._response = response
        self._silence = silence
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        announced = response.headers.get("Content-Length", "")
        self.length = int(announced) if _LENGTH.fullmatch(announced) else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces, as it was sent. Raises RequestFailed."""
        try:
            # Never decoded: servers declare a compressed image to be "Content-Encoding: gzip".
            yield from self._response.raw.stream(_CHUNK, decode_content=False)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _failure(self._url, error, self._silence, self.length) from error


@contextmanager
def ask(url: str, *, headers: Mapping[str, str], silence: float) -> Iterator[Answer]:
    """Yield the answer to a GET; the connection is closed at the end of the block.

    Redirects are followed, but not from https to http. Proxies come from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, CAs
    from REQUESTS_CA_BUNDLE, SSL_CERT_FILE or the host. Raises RequestFailed for anything but success, and after
    ``silence`` seconds without a word.
    """
    with _Session() as session:
        session.headers.update({"User-Agent": _AGENT, "Accept-Encoding": "identity"})
        session.verify = _authorities()
        try:
            response = session.get(url, headers=headers, stream=True, timeout=silence)
        except _Downgrade as error:
            raise RequestFailed(
                url, f"cannot be fetched: it redirects to {shown(str(error))}, without https"
            ) from error
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            raise _failure(url, error, silence, None) from error
        with response:
            status = response.status_code
            if status not in {http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT}:
                # In the standard's words: the server's own could be anything.
                reason = f"cannot be fetched: {status} {http.client.responses.get(status, '')}".rstrip()
                raise RequestFailed(url, reason, transient=status >= 500, status=status)
            yield Answer(url, response, silence)


def shown(url: str) -> str:
    """Return an address as it may be shown: without user and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _authorities() -> str | bool:
    """Return where the host's CAs are, among which may be its company's; True stands for those of certifi.

    requests prefers REQUESTS_CA_BUNDLE by itself; SSL_CERT_FILE and SSL_CERT_DIR replace the host's own places here.
    """
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and paths.capath:
        with os.scandir(paths.capath) as entries:
            return paths.capath if any(entries) else True
    return paths.cafile or True


class _Downgrade(Exception):
    """An https address redirects to one without; the text is that one."""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and urllib.parse.urlsplit(resp.url).scheme == "https":
            place = urllib.parse.urljoin(resp.url, target)
            if urllib.parse.urlsplit(place).scheme != "https":
                resp.close()
                raise _Downgrade(place)
        return target


def _failure(url: str, error: Exception, silence: float, length: int | None) -> RequestFailed:
    """Return what an error of requests, of urllib3 or of the system means; theirs nest, and show objects' addresses."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"cannot be fetched: its certificate is not trusted ({cause.verify_message})"
            return RequestFailed(url, reason, hint=_NO_TRUST)
        # urllib3 calls a connection that was refused a timeout, too (NewConnectionError).
        if isinstance(cause, (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError)):
            return RequestFailed(url, f"cannot be fetched: the server was silent for {silence:g} s", transient=True)
        if isinstance(cause, http.client.IncompleteRead):
            return _ended(url, length)
        if isinstance(cause, http.client.RemoteDisconnected):
            reason = "cannot be fetched: the server closed the connection without an answer"
            return RequestFailed(url, reason, transient=True)
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    reason = reasons[-1] if reasons else " ".join(str(causes[-1]).split())
    through = "its proxy: " if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes) else ""
    # A name that does not exist will not come to exist, nor an address become well-formed.
    unknown = any(isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN for cause in causes)
    transient = isinstance(error, (requests.ConnectionError, urllib3.exceptions.HTTPError)) and not unknown
    return RequestFailed(url, f"cannot be fetched: {through}{reason}", transient=transient)


def _ended(url: str, length: int | None) -> RequestFailed:
    whole = f"all of its {length} bytes were" if length is not None else "the end was"
    return RequestFailed(url, f"cannot be fetched: the connection was closed before {whole} received", transient=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those inside it, the outermost first."""
    yield error
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
