"""The server of the page: a fixed list of addresses, each a file held in memory or a function of what is on the shelf.

No address is ever turned into a path. Nothing is kept between two requests, so that users share no state, and nothing is written to disk.
A page of another site can ask for nothing: a request must name this host, and what computes must be JSON from this page.
What computes waits its turn, stops when whoever asked hangs up, and gives the turn away before its answer is sent.
"""

import contextlib
import ipaddress
import json
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import thalweg
from thalweg.app import draw, judge, landscape, mend, watch
from thalweg.app.asked import Asked
from thalweg.app.shelf import PANELS, Shelf
from thalweg.app.turns import Full, Left, Turns
from thalweg.app.words import WORDS
from thalweg.errors import Diverged, InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST = 48 * 2**20  # bytes of a request
WAITING = 8  # requests that compute or wait for their turn; more are sent away
SILENCE = 30.0  # seconds in which a request must arrive
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("app", "page", "plane", "pictures", "scores")},
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M1 3q4 0 5 6t3 5 2-6 4-5" fill="none" stroke="#2f6f9f" '
    b'stroke-width="2"/></svg>'
)


def about(shelf: Shelf) -> dict[str, Any]:
    """What the page shows before anything is asked: entries, energies of points, and what each panel says of itself."""
    words = {name: WORDS[name]._asdict() for name in PANELS}
    entries = [entry.about() for entry in shelf.entries.values()]
    return {"version": thalweg.__version__, "entries": entries, "panels": words, "energies": landscape.names(shelf)}


# what the page may ask for; those that compute wait for each other
QUICK: Mapping[str, Callable[[Shelf, Asked], dict[str, Any]]] = {
    "/api/about": lambda shelf, asked: about(shelf),
    "/api/watch": lambda shelf, asked: watch.watch(shelf.entry(asked), asked),
}
COMPUTED: Mapping[str, Callable[[Shelf, Asked], dict[str, Any]]] = {
    "/api/map": landscape.picture,
    "/api/walk": landscape.walk,
    "/api/draw": lambda shelf, asked: draw.draw(shelf.entry(asked), asked),
    "/api/picture": lambda shelf, asked: draw.one(shelf.entry(asked), asked),
    "/api/fill": lambda shelf, asked: mend.fill(shelf.entry(asked), asked),
    "/api/repair": lambda shelf, asked: mend.repair(shelf.entry(asked), asked),
    "/api/detect": lambda shelf, asked: judge.judge(shelf.entry(asked), asked),
}


TURN = "/api/turn"  # how many are before the request of a ticket


def _error(what: str) -> bytes:
    return json.dumps({"error": what}).encode()


class Page(ThreadingHTTPServer):
    """The server; `address` is what a browser opens. InputError where the port cannot be had."""

    daemon_threads = True

    def __init__(self, shelf: Shelf, host: str = "127.0.0.1", port: int = 0) -> None:
        self.shelf, self.host, self.turns = shelf, host, Turns(WAITING)
        home = resources.files("thalweg.app") / "page"
        self.files = {path: ((home / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        self.files["/favicon.ico"] = (ICON, "image/svg+xml")
        self.address_family = socket.AF_INET6 if ":" in host else self.address_family
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}; give another --port"
            ) from None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(str(self.server_address[0])).is_loopback
        return False

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def known(self, host: str) -> bool:
        """Whether a request names this server: on loopback only by its own names, so that no other site's name can lead here."""
        port = self.server_address[1]
        return not self.local or host.lower() in {f"{name}:{port}" for name in (*LOOPBACK[:2], "[::1]", self.host)}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            traceback.print_exc()


class Handler(BaseHTTPRequestHandler):
    server: Page
    protocol_version = "HTTP/1.1"
    timeout = SILENCE

    def do_GET(self) -> None:
        self.close_connection = self.close_connection or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        if not self.server.known(self.headers.get("Host", "")):
            return self._say(403, "this page answers under its own address only")
        found = self.server.files.get(self.path)
        if found is None:
            return self._say(404, "there is nothing at this address")
        self._send(200, *found)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.close_connection = True  # unless all of what was sent is read
        host = self.headers.get("Host", "")
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        if not self.server.known(host) or (origin is not None and origin != f"http://{host}") or site not in ("same-origin", "none"):
            return self._say(403, "this page answers to itself only")
        quick, computed = QUICK.get(self.path), COMPUTED.get(self.path)
        if quick is None and computed is None and self.path != TURN:
            return self._say(404, "there is nothing at this address")
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            return self._say(415, "a request must be JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 15 or "Transfer-Encoding" in self.headers:
            return self._say(411, "a request must say its length")
        if int(length) > LARGEST:
            return self._say(
                413, f"too much at once: {int(length) / 2**20:.0f} MiB, at most {LARGEST // 2**20} MiB; drop fewer or smaller files"
            )
        raw = self.rfile.read(int(length))
        self.close_connection = len(raw) < int(length)
        try:
            asked = json.loads(raw)
            if not isinstance(asked, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return self._say(400, "a request must be a JSON object")
        ticket = str(asked.get("ticket", ""))[:64]
        if self.path == TURN:
            return self._send(200, json.dumps({"before": self.server.turns.before(ticket)}).encode(), "application/json")
        if quick is not None:
            return self._send(*self._answer(quick, asked), "application/json")
        assert computed is not None
        try:
            with self.server.turns.turn(ticket, self._gone), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as of chains that are stuck, which the page shows
                answer = self._answer(computed, asked)
        except Full:
            return self._say(503, f"{WAITING} others are waiting already: try again in a moment")
        except Left:
            self.close_connection = True
            return None
        return self._send(*answer, "application/json")

    def _gone(self) -> bool:
        """Whether whoever asked has hung up: what a browser does that cancels, asks anew, or leaves the page."""
        try:
            self.connection.setblocking(False)
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.connection.settimeout(self.timeout)

    def _answer(self, function: Callable[[Shelf, Asked], dict[str, Any]], asked: Asked) -> tuple[int, bytes]:
        """Status and JSON."""
        started = time.monotonic()
        try:
            found = function(self.server.shelf, asked)
        except (InputError, Diverged) as error:
            return 400, _error(str(error))
        except Exception as error:  # a fault of ours: the terminal has it, the page a sentence
            traceback.print_exc()
            return 500, _error(f"something went wrong inside ({type(error).__name__}); the terminal says more")
        found["seconds"] = round(time.monotonic() - started, 2)
        return 200, json.dumps(found, allow_nan=False).encode()

    def _say(self, code: int, what: str) -> None:
        self._send(code, _error(what), "application/json")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parser of requests finds wrong, and methods that there are not, in the form of all other answers."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        self._say(code, message or "this request cannot be read")

    def version_string(self) -> str:
        return "thalweg"

    def log_message(self, *_: Any) -> None:
        """A page that is used needs no log."""
