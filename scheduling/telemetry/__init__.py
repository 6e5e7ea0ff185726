"""What the service tells about itself: logs, metrics and traces.

The room holds the one table of metrics (`metrics.py`), structured logs with the request id (`logs.py`), the HTTP page
that Prometheus reads (`serve.py`) and the W3C trace context (`traces.py`). Others call it; it calls nobody.

It must not know what is measured: no SQL, no gRPC, no Redis, no settings. Numbers are handed in, by the code where
things happen or by the `refresh` callback of a scrape. Of the other rooms it may import only `domain`. It never keeps
or prints a payload, and ids of end users leave it shortened. Nothing is global: `app.py` builds one `Metrics` with one
registry per process.
"""
