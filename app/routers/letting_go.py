"""Lets an error go once it is answered: its traceback may hold the body of the request.

The error refers to its traceback, which refers to the frame that names the error: a cycle. It would stay until the
garbage collector runs, which counts objects, not megabytes.
"""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response

Handler = Callable[[Request, Exception], Awaitable[Response]]


def letting_go(handler: Handler) -> Handler:
    """Wraps a handler so that it drops the traceback of the error that it has answered."""

    async def handle(request: Request, error: Exception) -> Response:
        answer = await handler(request, error)  # If it raises, the log needs the traceback.
        each: BaseException | None = error
        while each is not None:
            each.__traceback__ = None
            each = each.__cause__ or each.__context__
        return answer

    return handle
