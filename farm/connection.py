"""What a client of a farm sends and hears: one connection, and errors as they are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from farm.addresses import split_host_port, url_of
from farm.errors import ERRORS, KEY_PARAM, CannotRun, FarmError, InvalidInput, NotAllowed

CONNECT_S = 5.0
ANSWER_S = 30.0
#: An upload is answered after its files were checked, which takes as long as a video is, and a model's files
#: may be fetched for it.
UPLOAD_ANSWER_S = 24 * 3600.0
_PATIENT = httpx2.Timeout(UPLOAD_ANSWER_S, connect=CONNECT_S)


class Connection:
    """Calls under a farm's ``/api/v1``.

    Raises, in every method:
        CannotRun: no farm answers at the URL.
        NotAllowed: the farm wants another token.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = _url(url)
        headers = bearer(token) if token else {}
        # No proxy of the environment: a farm is near, and its token is not for others.
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        # The authorities take 30 ms to read: only where there is a certificate to check.
        verify = urlsplit(self.url).scheme != "http"
        self._http = httpx2.Client(headers=headers, timeout=timeout, trust_env=False, verify=verify)

    def close(self) -> None:
        self._http.close()

    def _send(
        self,
        where: str,
        paths: Sequence[tuple[str, Path]],
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
    ) -> dict[str, Any]:
        """Send a form with files, each under the name of its field."""
        with ExitStack() as stack:
            try:
                files = [
                    (field, (_text(path.name), stack.enter_context(path.open("rb")))) for field, path in paths
                ]
            except OSError as error:
                raise InvalidInput(
                    f"{error.filename} cannot be read ({error.strerror})", param="inputs"
                ) from error
            return self._object(
                method,
                where,
                data=dict(form or {}),
                files=files,
                headers=dict(headers or {}),
                timeout=_PATIENT,
            )

    def _send_json(self, where: str, body: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send what is JSON already, and wait as for files: a model's may have to come first."""
        as_json = {"Content-Type": "application/json", **(headers or {})}
        return self._object("POST", where, content=body, headers=as_json, timeout=_PATIENT)

    def _object(self, method: str, where: str, **how: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._call(method, where, **how)
        return found

    def _call(self, method: str, where: str, **how: Any) -> Any:
        with self._reaching():
            answer = self._http.request(method, self._address(where), **how)
        self._check(answer)
        if answer.status_code == 204:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise self._not_a_farm(answer) from error

    def _address(self, where: str) -> str:
        return f"{self.url}/api/v1/{where}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._silent() from error
        except httpx2.TransportError as error:
            raise CannotRun(f"the farm at {self.url} broke off ({error}); try again") from error

    def _silent(self) -> CannotRun:
        return CannotRun(f"no farm answers at {self.url}; start one with `farm up`")

    def _check(self, answer: httpx2.Response) -> None:
        """Raise what the farm refused."""
        if answer.is_success:
            return
        with suppress(ValueError, KeyError, TypeError):
            error = json.loads(answer.read())["error"]
            if error["param"] == KEY_PARAM:
                raise self._wants_key()
            raise ERRORS.get(error["code"], FarmError)(error["message"], param=error["param"])
        raise self._not_a_farm(answer)

    def _wants_key(self) -> NotAllowed:
        made = "`farm keys create NAME --scope submit` makes one where the farm is up"
        if "Authorization" in self._http.headers:
            return NotAllowed(
                f"the farm at {self.url} does not know this key, or it has ended; give another: {made}"
            )
        ways = "with --token (key= in Python) or in REELFARM_TOKEN"
        return NotAllowed(f"the farm at {self.url} wants a key; give one {ways}: {made}")

    def _not_a_farm(self, answer: httpx2.Response) -> CannotRun:
        return CannotRun(f"{self.url} answered {answer.status_code}, not as a farm does; check the address")


def _text(name: str) -> str:
    """A file's name as text: on a disk it may be any bytes."""
    return os.fsencode(name).decode(errors="replace")


def bearer(token: str) -> dict[str, str]:
    if not token.isascii() or not token.isprintable():
        raise NotAllowed("the token holds characters that no token has; copy it again")
    return {"Authorization": f"Bearer {token}"}


def _url(address: str) -> str:
    """``http://10.0.0.5:8470/``, ``https://farm.example.org`` or ``10.0.0.5:8470`` -> URL."""
    with suppress(ValueError):
        return url_of(*split_host_port(address))
    try:
        parsed = httpx2.URL(address)
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput(
            f"url is {address!r}, expected one such as http://192.168.1.10:8470, or its HOST:PORT",
            param="url",
        )
    return address.rstrip("/")
