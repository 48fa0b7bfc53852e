"""Sockets and bytes: the HTTP server, its connections, and what a request is before it has a meaning."""
