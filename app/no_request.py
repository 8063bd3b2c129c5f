"""The answers that do not involve the application: the input is no request, the request is incomplete, or there is no
room for it."""

from app.routers.problems import problem

FULL = problem(503, "overloaded", "There are too many connections.", headers={"Retry-After": "1"})
ENDING = problem(
    503,
    "ending",
    "The service is being stopped, and the request had not come to its end.",
    headers={"Retry-After": "1"},
)
NO_HTTP = problem(400, "unreadable", "The request cannot be read as HTTP.")
NO_VERSION = problem(505, "http-version-not-supported", "HTTP/1.1 is spoken here, and not that version.")
TOO_SLOW = problem(408, "request-timeout", "The request did not come to its end in time.")
NO_TUNNEL = problem(
    405,
    "method-not-allowed",
    "There is no tunnel here: CONNECT is not taken.",
    headers={"Allow": "GET, POST, PUT, PATCH, DELETE, HEAD"},
)
