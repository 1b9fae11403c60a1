"""Outputs of a task, made from the links that a provider's adapter found."""

from msgspec.structs import asdict

from service.core.task import Image, Output, OutputKind

_BY_TYPE: dict[str, OutputKind] = {"image": "image", "video": "video", "audio": "audio", "model": "model3d"}


def to_output(link: Image) -> Output:
    return Output(kind=kind_of(link.content_type), **asdict(link))


def kind_of(content_type: str | None) -> OutputKind:
    """Return the kind by the media type. Without one it is an image, as most models make."""
    return "image" if content_type is None else _BY_TYPE.get(content_type.partition("/")[0].lower(), "file")
