"""Sessions, liveness and drain, without the streams."""
