"""Events sent to other programs, signed as https://www.standardwebhooks.com says, until they are taken.

Every webhook has its own place in the journal. What it wants is delivered in order, at least once: a message
that is sent again has the same ``webhook-id``. The place survives restarts.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from urllib.parse import urlsplit

import httpx2

from dashboard.live import StoredEvent, stored_events
from dashboard.webhooks.store import Delivery, Webhook, WebhookStore
from farm.errors import InvalidInput
from farm.state import Ledger
from farm.threads import to_its_end

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
#: Of a receiver's answer; the rest is not read.
ANSWER_BYTES = 1024
#: How long to wait after the first failure, the second and so on; the last one repeats.
RETRY_AFTER_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
#: A receiver that failed for so long is not asked any more.
GIVE_UP_S = 3 * 86400.0
POLL_S = 0.5
#: After a failure of the farm's own, such as a full disk.
BEGIN_AGAIN_S = 60.0
MAX_WEBHOOKS = 50
_GONE = 410

#: Cloud machines hand their credentials out at these, beside the link-local ones.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """How one delivery went: a status, or an error where none came."""

    status: int | None
    error: str
    duration_s: float

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def next_delivery(attempts: int, failing_since: float, now: float) -> float | None:
    """When to try again after so many failures in a row, in seconds since the epoch; None: not any more."""
    if now - failing_since >= GIVE_UP_S:
        return None
    return now + RETRY_AFTER_S[min(attempts, len(RETRY_AFTER_S)) - 1]


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature`` (Standard Webhooks, symmetric): ``v1,`` and base64 of HMAC-SHA256."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def check_url(url: str) -> None:
    """
    Raises:
        InvalidInput: no http or https address, or one that nothing may be sent to.
    """
    try:
        parts = urlsplit(url)
        port_is_right = parts.port != 0
    except ValueError:
        raise InvalidInput("url: it cannot be read as an address", param="url") from None
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not printable or not port_is_right:
        raise InvalidInput("url: give an address that begins with https:// or http://", param="url")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidInput("url: leave out user, password and fragment", param="url")
    try:
        refused = refused_address(parts.hostname)
    except ValueError:  # no address: then it is a name, and none that is read as an address
        refused = (
            None if _is_name(parts.hostname) else f"{parts.hostname[:100]} is neither a name nor an address"
        )
    if refused:
        raise InvalidInput(f"url: {refused}", param="url")


def _is_name(host: str) -> bool:
    """Whether a host is a name. One that ends in a number is read as an address, octal (0177.0.0.1) or whole
    (2130706433), by some and refused by others."""
    labels = host.removesuffix(".").split(".")
    return len(host) < 254 and all(map(_LABEL.fullmatch, labels)) and not _NUMBER.fullmatch(labels[-1])


def refused_address(address: str) -> str | None:
    """Why nothing is sent to an IP address, or None. Those of this network are fine: receivers live there.

    Raises:
        ValueError: it is a name, not an address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA:
        return f"{address} is no address for a receiver (link-local, metadata, multicast or unspecified)"
    return None


def message_of(event: StoredEvent) -> bytes:
    """The body that is signed and sent; the same for every attempt."""
    data = {"seq": event.seq, "at": event.at, **json.loads(event.body)}
    return _body(event.type, event.at, data)


def _body(kind: str, at: float, data: object) -> bytes:
    moment = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": moment, "data": data}, separators=(",", ":")).encode()


