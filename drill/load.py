"""The clients: threads that place orders as the documentation says, and keep what they were told."""

from __future__ import annotations

import queue
import threading
import time
from random import Random

import requests

from drill.api import Answer, Api, Key, to_bytes
from drill.plan import Plan
from drill.workload import RESPELT, PlannedRequest, Record

_MOST_TRIES = 60
# What a wrong request may be told, by its kind.
_REFUSALS = {
    "bad_address": (422, "destination_address"),
    "no_memo": (422, "destination_memo"),
    "too_small": (422, "amount"),
    "unknown_field": (422, "destination_tag"),
    "bad_signature": (401, None),
    "conflict": (409, None),
    RESPELT: (422, "quote_id"),
}
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Crowd:
    """`plan.threads` clients that take wants as their time comes. A thread that is kept waiting leaves the next wants to
    the others, so that a slow answer does not become a pause of everybody."""

    def __init__(
        self, plan: Plan, base_url: str, keys: dict[tuple[int, int], Key], wants: list[PlannedRequest]
    ) -> None:
        self._plan, self._base_url, self._keys = plan, base_url, keys
        self._queue: queue.SimpleQueue[PlannedRequest] = queue.SimpleQueue()
        for want in wants:
            self._queue.put(want)
        self._lock = threading.Lock()
        self.records: list[Record] = []
        self.began = 0.0
        self.give_up_at = 0.0
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(plan.threads)]

    def start(self, give_up_at: float) -> None:
        """`give_up_at`: on the monotonic clock."""
        self.began, self.give_up_at = time.monotonic(), give_up_at
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def snapshot(self) -> list[Record]:
        with self._lock:
            return list(self.records)

    def wait_for(self, want: PlannedRequest) -> Record | None:
        """Until the order that a wrong request comes after was accepted; not for ever."""
        until = min(self.give_up_at, time.monotonic() + 30)
        while time.monotonic() < until:
            for record in self.snapshot():
                if record.accepted and (record.want.client, record.want.id) == (want.client, want.after):
                    return record
            time.sleep(0.5)
        return None

    def _work(self, number: int) -> None:
        rng = self._plan.dice(f"client {number}")
        apis: dict[tuple[int, int], Api] = {}
        while time.monotonic() < self.give_up_at:
            try:
                want = self._queue.get_nowait()
            except queue.Empty:
                return
            time.sleep(max(0.0, self.began + want.at - time.monotonic()))
            who = (want.client, want.key)
            if who not in apis:
                apis[who] = Api(self._base_url, self._keys[who])
            record = Record(want, dict(want.body), first_at=time.time())
            with self._lock:
                self.records.append(record)
            try:
                _Errand(self, record, apis[who], rng).run()
            except Exception as error:
                record.oddities.append(f"the drill's client broke: {type(error).__name__} {error}")
                record.gave_up = True


class _Errand:
    """One want, to its end."""

    def __init__(self, crowd: Crowd, record: Record, api: Api, rng: Random) -> None:
        self._crowd, self._record, self._api, self._rng = crowd, record, api, rng

    def run(self) -> None:
        want = self._record.want
        if want.kind == "quoted" and not self._quoted():
            return
        if want.after is not None:
            before = self._crowd.wait_for(want)
            if before is None:
                self._record.gave_up = True
                return
            if want.kind == RESPELT:
                self._record.body["quote_id"] = _respelt(before.body["quote_id"])
        answer = self._placed()
        if answer is None:
            self._record.gave_up = True
            return
        if not want.right:
            self._must_be_refused(answer)
        elif answer.status == 202 and self._rng.random() < 0.4:
            # Documented for 202: "wait for the webhook, or send the same request again".
            self._pause(self._rng.uniform(0.5, 3.0))
            self._placed()

    def _quoted(self) -> bool:
        """Ask for a quote and put it into the request."""
        body = {name: self._record.body[name] for name in ("from", "to", "amount", "rate_mode")}
        for _ in range(_MOST_TRIES):
            answer = self._call("/v1/quotes", to_bytes(body))
            if answer is not None and answer.status == 200:
                self._record.body["quote_id"] = answer.data["quote_id"]
                self._record.promised.append(answer.data["amount_to_get"])
                return True
            if answer is not None and answer.retry != "same_request":
                self._record.refused = answer.code
                return False
            if not self._pause(2.0 if answer is None else answer.pause or 2.0):
                break
        self._record.gave_up = True
        return False

    def _placed(self) -> Answer | None:
        """Send the request until it is answered for good; None when time was up first."""
        record = self._record
        body, forged = to_bytes(record.body), record.want.kind == "bad_signature"
        for _ in range(_MOST_TRIES):
            answer = self._call("/v1/orders", body, forged=forged)
            if answer is None:
                # Nobody knows what became of it: the same again finds the order, or makes it.
                record.silences += 1
                pause = self._rng.uniform(0.5, 1.5)
            else:
                self._note(answer)
                if answer.status in (200, 201, 202):
                    record.accepted = True
                    record.accepted_at = record.accepted_at or time.time()
                    return answer
                if answer.retry != "same_request":
                    record.refused = answer.code
                    return answer
                pause = answer.pause or 2.0
            if not self._pause(pause):
                break
        return None

    def _note(self, answer: Answer) -> None:
        record = self._record
        record.answers.append((time.time(), answer.status, answer.code))
        named = answer.data.get("id") or (answer.details or {}).get("order_id")
        if named:
            record.order_ids.add(str(named))
        deposit = answer.data.get("deposit")
        if deposit is not None and deposit["address"] is not None:
            record.places.add((str(named), (deposit["address"], deposit["memo"])))
        wrong = record.want.kind
        documented = {200, 201, 202, 422, 429, 503} | ({401} if wrong == "bad_signature" else set())
        if answer.status not in documented | ({409} if wrong == "conflict" else set()):
            record.oddities.append(f"was answered {answer.status} {answer.code}")
        if answer.status == 503 and answer.pause is None:
            record.oddities.append(f"was answered 503 {answer.code} without Retry-After")
        if answer.status == 201 and answer.data.get("deposit") is None:
            record.oddities.append("was answered 201 without a deposit")

    def _must_be_refused(self, answer: Answer) -> None:
        record = self._record
        status, name = _REFUSALS[record.want.kind]
        if answer.status != status:
            record.oddities.append(f"is {record.want.kind}, was answered {answer.status} {answer.code}")
        elif name is not None and name not in (answer.details or {}).get("fields", {}):
            record.oddities.append(f"is {record.want.kind}, refused without naming {name}")

    def _call(self, path: str, body: bytes, *, forged: bool = False) -> Answer | None:
        try:
            return self._api.call("POST", path, body, forged=forged)
        except (requests.RequestException, ValueError):
            return None

    def _pause(self, seconds: float) -> bool:
        """False when the time of all clients is up."""
        left = self._crowd.give_up_at - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))
        return left > seconds


def _respelt(quote: str) -> str:
    """The last character of base64 over 32 bytes has two bits that mean nothing."""
    return quote[:-1] + _ALPHABET[_ALPHABET.index(quote[-1]) ^ 1]
