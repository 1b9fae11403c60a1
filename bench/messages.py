"""HTTP messages in what arrives, as far as the benchmarks need them: with a Content-Length, or without a body."""

Message = tuple[bytes, bytes, bytes]


def first_message(data: bytes) -> Message | None:
    """Its head, its body, and what follows; None until all of it is there."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    at = head.lower().find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return (head, rest[:length], rest[length:]) if len(rest) >= length else None


def status_of(head: bytes) -> int:
    return int(head[9:12])
