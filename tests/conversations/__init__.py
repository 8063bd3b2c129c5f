"""What a client can do on a connection besides asking: byte by byte, to `fourways serve` as it is run."""
