"""A reverse proxy in front of trytond and the bus, configured wrongly."""
import http.client
import re
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Front:
    """A proxy on one address, as a context manager.

    bus and trytond are the addresses of the two, or a status that is answered
    instead, or a function of the headers that returns the status and the body.
    bus_headers and trytond_headers replace headers that are passed on; a
    header with None is dropped. timeout is the limit for an answer, in
    seconds.
    """

    def __init__(
            self, bus, trytond=404, bus_headers=None, trytond_headers=None,
            certificate=None, timeout=60):
        targets = {
            True: (bus, bus_headers or {}),
            False: (trytond, trytond_headers or {})}

        class Handler(BaseHTTPRequestHandler):

            def do_POST(self):
                length = int(self.headers.get('Content-Length') or 0)
                body = self.rfile.read(length)
                target, headers = targets[
                    bool(re.match('/[^/]+/+bus$', self.path))]
                if callable(target):
                    self._answer(*target(self.headers))
                    return
                if isinstance(target, int):
                    self._answer(target, b'', {'Location': '/elsewhere'})
                    return
                headers = {
                    **self.headers, 'X-Forwarded-For': '127.0.0.1', **headers}
                connection = http.client.HTTPConnection(
                    urllib.parse.urlsplit(target).netloc, timeout=timeout)
                try:
                    connection.request(
                        self.command, self.path, body, {
                            name: value for name, value in headers.items()
                            if value is not None})
                    response = connection.getresponse()
                    self._answer(
                        response.status, response.read(), response.headers)
                except TimeoutError:
                    self._answer(504)
                except OSError:
                    self._answer(502)
                finally:
                    connection.close()

            do_OPTIONS = do_POST

            def _answer(self, status, body=b'', headers=None):
                self.send_response(status)
                for name, value in (headers or {}).items():
                    if name.lower() not in {'content-length', 'connection'}:
                        self.send_header(name, value)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # such as disconnected clients

        self._server = Server(('127.0.0.1', 0), Handler)
        self.port = self._server.server_port
        self.url = f'http://127.0.0.1:{self.port}'
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True)
            self.url = f'https://localhost:{self.port}'

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
