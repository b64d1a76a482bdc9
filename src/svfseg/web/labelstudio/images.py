"""Images of tasks: from one folder, from the task itself, or from the Label Studio given."""

import base64
import http.client
import io
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from PIL import Image, UnidentifiedImageError

from svfseg.annotations.inputs import as_image
from svfseg.data.images import Array
from svfseg.errors import InputError

# More is no photograph to annotate: a limit on what one address may cost.
MOST_BYTES = 100_000_000
_SECONDS = 30


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
        folder: files below it; addresses of Label Studio's local files and uploads are looked up
            there.
        url: of Label Studio; its images are fetched, where a token is given too.
        token: of a user of it.
    """

    folder: Path | None = None
    url: str | None = None
    token: str | None = None

    def read(self, address: str) -> Array:
        """The image at an address, (height, width, 3) uint8, upright.

        Args:
            address: as tasks hold it.

        Raises:
            MissingFileError: no such file.
            InputError: an address that is not allowed, or no image there.
        """
        if not isinstance(address, str) or not address:
            raise InputError(f"the task's image is {address!r}: expected its address")
        shown = address if len(address) < 200 else f"{address[:60]}..."
        try:
            if address.startswith("data:"):
                return _from_bytes(_decode(address), shown)
            path = self._local(address)
            if path is not None and (path.is_file() or not self._fetches(address)):
                return as_image(path)
            return _from_bytes(self._fetch(address), shown)
        except Image.DecompressionBombError as error:
            raise InputError(f"{shown} is too large an image ({error})") from None

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
        root = self.folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{address} lies outside the folder of images: give a file below it")
        return path

    def _fetches(self, address: str) -> bool:
        named = urlsplit(address).scheme in ("http", "https") or address.startswith("/data/")
        return bool(self.url and self.token) and named

    def _fetch(self, address: str) -> bytes:
        if not self._fetches(address):
            raise InputError(
                f"{address} is not read: give the folder of images with --images, or Label "
                "Studio's address and token with --url and --api-key"
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
                content: bytes = answer.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{address} was not fetched ({error}): check the token") from None
        if len(content) > MOST_BYTES:
            raise InputError(f"{address} has more than {MOST_BYTES / 1e6:.0f} MB: make it smaller")
        return content


def _decode(address: str) -> bytes:
    head, _, body = address.partition(",")
    if not head.endswith(";base64"):
        raise InputError(f"{head[:60]} is no image in base64")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise InputError(f"{head[:60]} is damaged base64 ({error})") from None


def _from_bytes(content: bytes, name: str) -> Array:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{name} has 16 or 32 bits a pixel: scale it to 8 bits first")
            opened: Any = image
            return as_image(opened, name)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image that can be read") from None
    except (OSError, SyntaxError) as error:
        raise InputError(f"{name} is a damaged image: {error}") from None
