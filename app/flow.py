"""The flow control of a connection: uvicorn's own, with a flag that keeps reading paused.

Reading is resumed in several places: when an answer ends, when an application asks for a body. While earlier bytes are
still held, resuming would let a client that pipelines fill the memory.
"""

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Flow control that does not resume reading while `holds` is set."""

    holds = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.holds:
            super().resume_reading()
