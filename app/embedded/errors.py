"""The only error of this package. Its message is one or two sentences for a person, and contains the value."""


class EmbeddedError(Exception):
    """The embedded servers cannot be started, shared or stopped. The message says why."""
