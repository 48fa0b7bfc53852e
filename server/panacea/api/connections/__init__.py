"""The HTTP server, its connections, and the reading and writing of requests as bytes."""
