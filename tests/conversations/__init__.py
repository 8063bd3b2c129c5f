"""Everything that a client can do on a connection, byte by byte, tested on a real `fourways serve`."""
