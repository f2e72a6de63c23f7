"""The official package, unchanged, against running servers: every method of `stream.topics`, every
error class that it maps.

`official.py VERSION SERVER` where SERVER is the binary. Run by `.ci/python` in an environment that
has `fourbyfour` in that version.
"""

import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from contextlib import contextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

KEY = "sk_test-key-of-the-python-tests"


@contextmanager
def server(*arguments):
    """A server on a free port with an empty data folder: its URL."""
    with tempfile.TemporaryDirectory() as data, server_on(data, *arguments) as url:
        yield url


@contextmanager
def server_on(data, *arguments):
    """A server on a free port: its URL."""
    command = [SERVER, "serve", "--listen", "127.0.0.1:0", "--data", data, *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"STREAM_API_KEY": KEY},
    )
    try:
        prefix = "listening on "
        url = next((line for line in process.stdout if line.startswith(prefix)), None)
        assert url, f"the server ended: {process.wait()}"
        yield url[len(prefix) :].strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def topics(url, key=KEY, project="default"):
    """The package's topics client, made as its own documentation makes it."""
    if VERSION.startswith("0.2"):
        from fourbyfour.http import HttpClient
        from fourbyfour.stream import Stream

        return Stream(HttpClient(url, key), project).topics
    from fourbyfour import Fourbyfour

    return Fourbyfour(key, base_url=url).stream.topics


class Methods(unittest.TestCase):
    """Each method, on one server; each test has topics of its own."""

    @classmethod
    def setUpClass(cls):
        cls.server = server()
        cls.url = cls.server.__enter__()
        cls.topics = topics(cls.url)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def topic(self, **config):
        name = f"orders.{uuid.uuid4().hex}"
        return self.topics.create(name, **config)

    def test_create_returns_the_topic(self):
        topic = self.topic(description="d", partitions=3, retention_hours=24)
        self.assertEqual((topic.description, topic.partitions), ("d", 3))
        self.assertEqual(topic.retention_hours, 24)
        self.assertTrue(topic.created_at)

    def test_get_and_list_return_what_was_created(self):
        topic = self.topic()
        self.assertEqual(self.topics.get(topic.name), topic)
        self.assertIn(topic, self.topics.list())

    def test_a_list_is_whole(self):
        created = {self.topic().name for _ in range(120)}
        self.assertLessEqual(created, {topic.name for topic in self.topics.list()})

    def test_delete_removes_the_topic(self):
        topic = self.topic()
        self.topics.delete(topic.name)
        self.assertNotIn(topic.name, [other.name for other in self.topics.list()])

    def test_produce_consume_and_commit(self):
        topic = self.topic()
        values = [{"a": [1, None, "é"]}, "text", 1.5, None, True]
        for offset, value in enumerate(values):
            produced = self.topics.produce(topic.name, value, key="k", headers={"h": "v"})
            self.assertEqual((produced.topic, produced.partition), (topic.name, 0))
            self.assertEqual(produced.offset, offset)
        page = self.topics.consume(topic.name, "g", partition=0, limit=3)
        self.assertEqual([record.value for record in page.records], values[:3])
        first = page.records[0]
        self.assertEqual((first.key, first.headers, first.offset), ("k", {"h": "v"}, 0))
        self.assertEqual(page.next_offset, 3)
        # Reading does not commit.
        again = self.topics.consume(topic.name, "g", partition=0, limit=3)
        self.assertEqual(again, page)
        self.topics.commit_offset(topic.name, "g", 0, page.next_offset)
        rest = self.topics.consume(topic.name, "g")
        self.assertEqual([record.value for record in rest.records], values[3:])
        self.assertEqual(rest.next_offset, 5)
        self.assertEqual(self.topics.consume(topic.name, "other").records, again.records + rest.records)

    def test_every_partition_is_consumed_to_its_end(self):
        topic = self.topic(partitions=4)
        sent = [self.topics.produce(topic.name, n, key=f"key-{n % 9}") for n in range(60)]
        self.assertGreater(len({produced.partition for produced in sent}), 1)
        seen = []
        while True:
            page = self.topics.consume(topic.name, "g", limit=7)
            if not page.records:
                break
            last = page.records[-1].partition
            seen += [record for record in page.records if record.partition == last]
            self.topics.commit_offset(topic.name, "g", last, page.next_offset)
        self.assertEqual(sorted(record.value for record in seen), list(range(60)))
        for partition in range(4):
            values = [record.value for record in seen if record.partition == partition]
            self.assertEqual(values, sorted(values))

    def test_stats_count_events(self):
        topic = self.topic()
        self.assertEqual(self.topics.stats(topic.name).total_events, 0)
        for _ in range(3):
            self.topics.produce(topic.name, {"n": 1})
        stats = self.topics.stats(topic.name)
        self.assertEqual((stats.name, stats.total_events), (topic.name, 3))
        self.assertGreater(stats.total_bytes, 0)
        self.assertGreater(stats.events_per_second, 0)
        self.assertTrue(stats.last_event_at)


class Errors(unittest.TestCase):
    """Each error class, from what causes it."""

    def setUp(self):
        from fourbyfour import errors

        self.errors = errors

    def test_what_the_caller_does_wrong(self):
        with server() as url:
            client = topics(url)
            client.create("t")
            with self.assertRaisesRegex(self.errors.ValidationError, "name"):
                client.create("no/name")
            with self.assertRaises(self.errors.ValidationError):
                client.commit_offset("t", "g", 0, 1)
            with self.assertRaises(self.errors.NotFoundError):
                client.get("none")
            with self.assertRaises(self.errors.ConflictError):
                client.create("t", partitions=2)
            with self.assertRaises(self.errors.AuthenticationError):
                topics(url, key="sk_wrong").list()
            with self.assertRaises(self.errors.ForbiddenError):
                topics(url, key=publish_key(url)).create("other")

    def test_too_much_at_once(self):
        limits = ("--request-bytes-max", "4096", "--project-bytes-max", "4096")
        with server(*limits) as url, half_sent(url, 4096):
            client = topics(url)
            with self.assertRaises(self.errors.RateLimitError):
                # The other request's bytes may still be on their way.
                for _ in range(100):
                    client.create("t", description="x" * 100)
                    time.sleep(0.05)

    def test_a_full_disk(self):
        with tempfile.TemporaryDirectory() as data:
            with server_on(data) as url:
                topics(url).create("t")
            # No disk has that much room.
            with server_on(data, "--reserve-bytes", str(1 << 60)) as url:
                with self.assertRaises(self.errors.InternalError):
                    topics(url).produce("t", 1)
                self.assertEqual(topics(url).consume("t", "g").records, [])


@contextmanager
def half_sent(url, length):
    """A request that lacks the last byte of its body, so that the rest is held in memory."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST /topics/t/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/x-ndjson\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode() + b" " * (length - 1))
        yield


def publish_key(url):
    """A key that may only publish, made over HTTP."""
    import httpx

    answer = httpx.post(
        f"{url}/projects/default/keys",
        headers={"Authorization": f"Bearer {KEY}"},
        json={"scopes": ["publish"]},
    )
    answer.raise_for_status()
    return answer.json()["key"]


if __name__ == "__main__":
    VERSION, SERVER = sys.argv[1:3]
    assert version("fourbyfour") == VERSION
    # The package closes its sockets when it is collected, which is not what is tested here.
    unittest.main(argv=sys.argv[:1], verbosity=2, warnings="ignore")
