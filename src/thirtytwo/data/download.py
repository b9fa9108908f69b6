"""Fetching a published archive: several hosts, resumed, checked, and unpacked so that only whole folders are ever seen.

What a host sends goes into ``NAME.part``, which stays when a download breaks, so that the next attempt, from whichever
host, sends only what is missing. A checksum decides whether the result is used; where bytes of two downloads were mixed
and it is wrong, the file is fetched once more from the start. One process at a time does this in a folder; others wait.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from thirtytwo.errors import ChecksumMismatch, DataError, DownloadError, StorageError

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes expected, None where that is unknown."""


@dataclass(frozen=True)
class Archive:
    """A published .tar.gz file and what is wanted from it."""

    name: str
    """What it is called."""
    hosts: tuple[str, ...]
    """Where it is to be had, in the order in which to ask: URLs."""
    md5: str
    """Its published checksum."""
    size_bytes: int
    """Its published size."""
    folder: str
    """The folder that it holds."""
    files: Mapping[str, int]
    """The files in that folder that are wanted, with their sizes in bytes; whatever else it holds is left in it."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a host, and how often to ask it again."""

    connect_seconds: float = 3.0
    """For a host to answer at all; it is not asked again."""
    stall_seconds: float = 20.0
    """Without a single byte, before the connection counts as broken; also the span over which speed is measured."""
    slowest_bytes_per_second: float = 10_000.0
    """A host that sends less is given up: at this rate 170 MB take five hours."""
    attempts: int = 5
    """In a row and without gaining a hundredth of the file, before a host that keeps breaking off is given up."""
    pause_seconds: float = 0.5
    """Before the second attempt; twice that before the next, and so on."""
    longest_pause_seconds: float = 30.0
    """The most one waits between two attempts, also where a host asks for more."""


PATIENCE = Patience()


def fetch(archive: Archive, folder: Path, progress: Progress | None = None, *, patience: Patience = PATIENCE) -> Path:
    """Download and unpack an archive, unless that has been done.

    Args:
        archive: what to fetch, and from where.
        folder: where it is to lie; made if need be.
        progress: called now and then while bytes arrive.
        patience: when to give up.

    Returns:
        The unpacked folder, inside `folder`. It has all its files, or does not exist.

    Raises:
        DownloadError: no host delivered the archive; what has arrived is kept, and the next call goes on from there.
        ChecksumMismatch: the hosts delivered something else.
        DataError: the archive is not of the expected form.
        StorageError: disk full, or not writable; nothing is kept.
    """
    from filelock import FileLock

    target = folder / archive.folder
    part = folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{archive.name}.lock"):
            if _is_whole(archive, target):  # another process fetched it while this one waited
                return target
            try:
                _check_room(archive, folder, part)
                _download(archive, part, progress or (lambda *_: None), patience)
                _unpack(archive, part, target)
            except (OSError, DataError):
                part.unlink(missing_ok=True)
                raise
            part.unlink()
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        raise StorageError(
            f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error}); expected room for "
            f"{_megabytes(archive.size_bytes + sum(archive.files.values()))}; "
            "free some, or set THIRTYTWO_CACHE to another folder"
        ) from error
    return target


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


def _is_whole(archive: Archive, target: Path) -> bool:
    try:
        return all((target / file).stat().st_size == size for file, size in archive.files.items())
    except OSError:
        return False


def _check_room(archive: Archive, folder: Path, part: Path) -> None:
    """Rather now than after minutes of downloading."""
    there = part.stat().st_size if part.exists() else 0
    if shutil.disk_usage(folder).free < archive.size_bytes - there + sum(archive.files.values()):
        raise OSError(None, f"only {_megabytes(shutil.disk_usage(folder).free)} free")


