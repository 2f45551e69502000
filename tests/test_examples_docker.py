"""The examples for Docker are not run. They agree with the examples that are.
"""
import re

import pytest
from support.server import ROOT
from trytond_fastbus import commands
from trytond_fastbus.options import KNOWN

pytestmark = pytest.mark.one_series

DOCKER = ROOT / 'examples' / 'docker'
# The lines of nginx.conf that replace lines of same-origin.conf
DIFFERENCES = {
    'server 127.0.0.1:8000;': 'server server:8000;',
    'server 127.0.0.1:8001;\n    # server unix:/run/trytond-bus.socket;':
    'server bus:8001;',
    '    # From nginx 1.25.1 on: listen 443 ssl; http2 on;\n'
    '    listen 443 ssl http2;': '    listen 443 ssl;\n    http2 on;',
    '/etc/ssl/certs/tryton.example.com.pem': '/etc/ssl/tryton/fullchain.pem',
    '/etc/ssl/private/tryton.example.com.key': '/etc/ssl/tryton/privkey.pem',
    }


def body(text):
    "A configuration without its opening comment"
    return text[text.index('\nupstream'):]


def test_nginx_has_the_example_that_is_run():
    expected = (ROOT / 'examples/nginx/same-origin.conf').read_text()
    for ours, docker in DIFFERENCES.items():
        assert ours in expected
        expected = expected.replace(ours, docker)
    assert body((DOCKER / 'nginx.conf').read_text()) == body(expected)


def test_command_of_the_bus_is_one():
    text = (DOCKER / 'compose.yaml').read_text()
    line = re.search(r'command: trytond-bus (.*)', text)[1]
    options = commands.parse(line.replace("'", '').split())
    assert options.command == 'serve'
    assert options.listen == '*:8001'
    port = options.admin_listen.rpartition(':')[2]
    assert f'http://localhost:{port}/health/ready' in text


def test_variables_are_options():
    text = (DOCKER / 'compose.yaml').read_text()
    names = re.findall(r'TRYTOND_BUS__(\w+)', text)
    assert {name.lower() for name in names} <= set(KNOWN)
    assert {'CLASS', 'ALLOW_SUBSCRIBE'} <= set(names)
