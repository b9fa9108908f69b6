"""`fetch` against a real server on this machine that breaks off, stalls, lies and refuses."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thirtytwo.data.download import Archive, Patience, fetch
from thirtytwo.data.official import ARCHIVES
from thirtytwo.errors import ChecksumMismatch, DataError, DownloadError, StorageError

# A machine that is busy with other things must not look like a host that has stalled, except where that is the point.
QUICK = Patience(connect_seconds=20, stall_seconds=20, attempts=3, pause_seconds=0.001, longest_pause_seconds=0.01)
IMPATIENT = replace(QUICK, stall_seconds=0.3)

Behaviour = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host: Host = self.server.host  # type: ignore[attr-defined]
        host.asked.append((self.headers.get("Range"), self.headers.get("If-Range")))
        behaviour = host.behaviours.pop(0) if len(host.behaviours) > 1 else host.behaviours[0]
        try:
            behaviour(self, host.content)
        except (BrokenPipeError, ConnectionResetError):  # the other side gave up
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def start(self, content: bytes, *, ranges: bool = True, etag: str = '"one"', length: int | None = None) -> bytes:
        """Send the head of an answer, and return the body that belongs to it."""
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        offset = 0
        if wanted and ranges and condition in (None, etag):
            offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - offset if length is None else length))
        self.end_headers()
        return content[offset:]

    def break_off(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def whole(handler: Handler, content: bytes) -> None:
    handler.wfile.write(handler.start(content))


def breaks_after(count: int, **head: object) -> Behaviour:
    def behaviour(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.start(content, **head)[:count])  # type: ignore[arg-type]
        handler.break_off()

    return behaviour


def closes(handler: Handler, content: bytes) -> None:
    handler.break_off()


def stalls_after(count: int) -> Behaviour:
    def behaviour(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.start(content)[:count])
        handler.wfile.flush()
        handler.rfile.read(1)  # until the other side has had enough
        handler.close_connection = True

    return behaviour


def drips(handler: Handler, content: bytes) -> None:
    for byte in handler.start(content):
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.02)


def ignores_ranges(handler: Handler, content: bytes) -> None:
    handler.wfile.write(handler.start(content, ranges=False))


def has_a_new_version(handler: Handler, content: bytes) -> None:
    handler.wfile.write(handler.start(content, etag='"two"'))


def has_no_tag(handler: Handler, content: bytes) -> None:
    handler.wfile.write(handler.start(content, etag=""))


def status(code: int, **headers: str) -> Behaviour:
    def behaviour(handler: Handler, content: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behaviour


def sends(other: bytes) -> Behaviour:
    def behaviour(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.start(other))

    return behaviour


def wrong_bytes(handler: Handler, content: bytes) -> None:
    handler.wfile.write(handler.start(bytes(len(content)), etag=""))


def chunked(step: int, times: int) -> Behaviour:
    """Says nothing about the length; a step of -1 sends everything backwards."""

    def behaviour(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(times):
            handler.wfile.write(b"%x\r\n" % len(content) + content[::step] + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return behaviour


def other_part(handler: Handler, content: bytes) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-9/{len(content)}")
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(content[:10])


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side gives up now and then; that is what is tested."""


@dataclass
class Host:
    """A server of one file; each request is met with the next behaviour, and in the end always with the last."""

    content: bytes
    behaviours: list[Behaviour]
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    """The Range and If-Range of each request."""
    url: str = ""


Serve = Callable[..., Host]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(content: bytes, *behaviours: Behaviour) -> Host:
        server = Server(("127.0.0.1", 0), Handler)
        host = Host(content, list(behaviours or [whole]), url=f"http://127.0.0.1:{server.server_port}/made.tar.gz")
        server.host = host  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return host

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


FILES = {"meta": b"names", "train": np.random.default_rng(0).bytes(60_000), "test": b""}


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


CONTENT = packed(
    [member("made", type=tarfile.DIRTYPE), *(member(f"made/{name}", file) for name, file in FILES.items())]
)


def archive_of(content: bytes, *hosts: Host | str) -> Archive:
    return Archive(
        name="made.tar.gz",
        hosts=tuple(host if isinstance(host, str) else host.url for host in hosts),
        md5=hashlib.md5(content).hexdigest(),
        size_bytes=len(content),
        folder="made",
        files={name: len(file) for name, file in FILES.items()},
    )


def assert_whole(folder: Path) -> None:
    """Everything that was packed is there, and nothing else but the lock."""
    assert {path.name: path.read_bytes() for path in (folder / "made").iterdir()} == FILES
    assert {path.name for path in folder.iterdir()} <= {"made", ".made.tar.gz.lock"}


