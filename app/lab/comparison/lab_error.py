"""The error of the comparison."""


class LabError(Exception):
    """The lab cannot work; the message says why."""
