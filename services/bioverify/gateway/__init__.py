"""The same rewards over HTTP: JSON for programs in any language, jobs for large files, pages for people.

The gateway is a client of the aggregator like any other and scores nothing itself, so a reward over HTTP equals the
one over gRPC. A request's JSON is read, scored and written in a worker thread: the event loop only moves bytes, and
health checks are answered however large a request is. Errors are problem+json (RFC 9457) with the path of each field.
"""
