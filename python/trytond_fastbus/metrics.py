"""The metrics of class mode."""
from . import _native


class Middleware:
    """Serves the metrics of this process at a path, for Prometheus.

    It requires no session. Each process of the WSGI server has its own
    counters.
    """

    def __init__(self, app, path='/trytond-bus/metrics'):
        self.app = app
        self.path = path

    def __call__(self, environ, start_response):
        if (environ.get('PATH_INFO') != self.path
                or environ['REQUEST_METHOD'] not in {'GET', 'HEAD'}):
            return self.app(environ, start_response)
        text = _native.metrics().encode()
        start_response('200 OK', [
                ('Content-Type', 'text/plain; version=0.0.4; charset=utf-8'),
                ('Content-Length', str(len(text))),
                ('Cache-Control', 'no-store'),
                ])
        return [text]
