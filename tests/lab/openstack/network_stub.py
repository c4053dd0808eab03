"""The network endpoint: there is no network here, and every list of it is empty.

Nova asks Neutron for the ports and security groups of each server that it shows. A program of its own, run by the
lab's Python: `python -m tests.lab.openstack.network_stub PORT`.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Stub(BaseHTTPRequestHandler):
    """Answers every GET of a collection with the empty one."""

    def do_GET(self) -> None:
        parts = [part for part in urlsplit(self.path).path.split("/") if part]
        if len(parts) < 2:
            link = {"rel": "self", "href": f"http://{self.headers['Host']}/v2.0"}
            self._answer({"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})
        else:
            self._answer({parts[-1].removesuffix(".json").replace("-", "_"): []})

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stub).serve_forever()
