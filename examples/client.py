"""A small Tryton client. It logs in, polls the bus and prints the message,
over HTTP and with the standard library only."""
import base64
import json
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener


class TrytonClient:
    """A session of a user on a database.

    bus is the address of the bus. By default it is the address in the answer
    to the login, or that of the server.
    """

    def __init__(
            self, url, database, user='admin', password='admin', timeout=600,
            bus=None):
        self.url = self.bus_url = f'{url.rstrip("/")}/{quote(database)}'
        self.user = user
        self.timeout = timeout
        self.id = str(uuid.uuid4())
        self.channel = f'client:{self.id}'
        self.last_message = None
        self._opener = build_opener(ProxyHandler({}))
        self._headers = {'Content-Type': 'application/json'}
        self._rpc = '/rpc/'  # where trytond answers from 8.0 on

        # The third value, from 7.8 on, is the host of the bus
        self.user_id, self.token, *host = self.login(password)
        if bus := bus or next(filter(None, host), None):
            self.bus_url = f'{bus.rstrip("/")}/{quote(database)}'
        session = f'{user}:{self.user_id}:{self.token}'
        self._headers['Authorization'] = (
            'Session ' + base64.b64encode(session.encode()).decode())

    def login(self, password):
        params = (self.user, {'password': password}, 'en')
        try:
            return self.rpc('common.db.login', *params)
        except HTTPError as error:
            if error.code not in {404, 405}:
                raise
        self._rpc = '/'  # until 7.8
        return self.rpc('common.db.login', *params)

    def rpc(self, method, *params):
        "Call the method and return its result"
        response = self.post(
            self._rpc, {'id': 0, 'method': method, 'params': params})
        if response.get('error'):
            raise RuntimeError(response['error'])
        return response['result']

    def poll(self, *channels):
        """Wait for the next message in the channels, by default the client's
        own. Return (channel, message), both None without a message"""
        response = self._post(self.bus_url + '/bus', {
                'last_message': self.last_message,
                'channels': list(channels or [self.channel]),
                })
        if message := response['message']:
            self.last_message = message['message_id']
        return response['channel'], message

    def post(self, path, data):
        "Return the answer to data, both JSON; HTTPError if it is not 2xx"
        return self._post(self.url + path, data)

    def _post(self, url, data):
        request = Request(
            url, data=json.dumps(data).encode(), headers=self._headers)
        with self._opener.open(request, timeout=self.timeout) as response:
            return json.load(response)


def main(url, database, password):
    client = TrytonClient(url, database, password=password, timeout=15)
    print(
        f"logged in as {client.user}, polling {client.channel} at "
        f"{client.bus_url}/bus")
    with ThreadPoolExecutor() as executor:
        poll = executor.submit(client.poll)
        time.sleep(.5)  # until the poll waits at the server
        started = time.perf_counter()
        client.post('/demo/notify', {
                'title': "Hello", 'body': "from trytond", 'client': client.id})
        try:
            channel, message = poll.result()
        except TimeoutError:
            message = None
        milliseconds = (time.perf_counter() - started) * 1000
    if not message:
        sys.exit("no message arrived")
    print(f"received {message['title']!r}, {message['body']!r} on {channel}")
    print(f"latency {milliseconds:.1f} ms, from the request to notify to the "
        "message, including the session check and the commit")


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit("usage: client.py URL DATABASE PASSWORD, for example "
            "client.py http://localhost:8000 tryton secret")
    main(*sys.argv[1:])
