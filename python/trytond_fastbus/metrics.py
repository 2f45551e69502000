"""The metrics of a trytond that answers the polls itself."""
from . import _native


class Middleware:
    """Answers a path with the metrics of this process, for Prometheus

    It asks for no session. Each process of the WSGI server counts for itself.
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
