"""A folder on any of Arrow's file systems, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, final

import pyarrow as pa
from pyarrow import fs

from trainer.errors import DataError, TrainerError, UsageError

T = TypeVar("T")

FAILURES: tuple[type[Exception], ...] = (OSError, pa.ArrowException)

_PROBE_S = 60.0
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:/)")
_SECRETS = re.compile(r"(?<=://)[^/@]*:[^/@]*@|[?].*")  # credentials, and options
_REMEDIES = {
    "s3": "the bucket must exist, and the credentials come from AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role",
    "gs": "the bucket must exist, and the credentials come from GOOGLE_APPLICATION_CREDENTIALS",
    "hdfs": "set JAVA_HOME, HADOOP_HOME, and CLASSPATH to what `hadoop classpath --glob` prints",
}
_ERRNO_REMEDIES = {
    errno.ENOSPC: "no space is left: free some, keep fewer, or choose another folder",
    errno.EDQUOT: "the quota is used up: free some space, or choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "there is no permission to write: choose another folder, or have it allowed",
    errno.EPERM: "there is no permission to write: choose another folder, or have it allowed",
}


@final
class Folder:
    """A folder that is made if it is not there.

    Args:
        uri: A local path, or a URI that `pyarrow.fs` knows.
        files: The file system of the path `uri`, instead of the one that it names.

    Attributes:
        uri: For messages.

    Raises:
        UsageError: No file system has such a URI.
        TrainerError: The folder cannot be made or written, or there is no answer.
    """

    def __init__(self, uri: str, files: fs.FileSystem | None = None) -> None:
        scheme = _SCHEME.match(uri)
        self.uri = (_SECRETS.sub("", uri) if scheme else uri).rstrip("/")
        self._remedy = _REMEDIES.get(scheme[0] if scheme else "", "check the path")
        self._files, root = _within(_PROBE_S, self.uri, lambda: self._open(uri, files))
        self._root = root.rstrip("/")
        _within(_PROBE_S, self.uri, self._probe)

    def _open(self, uri: str, files: fs.FileSystem | None) -> tuple[fs.FileSystem, str]:
        if files is not None:
            return files, uri
        if _SCHEME.match(uri) is None:
            return fs.LocalFileSystem(), str(Path(uri).absolute())
        try:
            opened: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UsageError(
                f"{self.uri}: expected a local path, file:///…, hdfs://…, s3://… or gs://…; {error}"
            ) from error
        except (OSError, pa.ArrowException, ImportError) as error:
            raise TrainerError(self._message("opening", "", error)) from error
        return opened

    def _probe(self) -> None:
        with self._errors("making the folder"):
            self._files.create_dir(self._root, recursive=True)
        name = f".probe.{secrets.token_hex(4)}"
        self.write(name, b"torrefy writes checkpoints here")
        self.delete_file(name)

    def folders(self) -> list[str]:
        """Return the names of the folders inside."""
        with self._errors("listing"):
            inside = self._files.get_file_info(fs.FileSelector(self._root))
        return [info.base_name for info in inside if info.type == fs.FileType.Directory]

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the size of each file in bytes, None where there is none."""
        with self._errors("looking up files"):
            found = self._files.get_file_info([self._path(name) for name in names])
        return [info.size if info.type == fs.FileType.File else None for info in found]

    def make(self, name: str) -> None:
        """Make a folder inside."""
        with self._errors("making", name):
            self._files.create_dir(self._path(name), recursive=True)

    def create(self, name: str) -> Any:
        """Return a stream that writes a file inside; its own errors are Arrow's and OSError."""
        with self._errors("writing", name):
            return self._files.open_output_stream(self._path(name), compression=None)

    def open(self, name: str) -> Any:
        """Return a stream that reads a file inside; its own errors are Arrow's and OSError.

        Raises:
            DataError: There is none, or it cannot be opened.
        """
        try:
            return self._files.open_input_stream(self._path(name), compression=None)
        except FAILURES as error:
            raise DataError(f"{self.uri}/{name}: cannot be read ({error})") from error

    def read(self, name: str) -> bytes:
        """Return what a small file holds.

        Raises:
            DataError: There is none, or it cannot be read.
        """
        try:
            with self.open(name) as stream:
                content: bytes = stream.read()
        except FAILURES as error:
            raise DataError(f"{self.uri}/{name}: cannot be read ({error})") from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all, in place of one of that name."""
        parent, _, last = name.rpartition("/")
        temporary = f"{parent}/.{last}.{secrets.token_hex(4)}".lstrip("/")
        with self._errors("writing", name):
            try:
                with self.create(temporary) as stream:
                    stream.write(content)
                self.sync(temporary)
                self._move(temporary, name)
                self.sync(parent)
            except FAILURES:
                self.delete_file(temporary)
                raise

    def _move(self, name: str, target: str) -> None:
        try:
            self._files.move(self._path(name), self._path(target))
        except FAILURES:
            if self.sizes([target]) == [None]:
                raise
            # HDFS does not move onto a file.
            self._files.delete_file(self._path(target))
            self._files.move(self._path(name), self._path(target))

    def sync(self, name: str) -> None:
        """Have a file's content, or a folder's names, survive a loss of power, where we can."""
        if not isinstance(self._files, fs.LocalFileSystem):
            return  # these have the content once the stream is closed
        handle = os.open(self._path(name), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def delete_file(self, name: str) -> None:
        """Remove a file if it is there and that is possible."""
        with suppress(*FAILURES):
            self._files.delete_file(self._path(name))

    def delete_folder(self, name: str) -> None:
        """Remove a folder with all that is in it."""
        with self._errors("removing", name):
            self._files.delete_dir(self._path(name))

    @contextmanager
    def _errors(self, doing: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise TrainerError(self._message(doing, name, error)) from error

    def write_error(self, name: str, error: Exception) -> TrainerError:
        """Return what to raise when a stream of `create` has failed."""
        return TrainerError(self._message("writing", name, error))

    def _message(self, doing: str, name: str, error: Exception) -> str:
        remedy = _ERRNO_REMEDIES.get(getattr(error, "errno", None) or 0, self._remedy)
        where = f"{self.uri}/{name}" if name else self.uri
        reason = str(error).partition("\n")[0]  # libhdfs names a page of places
        return f"{where}: {doing} failed ({reason}): {remedy}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _within(limit_s: float, uri: str, call: Callable[[], T]) -> T:
    """Return what `call` returns, unless a file system that does not answer makes it wait."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="checkpoint probe", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TrainerError(
            f"{uri}: the file system did not answer in {limit_s:g} s; check its address,"
            " the network and the credentials"
        )
    return results[0]
