"""Images out of a multipart request: within limits while the body streams in, and never on the disk."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

FIELD = "images"
_LONGEST_NAME = 100  # of an upload's name, in characters
_OTHER_FIELDS = 16  # that a form may have besides

# For OpenAPI, which cannot see it from the signature of what takes the request as it is.
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "Image files: JPEG, PNG, WebP, GIF, BMP, TIFF or PGM/PPM. Of several "
                        "frames the first is taken.",
                    }
                },
            }
        }
    },
}


class Upload(NamedTuple):
    """An image as it was sent: its file's name, made printable, and its bytes."""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # of a SpooledTemporaryFile: never over to the disk


async def read(request: Request, max_bytes: int, max_images: int) -> list[Upload]:
    """The images of a request, in order.

    Args:
      request: whose body nobody has read.
      max_bytes: of the whole body.
      max_images: files that it may hold.

    Raises:
      HTTPException: 415 for another content type, 413 for too large a body, whatever its header says, 400 for
        one that is no form or that ended early, 422 for a form without images.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, f"the content type is {kind[:100]!r}; expected multipart/form-data")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parser = _InMemoryParser(
        request.headers, _limited(request, max_bytes), max_files=max_images, max_fields=_OTHER_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"not a form that can be read: {error.message}") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection was closed before the request ended") from error
    try:
        return _images(form.multi_items())
    finally:
        await form.close()


async def _limited(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body, chunk by chunk, until it is too large."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the request has more than {max_bytes:,} bytes, the limit")


def _images(items: list[tuple[str, UploadFile | str]]) -> list[Upload]:
    found = [value for name, value in items if name == FIELD]
    if not found:
        others = ", ".join(repr(printable(name)) for name, _ in items[:5]) or "none"
        raise HTTPException(422, f"the form has no field {FIELD!r}; its fields are: {others}")
    if not all(isinstance(value, UploadFile) for value in found):
        raise HTTPException(422, f"{FIELD!r} is text; send files, each with a file name")
    return [
        Upload(printable(value.filename) or f"image {number}", value.file.read())
        for number, value in enumerate(found)
    ]


def printable(text: str) -> str:
    """A name that strangers chose, safe to repeat: without control characters, and not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_NAME])
