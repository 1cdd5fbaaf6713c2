"""Reads METADATA and WHEEL: the headers by Python's parser, the text after them as it is.

Python's parser of whole messages reads a description as mail too, with messages in messages; that
is nobody's meaning here and has no end.
"""

from __future__ import annotations

import email.parser
import email.policy
import re
from email.message import Message

from ..errors import ArtifactError
from . import limits

__all__ = ["read_headers"]

_BLANK = re.compile(r"^\r?\n", re.MULTILINE)


def read_headers(data: bytes, where: str) -> Message:
    """The headers of `data`, and as payload what follows the first blank line.

    Raises:
        ArtifactError: it is not UTF-8, or the headers are too long, too many, or have a line that
            is none.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"not UTF-8: {error}", where=where) from error
    blank = _BLANK.search(text)
    head, body = (text[: blank.start()], text[blank.end() :]) if blank else (text, "")
    lines = head.count("\n")
    if len(head) > limits.HEADER_SIZE or lines > limits.HEADER_LINES:
        raise ArtifactError(
            f"larger than headers may be: {len(head)} characters in {lines} lines",
            where=where,
            expected=f"at most {limits.HEADER_SIZE} in {limits.HEADER_LINES}",
        )
    alone = re.search(r"\r(?!\n)", head)
    if alone:
        raise ArtifactError(
            f"a carriage return within a line at offset {alone.start()}: for one reader a header"
            " ends there, for another it goes on",
            where=where,
            expected="lines that end in a line feed",
        )
    message = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(head)
    rest = message.get_payload()
    envelope = message.get_unixfrom()
    if message.defects or rest or envelope is not None:
        line = envelope or str(rest).partition("\n")[0]
        raise ArtifactError(
            f"a line that is no header, {line[:80]!r}: for one reader the headers end there, for"
            " another they go on",
            where=where,
            expected="<name>: <value>, and a blank line before the description",
        )
    message.set_payload(body)
    return message
