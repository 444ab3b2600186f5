"""Values under keys, through which programs and a run communicate: in the driver, or in a Redis-protocol
server."""