class Webhooks:
    """Makes, lists and removes webhooks, and delivers to them while ``run`` runs."""

    def __init__(self, store: WebhookStore, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._ledger = ledger
        self._clock = clock

    def create(self, url: str, events: tuple[str, ...], description: str) -> tuple[Webhook, str]:
        """A new webhook for what happens from now on, and its secret, which is not told again.

        Raises:
            InvalidInput: the address is none, or there are too many webhooks.
        """
        check_url(url)
        if len(self.store.all()) >= MAX_WEBHOOKS:
            raise InvalidInput(f"there are {MAX_WEBHOOKS} webhooks, the most there can be; delete one")
        webhook = Webhook(
            id=f"wh_{secrets.token_hex(6)}",
            url=url,
            events=events,
            description=description,
            created_at=self._clock(),
            cursor=self._ledger.last_seq,
        )
        secret = new_secret()
        self.store.add(webhook, secret)
        return webhook, secret

    def enable(self, webhook_id: str) -> Webhook:
        """Deliver again to one that was disabled, from where it stopped."""
        webhook = replace(
            self.store.get(webhook_id), attempts=0, failing_since=None, next_at=None, disabled_because=None
        )
        self.store.save(webhook)
        return webhook

    async def test(self, webhook_id: str) -> Delivery:
        """Send a ``test`` message once, now, whatever else waits."""
        webhook = self.store.get(webhook_id)
        now = self._clock()
        message_id = f"msg_test_{secrets.token_hex(8)}"
        body = _body("test", now, {"webhook_id": webhook_id})
        answer = await self._send(webhook, message_id, body)
        return await self._note(webhook, message_id, "test", None, 1, answer)

    async def run(self) -> None:
        """Deliver until cancelled."""
        serving: dict[str, asyncio.Task[None]] = {}
        #: When deliveries that failed here begin again: not at once, for the receiver may have had them.
        again_at: dict[str, float] = {}
        try:
            while True:
                for webhook_id in [key for key, task in serving.items() if task.done()]:
                    ended = serving.pop(webhook_id)
                    if error := ended.exception():
                        log.error("deliveries to webhook %s begin again", webhook_id, exc_info=error)
                        again_at[webhook_id] = self._clock() + BEGIN_AGAIN_S
                for webhook in self.store.all():
                    due = self._clock() >= again_at.get(webhook.id, 0.0)
                    if due and webhook.disabled_because is None and webhook.id not in serving:
                        serving[webhook.id] = asyncio.ensure_future(self._serve(webhook.id))
                await asyncio.sleep(POLL_S)
        finally:
            for task in serving.values():
                task.cancel()
            await asyncio.gather(*serving.values(), return_exceptions=True)

    async def _serve(self, webhook_id: str) -> None:
        """Deliver one webhook's messages in order, until it is disabled or gone."""
        looked_to = 0
        while (webhook := self.store.find(webhook_id)) and webhook.disabled_because is None:
            newest = self._ledger.last_seq
            after = min(max(webhook.cursor, looked_to), newest)
            event = None if after == newest else await self._next_event(webhook, after, newest)
            if event is None:
                looked_to = newest
                await asyncio.sleep(POLL_S)
            elif (wait_s := (webhook.next_at or 0.0) - self._clock()) > 0:
                await asyncio.sleep(min(wait_s, POLL_S))
            else:
                await self._deliver(webhook, event)

    async def sent_up_to(self, seq: int) -> int:
        """Up to which event, ``seq`` at most, no webhook has anything to be sent."""
        for webhook in self.store.all():
            if webhook.disabled_because is None and webhook.cursor < seq:
                event = await self._next_event(webhook, webhook.cursor, seq)
                seq = seq if event is None else event.seq - 1
        return seq

    async def _next_event(self, webhook: Webhook, after: int, until: int) -> StoredEvent | None:
        read = partial(
            stored_events,
            self._ledger.journal.path,
            after=after,
            until=until,
            types=webhook.events,
            limit=1,
        )
        return next(iter(await asyncio.to_thread(read)), None)

    async def _deliver(self, webhook: Webhook, event: StoredEvent) -> None:
        # The time tells messages apart where a farm began a new journal.
        message_id = f"msg_{webhook.id.removeprefix('wh_')}_{event.seq}_{int(event.at * 1000):x}"
        answer = await self._send(webhook, message_id, message_of(event))
        if self.store.find(webhook.id) is None:
            return
        await self._note(webhook, message_id, event.type, event.seq, webhook.attempts + 1, answer)
        after = after_delivery(webhook, event.seq, answer, self._clock())
        await to_its_end(self.store.save, after)

    async def _send(self, webhook: Webhook, message_id: str, body: bytes) -> Answer:
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": "reelfarm",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.store.secret(webhook.id), message_id, timestamp, body),
        }
        return await _timed(partial(_post, webhook.url, headers, body))

    async def _note(
        self,
        webhook: Webhook,
        message_id: str,
        kind: str,
        seq: int | None,
        attempt: int,
        answer: Answer,
    ) -> Delivery:
        delivery = Delivery(
            message_id=message_id,
            type=kind,
            seq=seq,
            attempt=attempt,
            at=self._clock(),
            status=answer.status,
            error=answer.error,
            duration_s=round(answer.duration_s, 4),
        )
        # Until it is on the disk, which may take its time; the store is not closed under it.
        await to_its_end(self.store.note, webhook.id, delivery)
        return delivery


def after_delivery(webhook: Webhook, seq: int, answer: Answer, now: float) -> Webhook:
    """The webhook after an attempt at the event ``seq``: further on, waiting to try again, or disabled."""
    if answer.taken:
        return replace(webhook, cursor=seq, attempts=0, failing_since=None, next_at=None)
    attempts, since = webhook.attempts + 1, webhook.failing_since or now
    next_at = next_delivery(attempts, since, now)
    disabled = None
    if answer.status == _GONE:
        disabled = "the receiver answered 410, which means that it wants no more"
    elif next_at is None:
        disabled = (
            f"{attempts} attempts failed over {(now - since) / 86400:.0f} days; the last: {answer.error}"
        )
    return replace(
        webhook, attempts=attempts, failing_since=since, next_at=next_at, disabled_because=disabled
    )


async def _timed(post: Callable[[], Awaitable[int]]) -> Answer:
    started = time.perf_counter()
    status, error = None, ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status = await post()
        if not 200 <= status < 300:
            error = f"the receiver answered {status}"
    except TimeoutError:
        error = f"no answer within {TIMEOUT_S:.0f} s"
    # An address that cannot be read, from a time when more was taken, is a failed delivery too.
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, OSError, InvalidInput) as problem:
        error = str(problem) or type(problem).__name__
    return Answer(status, error[:500], time.perf_counter() - started)


@cache
def _trusted() -> ssl.SSLContext:
    """Whose word is believed of a receiver. Reads some hundred certificates: call it in a thread."""
    return httpx2.create_ssl_context(trust_env=False)


async def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    """Send to the addresses the name has now, each looked at first: a name may be turned to another one."""
    parts = httpx2.URL(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        refused = refused_address(address)
        if refused:
            raise InvalidInput(refused, param="url")
    headers = {**headers, "host": parts.netloc.decode("ascii")}
    trusted = await asyncio.to_thread(_trusted)
    async with httpx2.AsyncClient(
        verify=trusted, trust_env=False, follow_redirects=False, timeout=TIMEOUT_S
    ) as http:
        for number, address in enumerate(addresses, 1):
            request = http.build_request(
                "POST",
                parts.copy_with(host=address),
                content=body,
                headers=headers,
                extensions={"sni_hostname": parts.host},
            )
            try:
                answer = await http.send(request, stream=True)
            except httpx2.ConnectError:
                if number == len(addresses):
                    raise
                continue
            try:
                read = 0
                async for chunk in answer.aiter_raw():
                    read += len(chunk)
                    if read >= ANSWER_BYTES:
                        break
                return answer.status_code
            finally:
                await answer.aclose()
    raise OSError("the name has no address")
