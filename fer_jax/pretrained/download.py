"""Downloads files to a cache, with resumption, verification, and helpful errors without a network."""

import hashlib
import os
import pathlib
import re
import tempfile
from typing import TYPE_CHECKING

from fer_jax import io_utils
from fer_jax.locks import lock

if TYPE_CHECKING:
    import requests

CACHE_VARIABLE = "FER_JAX_CACHE"
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file that is neither cached nor available for download; the message says where to put it."""


class WrongFileError(OSError):
    """A file with another checksum than expected."""


def cache_dir() -> pathlib.Path:
    """Returns the cache folder: $FER_JAX_CACHE, else ~/.cache/fer_jax.

    Raises:
      DownloadError: the variable is not set, and there is no home folder.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return pathlib.Path(folder)
    try:
        return pathlib.Path.home() / ".cache" / "fer_jax"
    except RuntimeError as error:
        raise DownloadError(f"there is no home folder: set ${CACHE_VARIABLE} to a writable folder") from error


def fetch(url: str, *, checksum: str, folder: str, megabytes: float) -> pathlib.Path:
    """Returns the path of a file, from the cache or, on first use, from the network.

    The file is renamed when complete and verified; interrupted downloads resume. With several processes, one
    downloads and the others wait. Files that are copied to the cache manually are verified, too.

    Args:
      url: of the file.
      checksum: 'sha256:' or 'md5:' with all or the first hexadecimal digits; '' uses the SHA-256 from the
        server, as sent by the Hugging Face Hub, and none without a network.
      folder: subfolder of the cache.
      megabytes: approximate size, for messages.

    Raises:
      DownloadError: there is no network, or the server refuses.
      OSError: the cache is not writable; the message names $FER_JAX_CACHE.
      WrongFileError: the cached or downloaded file is another one.
    """
    target = cache_dir() / folder / url.rsplit("/", 1)[1]
    if not target.is_file():
        with io_utils.named_by(f"${CACHE_VARIABLE}", target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=target.parent).close()
        with lock(target.parent):
            if not target.is_file():  # another process may have downloaded it
                _fetch_new(url, target, checksum, megabytes)
                return target
    if not _matches(target, checksum):
        raise WrongFileError(f"{target} is not the file from {url} (expected {checksum}): remove it")
    return target


def _fetch_new(url: str, target: pathlib.Path, checksum: str, megabytes: float) -> None:
    import requests  # takes as long to import as a small file to fetch

    partial = target.with_name(target.name + ".part")
    try:
        checksum = checksum or _served_checksum(url)
        _download(url, partial)
    except requests.RequestException as error:
        details = ", ".join(filter(None, [f"about {megabytes:.{0 if megabytes >= 1 else 1}f} MB", checksum]))
        raise DownloadError(
            f"{url} cannot be downloaded ({_reason(error)}): copy it to {target} ({details})"
        ) from error
    if not _matches(partial, checksum):
        partial.unlink()
        raise WrongFileError(
            f"the download from {url} is not the expected file (expected {checksum}): try again"
        )
    io_utils.move_into_place(partial, target)


def digest(path: pathlib.Path, algorithm: str = "sha256") -> str:
    """Returns the hexadecimal checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _matches(path: pathlib.Path, checksum: str) -> bool:
    algorithm, _, digits = checksum.partition(":")
    return not checksum or digest(path, algorithm).startswith(digits)


def _served_checksum(url: str) -> str:
    """Returns the SHA-256 that the Hugging Face Hub sends in a header for large files, or ''."""
    import requests

    reply = requests.head(url, allow_redirects=False, timeout=_TIMEOUT)
    reply.raise_for_status()
    tag = reply.headers.get("X-Linked-Etag", "").strip('"')
    return f"sha256:{tag}" if re.fullmatch("[0-9a-f]{64}", tag) else ""


def _download(url: str, partial: pathlib.Path) -> None:
    """Downloads the rest of `partial`."""
    import requests
    from tqdm import tqdm

    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
        if done and reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # already complete
        reply.raise_for_status()
        if reply.status_code != requests.codes.partial_content:
            done = 0  # the server starts over
        size = int(reply.headers.get("Content-Length", 0)) + done
        bar = tqdm(total=size or None, initial=done, unit="B", unit_scale=True, desc=partial.stem)
        with bar, partial.open("ab" if done else "wb") as file:
            for chunk in reply.iter_content(_CHUNK):
                bar.update(file.write(chunk))
    if size and partial.stat().st_size < size:
        raise requests.ConnectionError("the connection ended early: run the same command to resume")


def _reason(error: "requests.RequestException") -> str:
    import requests

    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
