"""The server over HTTP: what it answers, what it never gives, and that nothing stays behind."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import torch

import thalweg
from thalweg.app import server as module
from thalweg.app.server import COMPUTED, FILES, QUICK, Page
from thalweg.app.shelf import PANELS, Shelf
from thalweg.commands.main import main
from thalweg.errors import InputError

JSON = {"Content-Type": "application/json"}


def sent(page: Page, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def asked(page: Page, path: str, **words) -> tuple[int, dict]:
    code, _, content = sent(page, "POST", path, json.dumps(words).encode(), **{"Content_Type": "application/json"})
    return code, json.loads(content)


def test_the_page_and_its_parts_come_from_the_package_with_a_strict_policy(server):
    for path, (name, kind) in FILES.items():
        code, headers, content = sent(server, "GET", path)
        assert code == 200 and headers["content-type"] == kind
        assert content == (Path(module.__file__).parent / "page" / name).read_bytes()
        assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["server"] == "thalweg"
        assert b"http://" not in content.replace(b"http://www.w3.org", b"") and b"https://" not in content, "nothing from the network"
        assert b"innerHTML" not in content and b"eval(" not in content
    code, headers, content = sent(server, "HEAD", "/")
    assert code == 200 and content == b"" and int(headers["content-length"]) > 1000
    assert sent(server, "GET", "/favicon.ico")[0] == 200


def test_each_panel_answers(server, shelf, folders):
    code, told = asked(server, "/api/about")
    assert code == 200 and [entry["name"] for entry in told["entries"]] == list(shelf.entries) and list(told["panels"]) == list(PANELS)
    digits = str(folders / "digits")
    mask = [[int(j > 3)] * 8 for j in range(8)]
    for path, words, key in (
        ("/api/map", {"first": "moons"}, "map"), ("/api/walk", {"first": "moons", "chains": 3, "steps": 2}, "frames"),
        ("/api/draw", {"count": 1, "steps": 2}, "pictures"), ("/api/picture", {}, "picture"),
        ("/api/repair", {"kind": "noise"}, "pictures"),
        ("/api/fill", {"mask": mask, "completions": 1}, "pictures"), ("/api/detect", {"made": True}, "rows"), ("/api/watch", {}, "curves"),
    ):  # fmt: skip
        code, found = asked(server, path, model=digits, **words)
        assert code == 200 and found[key] and found["seconds"] >= 0, (path, found)


# what must not be read: a file of the machine, one next to the package, one of the run itself, one that a link in the run leads to
SECRET = "thalweg-secret-7f3a"


@pytest.fixture
def traps(folders, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    link = folders / "digits" / "link.txt"
    os.symlink(secret, link)
    yield [secret, link, folders / "digits" / "config.json"]
    link.unlink()


def test_twenty_paths_to_files_and_none_is_read(server, traps):
    secret, link, config = traps
    package = Path(thalweg.__file__).parent
    paths = [
        "/../../../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e%252f%252e%252e%252fetc%252fpasswd",
        "/..%c0%af..%c0%afetc/passwd",
        "/..\\..\\..\\etc\\passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/....//....//etc/passwd",
        "//etc/passwd",
        "///etc/passwd",
        "/etc/passwd",
        "/page.css/../../../../../../etc/passwd",
        "/page.css%00/etc/passwd",
        "/./app.js/../server.py",
        "/server.py",
        f"{package}/app/server.py",
        f"{secret}",
        f"/{link}",
        f"{config}",
        "/digits/link.txt",
        f"/file={secret}",
        f"/gradio_api/file={secret}",
        f"/file/{secret}",
        f"/static/{secret}",
        f"/assets/..{secret}",
        f"/proxy=file://{secret}",
        f"file://{secret}",
        f"http://127.0.0.1{secret}",
        "/proc/self/environ",
        "/?file=/etc/passwd",
        "/api/watch?model=/etc",
    ]
    assert len(paths) >= 20
    for path in paths:
        code, _, content = sent(server, "GET", path)
        assert code in (400, 403, 404), (path, code)
        assert SECRET.encode() not in content and b"root:" not in content and b"import" not in content and b"thalweg.app" not in content
    for name in [
        str(secret),
        str(link),
        "/etc",
        "../digits",
        "digits",
        str(config.parent / ".."),
        f"file://{secret}",
        "zoo:../../etc",
        "",
        None,
        3,
    ]:
        for path in (*COMPUTED, "/api/watch"):
            code, found = asked(server, path, model=name, first=name, picture=name, files=[{"name": name, "data": name}])
            assert code == 400 and SECRET not in json.dumps(found) and list(found) == ["error"]


def test_other_sites_are_refused(server):
    port = server.server_address[1]
    own = f"127.0.0.1:{port}"
    for headers in (
        {"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"}, {"Host": own, "Origin": f"https://{own}"},
    ):  # fmt: skip
        code, _, content = sent(server, "POST", "/api/about", b"{}", Content_Type="application/json", **headers)
        assert code == 403 and b"itself only" in content
    assert sent(server, "GET", "/", Host="evil.example")[0] == 403
    for headers in ({"Host": own, "Origin": f"http://{own}"}, {"Host": f"localhost:{port}"}, {"Sec_Fetch_Site": "same-origin"}):
        assert sent(server, "POST", "/api/about", b"{}", Content_Type="application/json", **headers)[0] == 200


def test_wrong_requests_have_one_message(server, monkeypatch):
    json_ = {"Content_Type": "application/json"}
    for code, body, headers in (
        (415, b"{}", {"Content_Type": "text/plain"}), (415, b"{}", {}), (400, b"{", json_), (400, b"[]", json_), (400, b"\xff", json_),
        (400, b"[" * 100_000, json_), (411, None, json_), (411, None, json_ | {"Content_Length": "-1"}),
        (413, None, json_ | {"Content_Length": str(2**40)}), (411, None, json_ | {"Content_Length": "2", "Transfer_Encoding": "chunked"}),
    ):  # fmt: skip
        found = sent(server, "POST", "/api/about", body, **headers)
        assert found[0] == code and list(json.loads(found[2])) == ["error"], (code, found)
    assert sent(server, "POST", "/api/nothing", b"{}", **json_)[0] == 404
    assert sent(server, "DELETE", "/")[0] == 501 and sent(server, "OPTIONS", "/api/about")[0] == 501
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert b"error" in raw.recv(4096)
    monkeypatch.setattr(module, "QUICK", {"/api/about": lambda shelf, asked: 1 / 0})
    monkeypatch.setattr(module.traceback, "print_exc", lambda: None)
    code, found = asked(server, "/api/about")
    assert code == 500 and found == {"error": "something went wrong inside (ZeroDivisionError); the terminal says more"}


def test_users_at_once_get_what_each_gets_alone(server, folders):
    words = [{"model": str(folders / "dual"), "count": 2, "steps": 2, "seed": seed, "label": str(seed)} for seed in range(4)]
    alone = [asked(server, "/api/draw", **one)[1]["pictures"] for one in words]
    assert len({str(one) for one in alone}) == 4
    together: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: asked(server, "/api/draw", **words[i])[1]["pictures"]})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(4)] == alone


def test_more_than_can_wait_are_sent_away(server, monkeypatch):
    monkeypatch.setattr(server.turns, "most", 0)
    code, found = asked(server, "/api/map", first="moons")
    assert code == 503 and "try again" in found["error"]


# --- one computation at a time, for those who still wait


def begun(page: Page, path: str, **words) -> socket.socket:
    """A request that is sent, whose answer nobody reads yet."""
    connection = socket.create_connection(("127.0.0.1", page.server_address[1]), timeout=30)
    body = json.dumps(words).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{page.server_address[1]}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def waited(holds, seconds: float = 10.0) -> float:
    """Seconds until it holds; fails where it never does."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds
        time.sleep(0.02)
    return time.monotonic() - started


