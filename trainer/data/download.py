"""Fetching a file: from several mirrors, on from where it was cut off, and checked."""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tqdm import tqdm

from trainer.errors import DataError, TrainerError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 20.0
_TRIES_PER_MIRROR = 5
_CHUNK_BYTES = 2**18


@final
class DownloadError(TrainerError):
    """No mirror gave the file: there is no network, or its publishers have moved it."""


@dataclass(frozen=True)
class Download:
    """A file on the network.

    Attributes:
        name: Of the file.
        mirrors: Folders that hold it, as URLs, in the order in which they are tried.
        md5: Checksum that the publishers state, in hexadecimal.
    """

    name: str
    mirrors: tuple[str, ...]
    md5: str


def fetch(download: Download, folder: Path) -> Path:
    """Return the file in `folder`, fetching it if it is not there.

    What has come is kept in NAME.part; the next try, in this run or a later one, goes on after it.

    Raises:
        DownloadError: No mirror gave the file.
        DataError: It cannot be written.
    """
    target, part = folder / download.name, folder / f"{download.name}.part"
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _has_checksum(target, download.md5):
            return target
        for mirror in download.mirrors:
            url = f"{mirror}/{download.name}"
            reason = _try_mirror(url, part, download.md5)
            if reason is None:
                return part.replace(target)
            logger.warning("%s: %s", url, reason)
            reasons.append(f"{url}: {reason}")
    except OSError as error:
        raise DataError(
            f"{target}: writing failed ({error}); free space there or choose another folder"
        ) from error
    raise DownloadError(
        f"{download.name} cannot be downloaded: {'; '.join(reasons)}. Without a network, fetch it"
        " by other means and name its folder with --from, or draw a stand-in for CIFAR-10 with"
        " `torrefy data shapes`"
    )


def _try_mirror(url: str, part: Path, md5: str) -> str | None:
    """Complete `part` from one URL; return what went wrong, None if nothing did."""
    for _ in range(_TRIES_PER_MIRROR):
        if _has_checksum(part, md5):
            return None
        offset = part.stat().st_size if part.exists() else 0
        try:
            response = _open(url, offset)
        except urllib.error.HTTPError as error:
            error.close()
            if not offset or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return f"{error.code} {error.reason}"
            part.unlink()  # longer than the file, so no beginning of it
            continue
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        with response:
            is_whole = _append(response, part)
        if is_whole and not _has_checksum(part, md5):
            part.unlink()
            if not offset:
                return f"expected the md5 checksum {md5}, received another file"
    return None if _has_checksum(part, md5) else "the connection breaks off every time"


def _open(url: str, offset: int) -> http.client.HTTPResponse:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    request = urllib.request.Request(url, headers=headers)
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    return response


def _append(response: http.client.HTTPResponse, part: Path) -> bool:
    """Add what comes to `part`, from its beginning if the server does not know Range.

    Returns:
        Whether the response came to its end.
    """
    is_rest = response.status == http.HTTPStatus.PARTIAL_CONTENT
    offset = part.stat().st_size if is_rest else 0
    with (
        part.open("ab" if is_rest else "wb") as file,
        tqdm(
            desc=part.stem,
            total=offset + response.length if response.length is not None else None,
            initial=offset,
            unit="B",
            unit_scale=True,
            disable=None,  # none unless on a terminal
        ) as bar,
    ):
        while True:
            try:
                chunk = response.read(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException):
                return False
            if not chunk:
                return not response.length
            file.write(chunk)
            bar.update(len(chunk))


def _has_checksum(file: Path, md5: str) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest() == md5
