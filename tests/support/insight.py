"""A middleware that describes the process which answers."""
import json
import os
from http.client import HTTPConnection


def insight(wsgi_app):
    "Name the process in each response, and answer GET /insight"
    def wsgi(environ, start_response):
        def start(status, headers, *args):
            headers = [*headers, ('X-Process', str(os.getpid()))]
            return start_response(status, headers, *args)

        if environ['PATH_INFO'] != '/insight':
            return wsgi_app(environ, start)
        import trytond_fastbus
        body = json.dumps({
                'process': os.getpid(),
                'threads': len(os.listdir('/proc/self/task')),
                'waiting': sum(
                    bus['waiting']
                    for bus in trytond_fastbus.statistics().values()),
                }).encode()
        start('200 OK', [
                ('Content-Type', 'application/json'),
                ('Content-Length', str(len(body)))])
        return [body]
    return wsgi


def look(server):
    "Return the description of one of the server's processes"
    connection = HTTPConnection('127.0.0.1', server.port, timeout=30)
    try:
        connection.request('GET', '/insight')
        return json.load(connection.getresponse())
    finally:
        connection.close()
