"""A web server on this machine that behaves as badly as it is told to."""

import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files:
    """What a server gives: bytes by name, and how each name misbehaves.

    A behaviour changes ``reply`` (status, headers, body, and ``sent``, how much of the body is
    sent before the connection is cut) in place; it gets the number of the request too.
    """

    def __init__(self, base):
        self.base = base
        self.raw, self.behaviours, self.ranges = {}, {}, True
        self.requests, self.bytes_sent, self.asked = Counter(), 0, []

    def put(self, name, raw, behaviour=None, tag="v1"):
        self.raw[name] = (bytes(raw), tag)
        self.behaviours[name] = behaviour
        return f"{self.base}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        files, name = self.server.files, self.path.split("?")[0].lstrip("/")
        files.requests[name] += 1
        files.asked.append((name, dict(self.headers)))
        raw, tag = files.raw.get(name, (None, ""))
        reply = self._good(raw, tag, files.ranges)
        if behaviour := files.behaviours.get(name):
            behaviour(reply, files.requests[name])
        self.send_response(reply["status"])
        for key, value in reply["headers"].items():
            self.send_header(key, value)
        self.end_headers()
        body = reply["body"][: reply["sent"]]
        files.bytes_sent += len(body)
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at : at + (1 << 16)])
        self.wfile.flush()
        if reply["sent"] is not None or "Content-Length" not in reply["headers"]:
            self.close_connection = True

    def _good(self, raw, tag, ranges):
        if raw is None:
            return {"status": 404, "headers": {"Content-Length": "0"}, "body": b"", "sent": None}
        headers = {"ETag": f'"{tag}"'} if tag else {}
        status, body = 200, raw
        wanted = self.headers.get("Range")
        if wanted and ranges:
            start, last = map(int, wanted.removeprefix("bytes=").split("-"))
            body, status = raw[start : last + 1], 206
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(raw)}"
            if start >= len(raw):
                status, headers["Content-Range"] = 416, f"bytes */{len(raw)}"
        headers["Content-Length"] = str(len(body))
        return {"status": status, "headers": headers, "body": body, "sent": None}

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A reader that hangs up is no news."""


@contextmanager
def serving():
    server = _Server(("127.0.0.1", 0), Handler)
    server.files = Files(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
