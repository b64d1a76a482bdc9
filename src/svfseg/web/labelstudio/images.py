"""The images of tasks: from one folder, from the task itself, or from one Label Studio."""

import base64
import http.client
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, quote, unquote, urlsplit

from svfseg.annotations.inputs import as_image
from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.web.uploads import decode_image

# The largest file that is fetched: no photograph to annotate is larger.
MAX_BYTES = 100_000_000
# The largest picture that is read out of a task or fetched, and how many times as long as wide.
MAX_PIXELS = 60_000_000
_SECONDS = 30
_HEAD = 200  # characters before the comma of a data: address, at most


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message,
        newurl: str,
    ) -> None:  # fmt: skip
        """Follow none."""


@dataclass(frozen=True)
class ImageSource:
    """Where images of tasks may come from; all other addresses are refused.

    Attributes:
        folder: files below it are read; Label Studio's addresses of local files and uploads are
            looked up there. None reads no files.
        url: address of Label Studio, whose images are fetched where there is a token too.
        token: token of a user of Label Studio.
    """

    folder: Path | None = None
    url: str | None = None
    token: str | None = None

    def read(self, address: str) -> Array:
        """Read the image at an address, (height, width, 3) uint8, upright.

        Args:
            address: as tasks hold it.

        Raises:
            MissingFileError: there is no such file.
            InputError: the address is not allowed, or there is no image that can be read.
        """
        if not isinstance(address, str) or not address:
            raise InputError(f"the task's image is {address!r}: expected its address")
        short = address if len(address) < 200 else f"{address[:60]}..."
        try:
            if address.startswith("data:"):
                return _from_bytes(decode_address(address), short)
            path = self._local(address)
            if path is not None and (path.is_file() or not self._fetches(address)):
                return as_image(path)
            return _from_bytes(self._fetch(address), short)
        except InputError:  # some of them are an OSError too
            raise
        except OSError as error:
            raise InputError(f"{short} cannot be read ({error.strerror or error})") from error
        except (ValueError, RuntimeError) as error:  # no path or URL; a link that points at itself
            raise InputError(f"{short!r} is not an address of an image ({error})") from error

    def _local(self, address: str) -> Path | None:
        """The file that an address means; None where it names a host, or there is no folder."""
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            return None
        name = address
        if parts.path.startswith("/data/local-files"):
            name = parse_qs(parts.query).get("d", [""])[0]
        elif parts.path.startswith("/data/"):
            name = unquote(parts.path.removeprefix("/data/"))
        if self.folder is None:
            return None
        if "\0" in name:
            raise InputError(f"{address!r} holds a null character: give the path of a file")
        root = self.folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{address} lies outside the folder of images: give a file below it")
        return path

    def _fetches(self, address: str) -> bool:
        is_url = urlsplit(address).scheme in ("http", "https") or address.startswith("/data/")
        return bool(self.url and self.token) and is_url

    def _fetch(self, address: str) -> bytes:
        if not self._fetches(address):
            raise InputError(
                f"{address} is not read: give the folder of the images, or the address and a "
                "token of Label Studio",
                settings=("images", "url", "api_key"),
            )
        base, parts = urlsplit(str(self.url)), urlsplit(address)
        if (parts.scheme or base.scheme, parts.netloc or base.netloc) != (base.scheme, base.netloc):
            raise InputError(f"{address} is not fetched: only images of {self.url} are")
        query = f"?{parts.query}" if parts.query else ""
        request = urllib.request.Request(
            f"{base.scheme}://{base.netloc}/{quote(unquote(parts.path.lstrip('/')))}{query}",
            headers={"Authorization": f"Token {self.token}"},
        )
        try:
            opener = urllib.request.build_opener(_NoRedirect)
            with opener.open(request, timeout=_SECONDS) as answer:
                content: bytes = answer.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{address} was not fetched ({error}): check the token") from None
        if len(content) > MAX_BYTES:
            raise InputError(f"{address} has more than {MAX_BYTES / 1e6:.0f} MB: make it smaller")
        return content


def decode_address(address: str) -> bytes:
    """Decode a ``data:`` address.

    Raises:
        InputError: it is not base64, or too large.
    """
    head, _, body = address[:_HEAD].partition(",")
    if len(address) > MAX_BYTES * 4 / 3 + _HEAD:
        raise InputError(f"{head[:60]} has more than {MAX_BYTES / 1e6:.0f} MB: make it smaller")
    body = address[len(head) + 1 :]
    if not head.endswith(";base64"):
        raise InputError(f"{head[:60]} is not an image in base64")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise InputError(f"{head[:60]} is damaged base64 ({error})") from None


def _from_bytes(content: bytes, name: str) -> Array:
    return decode_image(content, MAX_PIXELS, name)
