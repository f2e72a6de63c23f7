"""The official package's `hooks` module against a server, with a real receiver.

The receiver verifies each webhook with the `standardwebhooks` package, which shares no code with the
server. Run by `.ci/python` as `hooks.py VERSION SERVER`.
"""

import sys
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

import official


def hooks(url, key=official.KEY):
    """The package's hooks client, made as its own documentation makes it."""
    if official.VERSION.startswith("0.2"):
        from fourbyfour.hooks import Hooks
        from fourbyfour.http import HttpClient

        return Hooks(HttpClient(url, key), "default")
    from fourbyfour import Fourbyfour

    return Fourbyfour(key, base_url=url).hooks


class Receiver:
    """An HTTP server that keeps what it gets, and answers as it is told: 200 by default."""

    def __init__(self, answers=()):
        self.got, self.answers, outer = [], list(answers), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((dict(self.headers), body))
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def until(condition, what):
    """Waits for what comes within seconds."""
    end = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.01)
    return value


class Hooks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Deliveries to this machine are an exception that the server's owner makes.
        cls.server = official.server("--egress-allow", "127.0.0.1")
        cls.url = cls.server.__enter__()
        cls.hooks = hooks(cls.url)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def receiver(self, *answers):
        receiver = Receiver(answers)
        self.addCleanup(receiver.close)
        return receiver

    def endpoint(self, name, url, **more):
        endpoint = self.hooks.create_endpoint(name, url, **more)
        self.addCleanup(self.hooks.delete_endpoint, name)
        return endpoint

    def test_an_endpoint_is_created_listed_and_deleted(self):
        receiver = self.receiver()
        made = self.hooks.create_endpoint(
            "e", receiver.url, events=["order.*"], description="d", metadata={"team": "a"}
        )
        self.assertTrue(made.enabled and made.endpoint_id and made.created_at)
        self.assertEqual((made.name, made.url, made.events), ("e", receiver.url, ["order.*"]))
        self.assertRegex(made.secret, r"^whsec_[A-Za-z0-9+/]{32,}=*$")
        (listed,) = self.hooks.list_endpoints()
        self.assertEqual(listed.endpoint_id, made.endpoint_id)
        self.assertNotEqual(listed.secret, made.secret)
        self.hooks.delete_endpoint("e")
        self.assertEqual(self.hooks.list_endpoints(), [])

    def test_every_webhook_is_verified_by_an_independent_library(self):
        receiver = self.receiver()
        secret = self.endpoint("signed", receiver.url, events=["order.**"]).secret
        payloads = [{"n": n, "text": "é\u2028"} for n in range(50)] + [None, 1.5, "x", []]
        sent = {}
        for payload in payloads:
            response = self.hooks.send("order.placed", payload)
            (info,) = response.deliveries
            self.assertEqual((info.endpoint_name, info.status.value), ("signed", "pending"))
            sent[response.event_id] = payload
        self.assertEqual(self.hooks.send("user.made", {}).deliveries, [])
        until(lambda: len(receiver.got) >= len(payloads), "all webhooks")
        verifier, seen = Webhook(secret), {}
        for headers, body in receiver.got:
            headers = {name.lower(): value for name, value in headers.items()}
            verified = verifier.verify(body, headers)
            self.assertEqual(verified["type"], "order.placed")
            seen[headers["webhook-id"]] = verified["data"]
            for wrong in (body + b" ", body[:-1]):
                with self.assertRaises(WebhookVerificationError):
                    verifier.verify(wrong, headers)
            with self.assertRaises(WebhookVerificationError):
                verifier.verify(body, {**headers, "webhook-id": "other"})
        self.assertEqual(seen, sent)

    def test_deliveries_and_stats_tell_what_happened(self):
        receiver = self.receiver()
        self.endpoint("counted", receiver.url)
        before = self.hooks.stats()
        response = self.hooks.send("a", {"n": 1})

        def finished():
            (delivery,) = self.hooks.get_deliveries("counted")
            return delivery if delivery.status.value == "success" else None

        delivery = until(finished, "the delivery")
        self.assertEqual(delivery.delivery_id, response.deliveries[0].delivery_id)
        self.assertEqual((delivery.event_type, delivery.retry_count), ("a", 0))
        self.assertEqual(delivery.response_status_code, 200)
        self.assertIsNotNone(delivery.duration_ms)
        self.assertIsNone(delivery.error_message)
        stats = self.hooks.stats()
        self.assertEqual(stats.tenant_id, "default")
        self.assertEqual(stats.total_deliveries, before.total_deliveries + 1)
        counted = stats.by_endpoint["counted"]
        self.assertEqual((counted.deliveries, counted.successful, counted.failed), (1, 1, 0))
        self.assertEqual(counted.success_rate, 1)

    def test_only_the_endpoints_named_get_it(self):
        receiver = self.receiver()
        for name in ("one", "two", "three"):
            self.endpoint(name, receiver.url)
        response = self.hooks.send("a", 1, endpoints=["one", "three"])
        names = sorted(info.endpoint_name for info in response.deliveries)
        self.assertEqual(names, ["one", "three"])
        until(lambda: len(receiver.got) == 2, "both")

    def test_what_fails_is_tried_again_and_signed_anew(self):
        receiver = self.receiver(500)
        secret = self.endpoint("failing", receiver.url).secret
        self.hooks.send("a", {"n": 1})
        # The first step of the ladder is 5 s.
        until(lambda: len(receiver.got) == 2, "the second attempt")
        (first, body), (second, again) = receiver.got
        self.assertEqual(body, again)
        self.assertEqual(first["webhook-id"], second["webhook-id"])
        self.assertLess(int(first["webhook-timestamp"]), int(second["webhook-timestamp"]))
        for headers in (first, second):
            Webhook(secret).verify(body, headers)
        until(lambda: self.hooks.get_deliveries("failing")[0].retry_count == 1, "the retry")

    def test_errors_have_their_classes(self):
        from fourbyfour import errors

        receiver = self.receiver()
        self.endpoint("taken", receiver.url)
        with self.assertRaises(errors.ConflictError):
            self.hooks.create_endpoint("taken", receiver.url)
        for url in ("http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "x"):
            with self.assertRaises(errors.ValidationError):
                self.hooks.create_endpoint("forbidden", url)
        for call in (self.hooks.delete_endpoint, self.hooks.get_deliveries):
            with self.assertRaises(errors.NotFoundError):
                call("none")
        with self.assertRaises(errors.NotFoundError):
            self.hooks.send("a", 1, endpoints=["none"])
        with self.assertRaises(errors.AuthenticationError):
            hooks(self.url, key="sk_wrong").list_endpoints()
        with self.assertRaises(errors.ForbiddenError):
            hooks(self.url, key=official.publish_key(self.url)).list_endpoints()


if __name__ == "__main__":
    official.VERSION, official.SERVER = sys.argv[1:3]
    assert version("fourbyfour") == official.VERSION
    # The package closes its sockets when it is collected, which is not what is tested here.
    unittest.main(argv=sys.argv[:1], verbosity=2, warnings="ignore")
