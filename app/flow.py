"""When a connection reads and writes: uvicorn's own, which can be told that reading has to wait.

Reading is resumed from several places: an answer ends, an application asks for a body. While bytes are held that came
before what would be read, each of them would make a client that pipelines fill the memory.
"""

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reading goes on when it may, and not when somebody asks for it."""

    holds = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.holds:
            super().resume_reading()