def assert_nothing(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= {".made.tar.gz.lock"}


# What arrives --------------------------------------------------------------------------------------------------------


def test_fetched_files_are_those_in_the_archive(serve: Serve, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    archive = archive_of(CONTENT, serve(CONTENT))
    assert (
        fetch(archive, tmp_path / "new" / "cache", lambda *counts: seen.append(counts)) == tmp_path / "new/cache/made"
    )
    assert_whole(tmp_path / "new" / "cache")
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_is_not_fetched_again(serve: Serve, tmp_path: Path) -> None:
    host = serve(CONTENT)
    archive = archive_of(CONTENT, host)
    assert fetch(archive, tmp_path) == fetch(archive, tmp_path)
    assert len(host.asked) == 1


def test_damaged_folder_is_replaced(serve: Serve, tmp_path: Path) -> None:
    archive = archive_of(CONTENT, serve(CONTENT))
    (fetch(archive, tmp_path) / "train").write_bytes(b"short")
    (tmp_path / ".made.unpacking").mkdir()  # from a process that was killed
    (tmp_path / ".made.unpacking" / "train").write_bytes(b"half")
    fetch(archive, tmp_path)
    assert_whole(tmp_path)


# What breaks ---------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(places=st.lists(st.integers(1, len(CONTENT) - 1), min_size=1, max_size=3), tagged=st.booleans())
def test_resumed_download_equals_whole_file(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory, places: list[int], tagged: bool
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    etag = '"one"' if tagged else ""
    host = serve(CONTENT, *(breaks_after(place, etag=etag) for place in places), whole if tagged else has_no_tag)
    fetch(archive_of(CONTENT, host), folder, patience=replace(QUICK, attempts=5))
    assert_whole(folder)
    # Each request asks for exactly what the ones before have not brought.
    there = 0
    for (wanted, condition), place in zip(host.asked, [*places, len(CONTENT)], strict=False):
        assert wanted == (f"bytes={there}-" if there else None)
        assert condition == (etag or None if there else None)
        there = min(there + place, len(CONTENT))
    assert there == len(CONTENT)


def test_next_call_goes_on_where_the_last_one_broke(serve: Serve, tmp_path: Path) -> None:
    broken = serve(CONTENT, breaks_after(20_000), closes)
    with pytest.raises(DownloadError, match="broke off"):
        fetch(archive_of(CONTENT, broken), tmp_path, patience=QUICK)
    assert (tmp_path / "made.tar.gz.part").read_bytes() == CONTENT[:20_000]
    assert not (tmp_path / "made").exists()
    host = serve(CONTENT)
    fetch(archive_of(CONTENT, host), tmp_path, patience=QUICK)
    assert host.asked == [("bytes=20000-", None)]  # another host's tag would mean nothing here
    assert_whole(tmp_path)


def test_interrupted_call_leaves_what_has_arrived(serve: Serve, tmp_path: Path) -> None:
    host = serve(CONTENT, whole)

    def interrupt(there: int, expected: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(archive_of(CONTENT, host), tmp_path, interrupt, patience=QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {"made.tar.gz.part", ".made.tar.gz.lock"}
    there = (tmp_path / "made.tar.gz.part").stat().st_size
    fetch(archive_of(CONTENT, host), tmp_path, patience=QUICK)
    assert host.asked[1:] == ([(f"bytes={there}-", None)] if there < len(CONTENT) else [])
    assert_whole(tmp_path)


@pytest.mark.parametrize("second", [ignores_ranges, has_a_new_version, other_part, status(416)])
def test_host_that_cannot_continue_sends_everything(serve: Serve, tmp_path: Path, second: Behaviour) -> None:
    fetch(archive_of(CONTENT, serve(CONTENT, breaks_after(30_000), second, whole)), tmp_path, patience=QUICK)
    assert_whole(tmp_path)


@pytest.mark.parametrize("rest", [b"", b"garbage", bytes(len(CONTENT)), bytes(len(CONTENT) + 1)])
def test_leftover_of_something_else_does_no_harm(serve: Serve, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "made.tar.gz.part").write_bytes(rest)
    fetch(archive_of(CONTENT, serve(CONTENT, has_no_tag)), tmp_path, patience=QUICK)
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "trouble",
    [
        status(503),
        status(503, Retry_After="3600"),
        status(429),
        status(500),
        closes,
        stalls_after(0),
        stalls_after(9_000),
    ],
)
def test_passing_trouble_passes(serve: Serve, tmp_path: Path, trouble: Behaviour) -> None:
    host = serve(CONTENT, trouble, trouble, whole)
    fetch(archive_of(CONTENT, host), tmp_path, patience=replace(IMPATIENT, attempts=10))
    assert len(host.asked) >= 3
    assert_whole(tmp_path)


def test_silent_server_is_given_up(serve: Serve, tmp_path: Path) -> None:
    def silent(handler: Handler, content: bytes) -> None:
        handler.rfile.read(1)

    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+: no answer within 0\.3 s, 3 times in a row"):
        fetch(archive_of(CONTENT, serve(CONTENT, silent)), tmp_path, patience=IMPATIENT)


def test_host_that_makes_progress_is_not_given_up(serve: Serve, tmp_path: Path) -> None:
    host = serve(CONTENT, breaks_after(len(CONTENT) // 20))
    fetch(archive_of(CONTENT, host), tmp_path, patience=QUICK)
    assert len(host.asked) > 3 * QUICK.attempts
    assert_whole(tmp_path)


# What lies -----------------------------------------------------------------------------------------------------------

TROUBLE = {
    "not found": (status(404), "HTTP 404"),
    "forbidden": (status(403), "HTTP 403"),
    "always busy": (status(503), "HTTP 503 Service Unavailable, 3 times in a row"),
    "too short": (sends(CONTENT[:-1]), "offers 60,"),
    "too long": (sends(CONTENT + b"x"), "offers 60,"),
    "a page instead": (sends(b"<html>log in first</html>"), "offers 25 bytes, expected 60,"),
    "endless": (chunked(-1, 3), "sends more than 60,"),
    "other bytes": (wrong_bytes, "MD5"),
    "promises more than it sends": (breaks_after(100), "broke off"),
    "stands still": (stalls_after(0), "no byte for 0.3 s, 3 times in a row"),
    "drips": (drips, "sends only 0."),
    "moved in a circle": (status(302, Location="/made.tar.gz"), "redirects"),
}
SLOW = {"stands still", "drips"}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_next_host_is_asked_when_one_fails(serve: Serve, tmp_path: Path, trouble: str) -> None:
    behaviour, _ = TROUBLE[trouble]
    bad, good = serve(CONTENT, behaviour), serve(CONTENT)
    fetch(archive_of(CONTENT, bad, good), tmp_path, patience=IMPATIENT if trouble in SLOW else QUICK)
    assert bad.asked
    assert good.asked
    assert_whole(tmp_path)


@pytest.mark.parametrize("trouble", sorted(set(TROUBLE) - {"other bytes"}))
def test_every_host_is_named_with_its_reason(serve: Serve, tmp_path: Path, trouble: str) -> None:
    behaviour, reason = TROUBLE[trouble]
    hosts = [serve(CONTENT, behaviour), serve(CONTENT, status(404))]
    with pytest.raises(DownloadError) as caught:
        fetch(archive_of(CONTENT, *hosts), tmp_path, patience=IMPATIENT if trouble in SLOW else QUICK)
    lines = str(caught.value).splitlines()
    assert hosts[0].url.split("/")[2] in lines[1]
    assert reason in lines[1]
    assert hosts[1].url.split("/")[2] in lines[2]
    assert "HTTP 404" in lines[2]
    assert all(remedy in lines[3] for remedy in (hosts[0].url, "--data FOLDER", "--data shapes"))
    assert not (tmp_path / "made").exists()


def test_length_that_nobody_told_is_no_obstacle(serve: Serve, tmp_path: Path) -> None:
    fetch(archive_of(CONTENT, serve(CONTENT, chunked(1, 1))), tmp_path, patience=QUICK)
    assert_whole(tmp_path)


def test_wrong_checksum_everywhere_is_an_error_that_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    hosts = [serve(CONTENT, wrong_bytes), serve(CONTENT, wrong_bytes)]
    with pytest.raises(ChecksumMismatch, match=f"expected {hashlib.md5(CONTENT).hexdigest()}"):
        fetch(archive_of(CONTENT, *hosts), tmp_path, patience=QUICK)
    assert_nothing(tmp_path)


def test_without_a_network_every_host_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        hosts = [f"http://127.0.0.1:{unused.getsockname()[1]}/made.tar.gz", "http://no-such-host.invalid/made.tar.gz"]
        started = time.monotonic()
        with pytest.raises(DownloadError) as caught:
            fetch(archive_of(CONTENT, *hosts), tmp_path)
    assert time.monotonic() - started < 10
    assert "refused" in str(caught.value)
    assert "no-such-host.invalid: " in str(caught.value)
    assert_nothing(tmp_path)


# What must not be unpacked -------------------------------------------------------------------------------------------

GOOD = [member(f"made/{name}", file) for name, file in FILES.items()]
OUTSIDE = {
    "parent": member("../outside", b"x"),
    "parent within": member("made/../../outside", b"x"),
    "absolute": member("/tmp/thirtytwo-outside", b"x"),
    "backslash": member("made\\..\\..\\outside", b"x"),
    "link": member("made/link", type=tarfile.SYMTYPE, linkname="/etc"),
    "link in place of a file": member("made/meta", type=tarfile.SYMTYPE, linkname="../../outside"),
    "hard link": member("made/link", type=tarfile.LNKTYPE, linkname="../outside"),
    "device": member("made/device", type=tarfile.CHRTYPE),
    "pipe": member("made/pipe", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("first", [True, False])
def test_archive_that_leads_elsewhere_is_refused(serve: Serve, tmp_path: Path, name: str, first: bool) -> None:
    content = packed([OUTSIDE[name], *GOOD] if first else [*GOOD, OUTSIDE[name]])
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="expected plain files"):
        fetch(archive_of(content, serve(content)), cache, patience=QUICK)
    assert_nothing(cache)
    assert list(tmp_path.iterdir()) == [cache]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (packed(GOOD[:-1]), "lacks test"),
        (packed([*GOOD, GOOD[0]]), "there twice"),
        (packed([member("made/meta", b"longer"), *GOOD[1:]]), "made/meta is 6 bytes"),
        (packed([member(f"made/made/{name}", file) for name, file in FILES.items()]), "lacks meta, train, test"),
        (CONTENT[:-5000], "not a whole .tar.gz"),
        (b"no archive at all", "not a whole .tar.gz"),
    ],
)
def test_archive_of_another_form_is_refused(serve: Serve, tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        fetch(archive_of(content, serve(content)), tmp_path, patience=QUICK)
    assert_nothing(tmp_path)


def test_files_that_nobody_asked_for_stay_in_the_archive(serve: Serve, tmp_path: Path) -> None:
    content = packed([member("readme.html", b"x"), member("made/file.txt~", b"x"), *GOOD])
    fetch(archive_of(content, serve(content)), tmp_path, patience=QUICK)
    assert_whole(tmp_path)


# What the machine does not allow -------------------------------------------------------------------------------------

FETCH = """
import json, resource, sys
from pathlib import Path
from thirtytwo.data.download import Archive, fetch
from thirtytwo.errors import StorageError
limit, folder, archive = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))  # no file grows beyond this
try:
    print(fetch(Archive(**json.loads(archive)), Path(folder)))
except StorageError as error:
    print("StorageError", error)
"""


def start_fetching(archive: Archive, folder: Path, most_file_bytes: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(most_file_bytes), str(folder), json.dumps(vars(archive))],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_full_while_downloading_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "made.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"No space left on device.*expected room for .* free some"):
        fetch(archive_of(CONTENT, serve(CONTENT)), tmp_path, patience=QUICK)
    assert_nothing(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
@pytest.mark.parametrize("part", ["downloading", "unpacking"])
def test_file_that_cannot_be_written_whole_leaves_nothing(serve: Serve, tmp_path: Path, part: str) -> None:
    content = CONTENT if part == "downloading" else packed([*GOOD[:1], member("made/train", bytes(60_000)), *GOOD[2:]])
    assert (len(content) > 50_000) == (part == "downloading")
    process = start_fetching(archive_of(content, serve(content)), tmp_path, most_file_bytes=50_000)
    assert process.communicate(timeout=60)[0].startswith("StorageError")
    assert_nothing(tmp_path)


def test_too_little_room_is_said_before_anything_is_fetched(serve: Serve, tmp_path: Path) -> None:
    host = serve(CONTENT)
    archive = replace(archive_of(CONTENT, host), files={"train": 10**18})
    with pytest.raises(StorageError, match=r"only [\d,]+ MB free.*expected room for 1,000,000,000,000 MB"):
        fetch(archive, tmp_path, patience=QUICK)
    assert host.asked == []


def test_place_that_is_no_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="THIRTYTWO_CACHE"):
        fetch(archive_of(CONTENT), tmp_path / "file" / "cache")


def test_of_two_processes_at_once_one_fetches_and_both_have_it(serve: Serve, tmp_path: Path) -> None:
    arrived, waiting = threading.Event(), threading.Event()

    def slow(handler: Handler, content: bytes) -> None:
        body = handler.start(content)
        handler.wfile.write(body[:1000])
        handler.wfile.flush()
        arrived.set()
        waiting.wait(60)  # the second process has been started by then
        handler.wfile.write(body[1000:])

    host = serve(CONTENT, slow)
    archive = archive_of(CONTENT, host)
    processes = [start_fetching(archive, tmp_path) for _ in range(2)]
    assert arrived.wait(60)
    waiting.set()
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == [str(tmp_path / "made")] * 2
    assert len(host.asked) == 1
    assert_whole(tmp_path)


@pytest.mark.parametrize("name", ARCHIVES)
def test_official_host_comes_first_and_has_a_mirror(name: str) -> None:
    archive = ARCHIVES[name]
    assert archive.hosts[0].startswith("https://www.cs.toronto.edu/~kriz/")
    assert len(archive.hosts) >= 2
    assert all(host.startswith("https://") and host.endswith(archive.name) for host in archive.hosts)