# Downloading ---------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """An attempt failed."""

    def __init__(self, reason: str, *, again: bool, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        """Whether it makes sense to ask this host again."""
        self.wait_seconds = wait_seconds
        """What the host asked to wait before."""


def _download(archive: Archive, part: Path, progress: Progress, patience: Patience) -> None:
    """Make `part` the whole archive, or raise DownloadError or ChecksumMismatch."""
    import requests

    reasons: list[str] = []
    mismatches = 0
    for url in archive.hosts:
        with requests.Session() as session:
            try:
                _download_from(session, url, archive, part, progress, patience)
                return
            except ChecksumMismatch as error:
                mismatches += 1
                reasons.append(f"  {urlsplit(url).netloc}: {error}")
            except _Broken as broken:
                reasons.append(f"  {urlsplit(url).netloc}: {broken}")
    kind, verb = (ChecksumMismatch, "the right file") if mismatches == len(reasons) > 0 else (DownloadError, "it")
    raise kind(
        "\n".join(
            [
                f"{archive.name}: no host delivered {verb}",
                *reasons,
                f"expected {archive.size_bytes:,} bytes with MD5 {archive.md5} from one of them; try again later, or "
                f"fetch {archive.hosts[0] if archive.hosts else archive.name} by hand, unpack it and give its folder "
                "in place of the name, as in --data FOLDER, or work on drawn pictures: --data shapes",
            ]
        )
    )


def _download_from(
    session: requests.Session, url: str, archive: Archive, part: Path, progress: Progress, patience: Patience
) -> None:
    """Make `part` the whole archive with the help of one host, or raise _Broken or ChecksumMismatch."""
    from pooch.hashes import file_hash

    validator: list[str] = []  # the host's name for this version of the file, once known
    failures, started_over = 0, False
    while True:
        before = part.stat().st_size if part.exists() else 0
        if before > archive.size_bytes:
            part.unlink()
            continue
        if before < archive.size_bytes:
            try:
                _receive(session, url, archive.size_bytes, part, validator, progress, patience)
            except _Broken as broken:
                gained = (part.stat().st_size if part.exists() else 0) - before
                failures = 1 if gained >= archive.size_bytes / 100 else failures + 1
                if not broken.again:
                    raise
                if failures >= patience.attempts:
                    raise _Broken(f"{broken}, {failures} times in a row", again=False) from None
                pause = max(patience.pause_seconds * 2 ** (failures - 1), broken.wait_seconds)
                time.sleep(min(pause, patience.longest_pause_seconds))
                continue
        found = file_hash(str(part), alg="md5")  # type: ignore[no-untyped-call]
        if found == archive.md5:
            return
        part.unlink()
        if before == 0 or started_over:
            raise ChecksumMismatch(f"sent a file with MD5 {found}, expected {archive.md5}")
        started_over = True


def _receive(
    session: requests.Session,
    url: str,
    size: int,
    part: Path,
    validator: list[str],
    progress: Progress,
    patience: Patience,
) -> None:
    """One request: append to `part` what is missing from it, or write it anew where the host sends everything."""
    import requests
    import urllib3

    there = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "thirtytwo"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if validator:
            headers["If-Range"] = validator[0]
    try:
        response = session.get(
            url, headers=headers, stream=True, timeout=(patience.connect_seconds, patience.stall_seconds)
        )
    except requests.RequestException as error:
        raise _explain(error, patience) from None
    with response:
        offset = _offset(response, there, size, part)
        etag = response.headers.get("ETag", "")
        validator[:] = [etag] if etag.startswith('"') else []  # a weak one does not vouch for single bytes
        received, since, until_then = 0, time.monotonic(), 0
        with part.open("ab" if offset else "wb") as file:
            while True:
                try:
                    chunk = response.raw.read1(2**18, decode_content=False)
                except urllib3.exceptions.ReadTimeoutError:
                    raise _Broken(f"no byte for {patience.stall_seconds:g} s", again=True) from None
                except (urllib3.exceptions.HTTPError, OSError):
                    raise _Broken(f"broke off after {offset + received:,} bytes", again=True) from None
                if not chunk:
                    break
                received += len(chunk)
                if offset + received > size:
                    raise _Broken(f"sends more than {size:,} bytes", again=False)
                file.write(chunk)
                progress(offset + received, size)
                if (seconds := time.monotonic() - since) >= patience.stall_seconds:
                    speed = (received - until_then) / seconds
                    if speed < patience.slowest_bytes_per_second:
                        raise _Broken(f"sends only {speed / 1000:.1f} kB/s", again=False)
                    since, until_then = time.monotonic(), received
        if offset + received < size:
            raise _Broken(f"broke off after {offset + received:,} bytes", again=True)


def _offset(response: requests.Response, there: int, size: int, part: Path) -> int:
    """Where in the file the response starts; raises _Broken if it is of no use."""
    status = response.status_code
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == there > 0 and match[2] in ("*", str(size)):
            return there
    if status in (206, 416):  # it has another file, or cannot do what it says it can
        part.unlink(missing_ok=True)
        raise _Broken(f"sent no continuation (HTTP {status})", again=True)
    if status in (408, 425, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _Broken(f"HTTP {status} {response.reason}", again=True, wait_seconds=float(wait) if wait.isdigit() else 0)
    if status != 200:
        raise _Broken(f"HTTP {status} {response.reason}", again=False)
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size:
        raise _Broken(f"offers {int(length):,} bytes, expected {size:,}", again=False)
    return 0


def _explain(error: requests.RequestException, patience: Patience) -> _Broken:
    """Why a request got no response, in words; only a connection that was there and broke is worth another attempt."""
    import requests
    import urllib3

    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.SSLError):
        return _Broken(f"no secure connection ({cause or error})", again=False)
    if isinstance(error, requests.exceptions.ProxyError):
        return _Broken("the proxy does not let it through", again=False)
    if isinstance(error, requests.ConnectTimeout):
        return _Broken(f"no connection within {patience.connect_seconds:g} s", again=False)
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return _Broken("its name cannot be resolved (no network?)", again=False)
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return _Broken(f"no connection ({str(cause).rpartition(': ')[2]})", again=False)
    if isinstance(error, requests.ReadTimeout):
        return _Broken(f"no answer within {patience.stall_seconds:g} s", again=True)
    return _Broken(f"broke off ({cause or error})"[:200], again=isinstance(error, requests.ConnectionError))


# Unpacking -----------------------------------------------------------------------------------------------------------


def _unpack(archive: Archive, part: Path, target: Path) -> None:
    """Unpack the wanted files beside `target`, and move them there once they are whole.

    Every path that is written to is built from the names in `archive.files`, never from those in the file.

    Raises:
        DataError: it is no archive, lacks a file, or tries to write elsewhere.
        OSError: the disk is full, or not writable.
    """
    workplace = target.with_name(f".{target.name}.unpacking")
    old = target.with_name(f".{target.name}.old")
    for leftover in (workplace, old):  # of a process that was killed
        _remove(leftover)
    workplace.mkdir()
    try:
        _extract(archive, part, workplace)
        if os.path.lexists(target):
            target.replace(old)
        workplace.replace(target)
    finally:
        _remove(workplace)
        _remove(old)


def _extract(archive: Archive, part: Path, workplace: Path) -> None:
    wanted = dict(archive.files)
    try:
        with tarfile.open(part, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if (
                    path.is_absolute()
                    or ".." in path.parts
                    or "\\" in member.name
                    or not (member.isfile() or member.isdir())
                ):
                    raise DataError(
                        f"{archive.name}: holds {member.name[:80]!r}, which is a link, a device, or leads out of its "
                        "folder; expected plain files; nothing of it was kept; do not trust where it came from"
                    )
                if len(path.parts) != 2 or path.parts[0] != archive.folder or path.parts[1] not in archive.files:
                    continue
                source = tar.extractfile(member)
                size = wanted.pop(path.name, None)
                if source is None or member.size != size:
                    raise DataError(
                        f"{archive.name}: {member.name} is {member.size:,} bytes or there twice; "
                        f"expected {archive.files[path.name]:,} bytes; fetch the archive again"
                    )
                with source, (workplace / path.name).open("wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive.name}: not a whole .tar.gz archive ({error}); fetch it again") from None
    if wanted:
        raise DataError(
            f"{archive.name}: lacks {', '.join(wanted)}; expected {', '.join(archive.files)}; fetch it again"
        )


def _remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
