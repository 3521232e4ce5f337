"""Mails, put together."""


def multipart(kind: str, boundary: str, *parts: bytes) -> bytes:
    """The fields and the content of a multipart."""
    line = boundary.encode()
    inside = b"".join(b"--" + line + b"\r\n" + part + b"\r\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode() + inside + b"--" + line + b"--\r\n"
