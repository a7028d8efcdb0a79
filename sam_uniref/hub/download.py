"""A file from the net: whole or not there, of the size and SHA-256 that were announced, resumed where it broke off."""

from __future__ import annotations

import ipaddress
import logging
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from filelock import FileLock

from sam_uniref.state import file_sha256

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_ATTEMPTS = 10


class _UnusableError(Exception):
    """What lies in the partial file is not the beginning of the file that is wanted."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects that stay encrypted."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """The request at the new address, which must be as safe as the old one."""
        check_address(newurl)
        if urlsplit(req.full_url).scheme != urlsplit(newurl).scheme:
            raise ValueError(f"{req.full_url} sends on to {newurl}, which is not https; nothing was downloaded")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """Refuse an address that others could read or change on the way.

    Raises:
        ValueError: If it is neither ``https://`` nor ``http://`` on this very machine.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname):
        return
    raise ValueError(f"weights are downloaded over https:// alone (http:// from this machine itself), got {url!r}")


def download(url: str, target: str | Path, *, size: int, sha256: str) -> None:
    """Download a file, or go on with a download that broke off; one process does, others wait for it.

    While it runs there is ``.NAME.part`` beside the target, which takes the target's name once its size and hash are
    right. A progress bar is shown where somebody watches.

    Args:
        url: ``https://``, or ``http://`` from this machine itself.
        target: The file's name; one that is there already with this hash is left alone, another one is replaced.
        size: In bytes; not one more is read.
        sha256: In hexadecimal.

    Raises:
        ValueError: If the address is not such a one, or what came is another file.
        FileNotFoundError: If the file can't be had, or the connection breaks again and again; what came is kept.
        OSError: If the disk has no room.
    """
    check_address(url)
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if has_content(target, size, sha256):
            return
        part = target.parent / f".{target.name}.part"
        resumed = part.exists()
        _complete(url, part, size)
        got = file_sha256(part)
        if got != sha256 and resumed:  # the beginning may be another version's
            part.unlink()
            _complete(url, part, size)
            got = file_sha256(part)
        if got != sha256:
            part.unlink()
            raise ValueError(
                f"what {url} gave is another file: its sha256 is {got} and not {sha256}; it was thrown away. Try "
                "again, and if that does not help, get the file from elsewhere"
            )
        part.replace(target)


def has_content(path: Path, size: int, sha256: str) -> bool:
    """Whether a file is there and is this one."""
    return path.is_file() and path.stat().st_size == size and file_sha256(path) == sha256


def _complete(url: str, part: Path, size: int) -> None:
    """Bring a partial file to its size, in as many connections as it takes while each brings something."""
    began_anew = False
    for attempt in range(_ATTEMPTS):
        before = _length(part)
        if before == size:
            return
        try:
            _check_room(part.parent, size - before)
            _receive(url, part, size)
        except _UnusableError as error:
            part.unlink(missing_ok=True)
            if before == 0 or began_anew:
                raise ValueError(f"{url} is another file: {error}; nothing of it was kept") from error
            began_anew = True
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            kept = _length(part)
            if kept <= before or attempt == _ATTEMPTS - 1:
                raise FileNotFoundError(
                    f"{url} could not be downloaded ({_reason(error)})"
                    + (f"; {kept:,} of {size:,} bytes are kept, and the next try goes on from there" if kept else "")
                ) from error
            logger.info("the connection broke at %d of %d bytes; going on from there", kept, size)


def _receive(url: str, part: Path, size: int) -> None:
    """One connection: what is missing at the end of the partial file is added to it."""
    start = _length(part)
    request = urllib.request.Request(url, headers={"User-Agent": "sam_uniref", "Accept-Encoding": "identity"})  # noqa: S310 - the scheme is checked
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = _opener(url).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise _UnusableError(f"it has no more than {start:,} bytes") from error
        raise
    with response:
        if start and response.status != 206:  # the server begins anew
            start = 0
        announced = response.headers.get("Content-Length")
        if announced is not None and start + int(announced) != size:
            raise _UnusableError(f"it has {start + int(announced):,} bytes and not {size:,}")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, part.name[1:].removesuffix(".part"), start, size)


def _copy(response: Any, file: BinaryIO, name: str, start: int, size: int) -> None:
    """Copy a response to its end.

    Raises:
        ConnectionError: If it ends too early.
        _UnusableError: If it does not end where it should.
    """
    from huggingface_hub.utils import tqdm

    count = start
    with tqdm(desc=name, initial=start, total=size, unit="B", unit_scale=True, disable=None) as bar:
        while chunk := response.read1(_CHUNK):
            count += len(chunk)
            if count > size:
                raise _UnusableError(f"it has more than {size:,} bytes")
            file.write(chunk)
            bar.update(len(chunk))
    if count < size:
        raise ConnectionError(f"the connection ended after {count:,} of {size:,} bytes")


def _check_room(folder: Path, size: int) -> None:
    """Refuse a download that does not fit."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{folder} has room for {free:,} bytes, and {size:,} are to be downloaded; make room there")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """The system's proxies, unless the file is on this machine."""
    if _is_loopback(urlsplit(url).hostname):
        return urllib.request.build_opener(_CheckedRedirects, urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(_CheckedRedirects)


def _is_loopback(host: str | None) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _length(path: Path) -> int:
    """Bytes in a file; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    """What went wrong, without the type's own wrapping."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error or type(error).__name__)
