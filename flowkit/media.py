"""Images, audio and files: in users' messages, in tools' results, and between the steps of a recipe.

The bytes of a tool's result are too large for an event, a row of the journal or a text. So `flowkit.blobs` stores them,
and the result contains a `blob:` address with their type and size. A request to a model gets the bytes back, as parts
of a message, and `data` returns them in a function that takes an image.
"""

import base64
import binascii
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import unquote_to_bytes

from flowkit.blobs import BLOB, read_address, read_blob, write_blob
from flowkit.codec import JSON

Detail = Literal["auto", "low", "high"]
"""How closely a model looks at an image."""

LINK = "text/uri-list"
FILE_ID = "application/x-file-id"
"""The reference that a blob may hold instead of bytes: the URL of an image, or the id of a file on a server.

Only an image that a tool returned becomes a part of a message: nobody can guess the hash of an address.
"""
GONE = "its content isn't kept any more"


class _Serializer:
    """The serializer that pydantic uses for a value without an annotation, made on first use."""

    def __init__(self) -> None:
        self._made: dict[type, Any] = {}

    def __get__(self, instance: object, owner: type) -> Any:
        if owner not in self._made:
            from pydantic import TypeAdapter

            self._made[owner] = TypeAdapter(owner).serializer
        return self._made[owner]


class _Media:
    """How pydantic reads images, audio and files, and writes them where they are part of a result."""

    __slots__ = ()
    __pydantic_serializer__ = _Serializer()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from dataclasses import MISSING, fields
        from typing import get_type_hints

        from pydantic_core import core_schema

        # Written out, not taken from the dataclass: that would be one definition for two forms, and in a model with
        # two images pydantic would write the second one's bytes.
        hints = get_type_hints(cls)
        declared = {
            field.name: core_schema.typed_dict_field(
                handler.generate_schema(hints[field.name]), required=field.default is MISSING
            )
            for field in fields(cast(Any, cls))
        }

        def make(values: dict[str, Any]) -> Any:
            return cls(**values)

        return core_schema.no_info_after_validator_function(
            make,
            core_schema.no_info_before_validator_function(
                _read_fields, core_schema.typed_dict_schema(declared, extra_behavior="forbid")
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _serialize, return_schema=core_schema.dict_schema(), when_used="json"
            ),
        )

    @property
    def address(self) -> str:
        """The address of the content, or the content itself as a `data:` URL."""
        raise NotImplementedError

    def to_json(self) -> dict[str, JSON]:
        """Write the fields, as messages hold them."""
        raise NotImplementedError

    @property
    def media_type(self) -> str:
        """The type of the content, such as `image/png`, if the address contains it; otherwise empty."""
        blob = read_address(self.address)
        if blob is not None:
            return "" if blob.media_type in (LINK, FILE_ID) else blob.media_type
        if self.address.startswith("data:"):
            return self.address[5:].partition(",")[0].partition(";")[0] or "text/plain"
        return ""

    @property
    def data(self) -> bytes:
        """The content; raises `ValueError` where it is only named by an address, or isn't kept any more."""
        blob = read_address(self.address)
        found = read_blob(self.address) if blob is not None else _decode(self.address)
        if found is None or (blob is not None and blob.media_type in (LINK, FILE_ID)):
            raise ValueError(f"{type(self).__name__} at {self.address[:80]!r}: {GONE if blob else 'not fetched'}")
        return found


@dataclass(frozen=True, slots=True)
class Image(_Media):
    """An image: an `https:` or `data:` URL."""

    url: str
    detail: Detail = "auto"

    @classmethod
    def of(cls, data: bytes, media_type: str = "image/png", detail: Detail = "auto") -> Self:
        """Make one of its bytes."""
        return cls(_encode(data, media_type), detail)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one from a file; its name says what it is."""
        return cls.of(Path(path).read_bytes(), _guess(path, "image/png"))

    @property
    def address(self) -> str:
        return self.url

    def to_json(self) -> dict[str, JSON]:
        return {"type": "image", "url": self.url, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Audio(_Media):
    """Sound: a `data:` URL. Few models accept it; others receive its type and size as text."""

    url: str

    @classmethod
    def of(cls, data: bytes, media_type: str = "audio/wav") -> Self:
        """Make one of its bytes."""
        return cls(_encode(data, media_type))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one from a file; its name says what it is."""
        return cls.of(Path(path).read_bytes(), _guess(path, "audio/wav"))

    @property
    def address(self) -> str:
        return self.url

    def to_json(self) -> dict[str, JSON]:
        return {"type": "audio", "url": self.url}


