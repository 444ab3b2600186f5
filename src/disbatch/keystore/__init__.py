"""Values under keys, through which programs and a run talk: in the driver, or in a Redis-protocol server."""
