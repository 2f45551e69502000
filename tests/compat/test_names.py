"""All names of trytond.bus exist in the same form, by either way to replace
it."""
import ast
import inspect

import pytest
import trytond_fastbus
from support.server import run_python
from trytond import bus as stock
from trytond_fastbus import bus as ours

PREAMBLE = '''
import sys
import trytond_fastbus
'''


def run(source, **options):
    "Run the program after the preamble, and return its output"
    sections = {
        'database': {'uri': 'sqlite://'},
        'bus': {'class': None, **options},
        }
    process = run_python(PREAMBLE + source, sections)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def defined_names(module):
    "The names that the module itself defines"
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets)


@pytest.mark.parametrize('name', sorted(set(defined_names(stock))))
def test_name_of_stock_module_is_defined(name):
    assert hasattr(ours, name)
    theirs = getattr(stock, name)
    if not name.startswith('_') or inspect.isclass(theirs):
        assert callable(getattr(ours, name)) == callable(theirs)
    else:
        # A setting that is read when the module is imported
        assert getattr(ours, name) == theirs


@pytest.mark.parametrize('name', sorted(
        name for name in vars(stock.LongPollingBus)
        if not name.startswith('__')))
def test_attribute_of_stock_class_is_defined(name):
    assert hasattr(ours.LongPollingBus, name)


@pytest.mark.parametrize('name', [
        'LongPollingBus.publish',
        'LongPollingBus.subscribe',
        'LongPollingBus.create_response',
        'LongPollingBus._listen',
        '_MessageQueue',
        '_MessageQueue.append',
        '_MessageQueue.get_next',
        'notify',
        ])
def test_signature_is_that_of_stock(name):
    def signature(module):
        class_, _, method = name.rpartition('.')
        if class_:
            object_ = getattr(module, class_)
            if class_ == '_MessageQueue':
                # The signature of the instance's method, because self is
                # positional only in native methods.
                object_ = object_(5)
        else:
            object_ = module
        return inspect.signature(getattr(object_, method))
    assert signature(ours) == signature(stock)


def test_package_exports_the_class_and_the_shortcut():
    assert trytond_fastbus.Bus is trytond_fastbus.LongPollingBus
    assert trytond_fastbus.Bus is ours.LongPollingBus
    assert trytond_fastbus.notify is ours.notify


@pytest.mark.parametrize('before', ['', 'import trytond.config'])
def test_install_puts_one_module_in_place(before):
    assert run(before + '''
trytond_fastbus.install()
trytond_fastbus.install()
import trytond
import trytond.bus
from trytond.bus import Bus, notify
import trytond_fastbus.bus
module = sys.modules['trytond.bus']
assert module is trytond.bus is trytond_fastbus.bus
assert module is sys.modules['trytond_fastbus.bus']
assert Bus is trytond_fastbus.Bus, Bus
assert notify is trytond_fastbus.notify, notify
trytond_fastbus.install()
assert sys.modules['trytond.bus'] is module
print(module.__name__)
''') == 'trytond_fastbus.bus'


def test_install_reads_no_configuration():
    assert run('''
trytond_fastbus.install()
from trytond.config import config
config.set('bus', 'class', 'support.overriding.Bus')
from trytond.bus import Bus
print(Bus.__module__)
''') == 'support.overriding'


@pytest.mark.parametrize('first', ['import trytond.bus', '''
import trytond_fastbus.bus
import trytond.bus
'''])
def test_install_after_stock_module_names_the_remedy(first):
    message = run(first + '''
try:
    trytond_fastbus.install()
except RuntimeError as error:
    print(error)
assert sys.modules['trytond.bus'].LongPollingBus is not trytond_fastbus.Bus
''')
    assert 'before' in message
    assert 'class = trytond_fastbus.Bus' in message


def test_route_of_installed_module_is_the_only_one():
    assert run('''
trytond_fastbus.install()
import trytond.application
import trytond.bus
from trytond.wsgi import app
print(*(r.endpoint.__wrapped__.__module__ for r in app.url_map.iter_rules()
        if r.rule.endswith('/bus')))
''') == 'trytond_fastbus.bus'


@pytest.mark.parametrize('class_', [
        'trytond_fastbus.Bus', 'trytond_fastbus.LongPollingBus',
        'support.overriding.Bus'])
@pytest.mark.parametrize('imports', [
        'trytond_fastbus, trytond.bus',
        'trytond.bus, trytond_fastbus',
        'trytond_fastbus.bus, trytond.bus',
        'trytond.bus, trytond_fastbus.bus',
        'trytond.wsgi, trytond_fastbus, trytond.bus',
        ])
def test_class_of_configuration_is_used(class_, imports):
    # Without the preamble, since the order of the imports matters
    process = run_python(f'''
import {imports}
from trytond.bus import Bus
assert issubclass(Bus, trytond_fastbus.Bus), Bus
''', {'database': {'uri': 'sqlite://'}, 'bus': {'class': class_}})
    assert process.returncode == 0, process.stderr
