"""The one error of this package; its message is one or two sentences for a person, with the value in them."""


class EmbeddedError(Exception):
    """The embedded servers cannot be started, shared or stopped, for the reason that the message says."""