def before(page: Page, ticket: str) -> int | None:
    code, found = asked(page, "/api/turn", ticket=ticket)
    assert code == 200
    return found["before"]


@pytest.fixture
def endless(monkeypatch):
    """The map computes until nobody waits, or for 20 s; how each one ended."""
    ended: list[str] = []

    def compute(shelf, words):
        x, deadline = torch.zeros(2), time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                x = (x + 1).sin()
                time.sleep(0.001)
        except BaseException as error:
            ended.append(f"{words['ticket']} {type(error).__name__}")
            x.sum().item()  # as what tidies up may
            raise
        return {}

    monkeypatch.setitem(module.COMPUTED, "/api/map", compute)
    return ended


def test_who_reads_slowly_keeps_nobody_waiting(server, monkeypatch):
    monkeypatch.setitem(module.COMPUTED, "/api/map", lambda shelf, words: {"map": "x" * 2**25})
    with begun(server, "/api/map", ticket="slow") as slow:
        assert slow.recv(100).startswith(b"HTTP/1.1 200")  # computed, and more is under way than any buffer holds
        started = time.monotonic()
        assert asked(server, "/api/walk", first="moons", chains=3, steps=2)[0] == 200
        assert time.monotonic() - started < 5 and before(server, "slow") is None


def test_a_computation_ends_when_nobody_waits(server, endless):
    running = begun(server, "/api/map", ticket="a")
    waited(lambda: before(server, "a") == 0)
    running.close()
    assert waited(lambda: before(server, "a") is None) < 1.5 and endless == ["a Left"]
    assert asked(server, "/api/walk", first="moons", chains=3, steps=2)[0] == 200


