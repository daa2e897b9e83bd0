"""Downloads from a server on loopback that has every fault."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainer.data.download import Download, DownloadError, fetch
from trainer.errors import DataError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under /good; remembers the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.knows_range = True
        self.cuts: list[int] = []  # bytes after which the next answers break off

    def url(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        folder = self.path.split("/")[1]
        self.server.requests.append((folder, wanted))
        if folder == "missing":
            self.send_error(404)
            return
        content = CONTENT if folder == "good" else b"another file"
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if not self.server.knows_range:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:][:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def good(server: Server, *folders: str) -> Download:
    return Download("data.bin", tuple(server.url(folder) for folder in folders or ("good",)), MD5)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert fetch(good(server), folder) == folder / "data.bin"
    assert fetch(good(server), folder).read_bytes() == CONTENT
    assert server.requests == [("good", None)]
    assert [file.name for file in folder.iterdir()] == ["data.bin"]


def test_a_fetch_goes_on_where_it_was_cut_off(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT
    ranges = [None, "bytes=300000-", "bytes=500000-"]
    assert server.requests == [("good", wanted) for wanted in ranges]


def test_a_later_run_goes_on_with_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1234])
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("good", "bytes=1234-")]


def test_a_part_that_was_whole_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT
    assert not server.requests


def test_a_server_without_range_is_asked_from_the_beginning(server: Server, tmp_path: Path) -> None:
    server.knows_range = False
    server.cuts = [300_000]
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("good", None), ("good", "bytes=300000-")]


@pytest.mark.parametrize("left", [b"not how the file begins", CONTENT + b"and more"])
def test_a_part_of_another_file_is_thrown_away(left: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(left)
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("good", None)


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    assert fetch(good(server), tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_turn(server: Server, tmp_path: Path) -> None:
    assert fetch(good(server, "missing", "wrong", "good"), tmp_path).read_bytes() == CONTENT
    assert [folder for folder, _ in server.requests] == ["missing", "wrong", "good"]


def test_when_no_mirror_helps_the_message_says_why_and_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(good(server, "missing", "wrong"), tmp_path)
    message = str(caught.value)
    assert f"{server.url('missing')}/data.bin: 404 Not Found" in message
    assert f"{server.url('wrong')}/data.bin: expected the md5 checksum {MD5}" in message
    assert "--from" in message
    assert "torrefy data shapes" in message
    assert not list(tmp_path.iterdir())


def test_without_a_network_it_says_so_at_once(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(DownloadError, match=r"Connection refused.*Without a network"):
        fetch(Download("data.bin", (url,), MD5), tmp_path)


def test_a_connection_that_always_breaks_is_given_up_and_kept(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = [1000] * 100
    with pytest.raises(DownloadError, match=r"breaks off every time"):
        fetch(good(server), tmp_path)
    part = (tmp_path / "data.bin.part").read_bytes()
    assert len(part) == 1000 * len(server.requests) < len(CONTENT)
    assert CONTENT.startswith(part)


def test_a_folder_that_cannot_be_written_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/data.bin: writing failed .*another folder"):
        fetch(good(server), tmp_path / "file")
    (tmp_path / "data.bin.part").mkdir()
    with pytest.raises(DataError, match=r"data.bin: writing failed"):
        fetch(good(server), tmp_path)
