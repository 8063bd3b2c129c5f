"""What OpenAPI says about each problem status."""

EXAMPLES = {
    400: ("The request cannot be read.", "unreadable", "The body is not JSON: Expecting value, at character 10."),
    403: (
        "A page of another site has sent it.",
        "forbidden",
        "This was sent by a page of https://example.org, which may only read: if it may write, name its host in "
        "FOURWAYS_ALLOWED_HOSTS.",
    ),
    404: ("There is no such thing.", "not-found", "There is no user 7."),
    409: ("Another row has this name already.", "conflict", "The email ada@example.com is taken."),
    412: (
        "A precondition, `If-Match` or `If-None-Match`, does not hold.",
        "precondition-failed",
        "User 1 is in version 8, which If-Match does not name.",
    ),
    408: (
        "The request did not come to its end.",
        "request-timeout",
        "The request did not come to its end in time.",
    ),
    413: ("The body is too large.", "content-too-large", "The body is larger than 65,536 bytes."),
    414: ("The URL is too long.", "uri-too-long", "The URL is longer than 65,536 bytes."),
    415: (
        "The body is not declared as JSON, or it is compressed.",
        "unsupported-media-type",
        "The body must be declared as application/json, not as text/plain.",
    ),
    422: ("The request can be read, and is not allowed.", "invalid", "body.email must look like name@example.com."),
    431: (
        "The header fields are too long, or too many.",
        "request-header-fields-too-large",
        "The header fields are longer than 32,768 bytes together.",
    ),
    500: (
        "The row is there, and cannot be read.",
        "unreadable-row",
        "User 7 cannot be read: its created_at is no time of the years 1 to 9999.",
    ),
    501: (
        "The body comes in another transfer coding than chunks.",
        "not-implemented",
        "Of transfer codings only chunked is known here, and not gzip.",
    ),
    503: (
        "A store does not answer; `Retry-After` says when to come back.",
        "database-unavailable",
        "The database does not answer.",
    ),
    505: (
        "The request is of another version of HTTP.",
        "http-version-not-supported",
        "HTTP/1.1 is spoken here, and not that version.",
    ),
}
"""For each status: its meaning, and an example's type and detail."""
