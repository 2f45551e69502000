"""Fixtures that need programs which a machine may not have."""
import shutil

import pytest
from support.chromium import Chromium, find_chromium
from support.nginx import find_nginx
from support.sao import Missing, fetch


@pytest.fixture(scope='session')
def nginx():
    "nginx is there"
    for name, path in [
            ('nginx', find_nginx()), ('openssl', shutil.which('openssl'))]:
        if not path:
            pytest.skip(f"install {name}")


@pytest.fixture(scope='session')
def sao(series):
    "The directory of the web client of this series"
    if series < '8.0':
        pytest.skip("what is typed and clicked is that of sao from 8.0 on")
    try:
        return fetch(series)
    except Missing as error:
        pytest.skip(f"no sao {series}: {error}")


@pytest.fixture(scope='session')
def browser():
    "A support.chromium.Chromium that accepts our certificates"
    if not find_chromium():
        pytest.skip("install chromium")
    with Chromium('--ignore-certificate-errors') as browser:
        yield browser
