"""Rooms (records with a chat) and the users that may read them."""
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from .bus import publish
from .client import TrytonClient
from .server import ROOT, environment, write_config

# Where trytond finds the module fastbus_room
PATH = str(ROOT / 'tests' / 'support' / 'modules')

PASSWORD = 'vrPX8g2nQy'


def activate(uri, database, directory):
    "Add the module with the rooms to a database"
    config = write_config(Path(directory) / 'trytond.conf', {
            'database': {'uri': uri}, 'bus': {'class': None}})
    subprocess.run(
        [sys.executable, Path(sys.executable).parent / 'trytond-admin',
            '-c', config, '-d', database, '-m', '-u', 'fastbus_room'],
        env=environment(PYTHONPATH=os.pathsep.join(
                [PATH, environment()['PYTHONPATH']])),
        check=True, stdin=subprocess.DEVNULL)


class Rooms:
    "Rooms of a trytond and their users"

    def __init__(self, trytond, database):
        self._url, self.database = trytond.url, database
        self._admin = TrytonClient(trytond.url, database, timeout=60)
        self._group, = self._rpc('res.group.create', [{'name': uuid.uuid4()}])
        groups = {'__class__': 'Eval', 'v': 'groups', 'd': []}
        language = {'__class__': 'Eval', 'v': 'language', 'd': ''}
        self._rpc('ir.rule.group.create', [{
                    'name': "Rooms", 'model': 'fastbus.room',
                    'global_p': True, 'perm_create': False,
                    'perm_write': False, 'perm_delete': False,
                    'rules': [('create', [{'domain': json.dumps([
                                            ['group', 'in', groups],
                                            ['language', '=', language],
                                            ])}])],
                    }])

    def _rpc(self, method, *args):
        args = json.loads(json.dumps(args, default=str))
        return self._admin.rpc(f'model.{method}', *args, {})

    def room(self, language='en', active=True):
        "Return the channel of a new room"
        id_, = self._rpc('fastbus.room.create', [{
                    'group': self._group, 'language': language,
                    'active': active}])
        return f'chat:fastbus.room,{id_}'

    def post(self, room, text):
        "Let trytond publish a message to the chat of a room"
        self._rpc('ir.chat.channel.post', room.removeprefix('chat:'), text)

    def client(self, may_read, bus=None):
        "Return a client of a new user that may or may not read the rooms"
        login = f'user-{uuid.uuid4()}'
        id_, = self._rpc('res.user.create', [{
                    'name': login, 'login': login, 'password': PASSWORD}])
        if may_read:
            self.grant(id_)
        return TrytonClient(
            self._url, self.database, login, PASSWORD, timeout=60, bus=bus)

    def grant(self, user):
        self._rpc('res.user.write', [user], {
                'groups': [('add', [self._group])]})

    def revoke(self, user):
        self._rpc('res.user.write', [user], {
                'groups': [('remove', [self._group])]})

    def deny_model(self, is_denied):
        "Deny all users to read any room"
        access = self._rpc('ir.model.access.search', [
                ('model', '=', 'fastbus.room')], 0, None, None)
        if access:
            self._rpc('ir.model.access.delete', access)
        if is_denied:
            self._rpc('ir.model.access.create', [{
                        'model': 'fastbus.room', 'perm_read': False}])

    def follows(self, client, *rooms):
        "The rooms whose chat the client gets a message of"
        # The message before may be shown again.
        text = str(uuid.uuid4())
        for room in rooms:
            self.post(room, text)
        publish(self.database, client.channel, {'type': text})
        found = []
        while True:
            channel, message = client.poll(client.channel, *rooms)
            if message and message['type'] == text:
                return found
            if message and message.get('message', {}).get('content') == text:
                found.append(channel)
