"""The session that a check opens, as a client does."""
import base64
import uuid

from .clients import address
from .web import request


class Session:
    "The session of a user, as a client opens it at trytond"

    def __init__(self, url, database, user):
        self.url = url
        self.channel = 'client:%s' % uuid.uuid4()
        self.token = self.bus_url = None
        self.headers = {}
        self.database = database
        self._user = user
        self._rpc = address(url, database).removesuffix('bus')

    def login(self, report, password):
        "Log in, and return whether that succeeded"
        thing = 'login'
        parameters = [self._user, {'password': password}, 'en']
        # From 8.0 on the path is below rpc/.
        base = self._rpc
        for self._rpc in [base + 'rpc/', base]:
            answer = self._call('common.db.login', *parameters)
            if answer.status not in {404, 405}:
                break
        content = answer.json
        result = content.get('result') if isinstance(content, dict) else None
        if answer.status == 200 and isinstance(result, list | tuple):
            user_id, self.token, *host = result
            session = '%s:%s:%s' % (self._user, user_id, self.token)
            self.headers['Authorization'] = 'Session ' + base64.b64encode(
                session.encode()).decode()
            report.ok(thing, "'%s' is logged in at %s" % (
                    self._user, self.url))
            self._find_bus(report, host)
            return True
        if answer.status == 401:
            words = "401, the login or the password is wrong"
        elif answer.status == 429:
            words = "429, too many failed logins: wait some minutes"
        elif answer.status in {404, 405}:
            words = (
                "%d, no trytond answers there: check that the database exists "
                "there, where the proxy sends /<database>/, and that --url is "
                "the address of trytond, not of the bus only" % answer.status)
        elif answer.status != 200:
            words = answer.words
        elif isinstance(content, dict) and content.get('error'):
            words = (
                "trytond asks for more than a password ([session] "
                "authentications), or it has failed: %s" % content['error'])
        else:
            words = "200, but the server there is not trytond"
        report.failed(thing, "%s: %s" % (self.url, words))
        return False

    def _find_bus(self, report, host):
        self.bus_url = address(self.url, self.database)
        if not host:
            return
        # From 7.8 on the login returns the address of the bus.
        host, = host
        if not host:
            self.bus_url = None
            report.failed(
                'bus host', "the login tells clients that there is no bus, "
                "because [bus] allow_subscribe is off in the configuration of "
                "trytond: set it to True")
            return
        told = address(host, self.database)
        if told == self.bus_url:
            report.ok('bus host', "clients are told to poll there as well")
        else:
            report.warning(
                'bus host', "clients are told to poll at %s, not at %s: if "
                "this is not your [bus] url_host, let the proxy pass on Host "
                "and X-Forwarded-Proto, and set [web] num_proxies"
                % (host, self.url))
        self.bus_url = told

    def logout(self, report):
        answer = self._call('common.db.logout')
        if answer.status != 200:
            report.warning(
                'logout', "the session is left open: %s" % answer.words)

    def _call(self, method, *parameters):
        return request(
            self._rpc, {'id': 0, 'method': method, 'params': parameters},
            self.headers)
