"""moto's S3 as a server, and a door in front of it that can throttle, fail, refuse, lose answers, or give none."""

import threading
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlparse

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>"
REFUSED = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>There is no such key.</Message></Error>"
SKEWED = b"<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>Too far apart.</Message></Error>"
KINDS = {"503": (503, BUSY), "500": (500, BROKEN), "refused": (403, REFUSED), "skewed": (403, SKEWED)}


class Cloud:
    """`disturb(kind, when)`: requests of which `when(method, path, how many before it)` is true are answered badly.

    kind: a key of KINDS, or "lost": the request is done, and the answer is an error of the server; or "silent": there
    is none until it is disturbed anew.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host, self._port = host, port
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._silence = threading.Event()  # is over

    def __enter__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *_):
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(self._host, self._port, self._answer, threaded=True, request_handler=Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.disturb()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to come here, and to nobody else."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self._host}:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "swordfish",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "AWS_MAX_ATTEMPTS": "3",
        }

    def bucket(self, name: str) -> str:
        """A new one; its URL."""
        import boto3

        boto3.client("s3").create_bucket(Bucket=name)
        return f"s3://{name}"

    def disturb(self, kind: str = "", when: Callable[[str, str, int], bool] = lambda *_: False) -> None:
        """From now on; nothing is wrong without arguments."""
        with self._lock:
            self._kind, self._when, self.requests = kind, when, Counter()
            self._silence.set()
            self._silence = threading.Event()

    def _answer(self, environ, start):
        method, path = environ["REQUEST_METHOD"], urlparse(environ["PATH_INFO"]).path
        with self._lock:
            before = self.requests[method]
            self.requests[method] += 1
            kind, silence = self._kind if self._when(method, path, before) else "", self._silence
        if kind in KINDS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if not kind:
            return self._app(environ, start)
        if kind == "silent":
            silence.wait()
        if kind == "lost":
            b"".join(self._app(environ, lambda *_: None))
        status, body = KINDS.get(kind, KINDS["500"])
        start(f"{status} X", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]
