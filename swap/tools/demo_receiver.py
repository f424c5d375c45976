"""A webhook receiver as a product would write one: verifies, remembers, answers 204, and a challenge with its token.

python -m swap.tools.demo_receiver PORT      the endpoint's secret comes in WEBHOOK_SECRET
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def main() -> None:
    port, secret = int(sys.argv[1]), os.environ["WEBHOOK_SECRET"]
    verified: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                Webhook(secret).verify(body, dict(self.headers))
            except WebhookVerificationError:
                self._answer(401, b"")
                return
            message = json.loads(body)
            if message["type"] == "endpoint.verify":
                self._answer(200, json.dumps({"token": message["data"]["token"]}).encode())
                return
            verified.append(message)
            self._answer(204, b"")

        def do_GET(self) -> None:
            self._answer(200, json.dumps(verified).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()


if __name__ == "__main__":
    main()
