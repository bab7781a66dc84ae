"""What crosses the wire between devices and the server. Pure: no I/O, no clock, no randomness."""