@dataclass(frozen=True, slots=True)
class File(_Media):
    """A file: its base64 content as a `data:` URL, or the id of an uploaded one."""

    name: str
    data_url: str | None = None
    file_id: str | None = None

    @classmethod
    def of(cls, data: bytes, name: str, media_type: str | None = None) -> Self:
        """Make one of its bytes."""
        return cls(name, _encode(data, media_type or _guess(name, "application/octet-stream")))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one from the disk."""
        return cls.of(Path(path).read_bytes(), Path(path).name)

    @property
    def address(self) -> str:
        return self.data_url or ""

    def to_json(self) -> dict[str, JSON]:
        return {"type": "file", "name": self.name, "data_url": self.data_url, "file_id": self.file_id}


Media = Image | Audio | File


def write_media(media: Media) -> dict[str, JSON]:
    """Write it as a part of a result: its content kept as a blob, its type and size beside the address."""
    if isinstance(media, File) and media.file_id is not None:
        address = write_blob(media.file_id.encode(), FILE_ID)
    elif media.address.startswith(BLOB):
        address = media.address
    elif media.address.startswith("data:"):
        data = _decode(media.address)
        if data is None:
            raise ValueError(f"the 'data:' URL of {type(media).__name__} isn't valid")
        address = write_blob(data, media.media_type)
    elif media.address.startswith(("https://", "http://")):
        address = write_blob(media.address.encode(), LINK)
    else:
        raise ValueError(f"{type(media).__name__} has the address {media.address[:60]!r}, expected data: or https:")
    moved = replace(media, data_url=address, file_id=None) if isinstance(media, File) else replace(media, url=address)
    blob = read_address(address)
    assert blob is not None, "it was written so"
    size: dict[str, JSON] = {"media_type": blob.media_type, "size_bytes": blob.size_bytes} if moved.media_type else {}
    return {**moved.to_json(), **size}


def read_media(value: JSON) -> Media | None:
    """Read a value that `write_media` wrote; None for any other, including look-alikes."""
    if not isinstance(value, dict):
        return None
    kind, address = value.get("type"), value.get("url", value.get("data_url"))
    if read_address(address) is None:
        return None
    match kind:
        case "image":
            return Image(str(address), cast(Detail, value.get("detail") or "auto"))
        case "audio":
            return Audio(str(address))
        case "file":
            return File(str(value.get("name") or ""), str(address))
        case _:
            return None


def show_media(value: JSON) -> tuple[JSON, tuple[Media, ...]]:
    """Replace each image, sound and file by a short word; return the value and these media in their order.

    >>> picture = {"type": "image", "url": "blob:" + "0" * 64 + "#8,image/png", "detail": "auto"}
    >>> show_media({"title": "sales", "chart": picture})[0]
    {'title': 'sales', 'chart': '[image 1: image/png, 8 bytes]'}
    """
    found: list[Media] = []

    def show(part: JSON) -> JSON:
        media = read_media(part)
        if media is not None:
            found.append(media)
            return f"[{name_media(media, len(found))}]"
        if isinstance(part, dict):
            return {name: show(inner) for name, inner in part.items()}
        return [show(inner) for inner in part] if isinstance(part, list) else part

    return show(value), tuple(found)


def name_media(media: Media, position: int) -> str:
    """Name it as a model reads it: `image 1: image/png, 8 bytes`."""
    blob = read_address(media.address)
    kind = type(media).__name__.lower()
    name = f" {media.name!r}" if isinstance(media, File) and media.name else ""
    told = f": {media.media_type}, {blob.size_bytes:,} bytes" if blob is not None and media.media_type else ""
    return f"{kind} {position}{name}{told}"


def fill_media(media: Media) -> Media | None:
    """Return the media with its content back in it; None when that is no longer kept."""
    blob = read_address(media.address)
    if blob is None:
        return media
    data = read_blob(media.address)
    if data is None:
        return None
    if blob.media_type == FILE_ID and isinstance(media, File):
        return replace(media, data_url=None, file_id=data.decode())
    url = data.decode() if blob.media_type == LINK else _encode(data, blob.media_type)
    return replace(media, data_url=url) if isinstance(media, File) else replace(media, url=url)


def read_all(items: Sequence[Mapping[str, JSON]]) -> tuple[Media, ...]:
    """Read the media that a message keeps beside its text."""
    return tuple(filter(None, map(read_media, map(dict, items))))


def _read_fields(value: object) -> object:
    """Return the fields alone: a result also has its type and size."""
    if isinstance(value, _Media):
        return {name: item for name, item in value.to_json().items() if name != "type"}
    if not isinstance(value, Mapping):
        return value
    given = cast(Mapping[str, object], value)
    if given.get("type") not in ("image", "audio", "file"):
        return given
    return {name: item for name, item in given.items() if name not in ("type", "media_type", "size_bytes")}


def _serialize(value: object) -> dict[str, JSON]:
    if not isinstance(value, Media):
        from pydantic_core import PydanticSerializationUnexpectedValue

        # In a union the next member is tried.
        raise PydanticSerializationUnexpectedValue(f"expected an image, audio or a file, got {type(value).__name__}")
    return write_media(value)


def _encode(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _decode(url: str) -> bytes | None:
    if not url.startswith("data:"):
        return None
    head, _, data = url.partition(",")
    try:
        return base64.b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)
    except (binascii.Error, ValueError):
        return None


def _guess(path: str | Path, otherwise: str) -> str:
    return mimetypes.guess_type(str(path))[0] or otherwise