def test_a_long_drawing_is_given_up(server, folders):
    """Of a model, through its sampler: a thousand steps for 36 pictures."""
    words = {"model": str(folders / "dual"), "count": 36, "steps": 1000}
    running = begun(server, "/api/draw", ticket="long", **words)
    waited(lambda: before(server, "long") == 0)
    time.sleep(0.3)
    assert before(server, "long") == 0, "it takes longer than this"
    running.close()
    assert waited(lambda: before(server, "long") is None) < 1.5
    code, found = asked(server, "/api/draw", **words | {"count": 1, "steps": 2})
    assert code == 200 and len(found["pictures"]) == 1, "the model is as it was"


def test_the_queue_is_in_order_and_says_who_is_before(server, endless):
    assert before(server, "nobody") is None and before(server, "") is None
    connections = {}
    for i, name in enumerate("abcd"):
        connections[name] = begun(server, "/api/map", ticket=name)
        waited(lambda i=i, name=name: before(server, name) == i)
    connections.pop("b").close()  # who waits may leave too
    waited(lambda: (before(server, "b"), before(server, "c"), before(server, "d")) == (None, 1, 2))
    connections.pop("a").close()
    waited(lambda: (before(server, "a"), before(server, "c"), before(server, "d")) == (None, 0, 1))
    assert endless == ["a Left"]
    for connection in connections.values():
        connection.close()
    waited(lambda: before(server, "c") is before(server, "d") is None)


def test_it_listens_where_it_is_told(shelf):
    with Page(shelf) as page:
        assert page.local and page.server_address[0] == "127.0.0.1" and page.address == f"http://127.0.0.1:{page.server_address[1]}/"
        with pytest.raises(InputError, match="give another --port"):
            Page(shelf, port=page.server_address[1])
    with Page(shelf, "0.0.0.0") as page:
        assert not page.local and page.known("anything")
    with pytest.raises(InputError, match="cannot listen on 203"):
        Page(shelf, "203.0.113.7")


def test_wrong_words_on_the_command_line(tmp_path, capsys):
    for words, message in (
        (["--port", "70000"], "--port must be between 0 and 65535"), (["--port", "x"], "takes a whole number"),
        (["--ports", "1"], "unknown option"),
        ([str(tmp_path / "nowhere")], "nowhere"),
    ):  # fmt: skip
        assert main(["app", *words, "--no-browser"]) == 2
        assert message in capsys.readouterr().err


def test_a_page_from_the_command_line_leaves_nothing_behind(folders, tmp_path):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    words = [sys.executable, "-m", "thalweg.cli", "app", str(folders / "digits"), str(folders / "rows"), "--port", "0", "--no-browser"]
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = process.stdout.readline().removeprefix("page: ").strip()
        started = time.monotonic()
        table = "data:text/csv;base64,eDAseDEKMSwyCjUwLDUwCg=="
        mask = [[int(j > 3)] * 8 for j in range(8)]
        for path, asked in (
            ("draw", {"count": 2}), ("fill", {"mask": mask, "completions": 1}), ("detect", {"made": True}), ("watch", {}),
            ("detect", {"model": str(folders / "rows"), "files": [{"name": "a.csv", "data": table}]}),
        ):  # fmt: skip
            body = json.dumps({"model": str(folders / "digits")} | asked).encode()
            with urllib.request.urlopen(urllib.request.Request(f"{address}api/{path}", body, JSON), timeout=60) as answer:
                assert answer.status == 200
        time.sleep(max(0.0, started + 6 - time.monotonic()))  # a command that works would have spoken by now
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.returncode == 0
    finally:
        process.kill()
        said = process.communicate()[1]
    assert "Ctrl-C ends it" in said and "goes on" not in said.partition("Ctrl-C")[2]
    assert list(scratch.iterdir()) == []
    assert set(QUICK) | set(COMPUTED) >= {f"/api/{name}" for name in ("draw", "fill", "repair", "detect", "watch")}


def test_without_a_clone_the_page_has_the_toys(monkeypatch):
    from thalweg.commands import app, zoo

    monkeypatch.setattr(zoo, "models", lambda: [])
    with app.serve([], port=0) as page:
        assert page.shelf.entries == {} and "moons" in module.about(Shelf([]))["energies"]
