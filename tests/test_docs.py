"""The checker of the documentation finds what it looks for."""
import re
from types import SimpleNamespace

import pytest

from tests import docs

FOUND = docs.Product(
    keys={'class', 'listen'}, metrics={'listening', 'delivery_seconds'},
    commands={'check'}, options={'--url'},
    texts=[('warning', "no connection to '…': …"), (None, "is not met")])


def faults(text):
    return list(docs.names(text, FOUND))


def test_documentation_agrees_with_the_code():
    assert list(docs.check(docs.product())) == []


def test_glossary_has_each_word_once():
    text = (docs.ROOT / 'docs' / 'glossary.md').read_text()
    words = re.findall(r'^(.+)\n: ', text, re.MULTILINE)
    assert len(words) > 30
    assert len(set(words)) == len(words)


@pytest.mark.parametrize('text', [
        "`[bus] class` or `[bus]\nlisten`, in the section `[bus]` only",
        "```ini\n[web]\nroot = /\n[bus]\nlisten = *:1\n```",
        "`trytond_bus_listening{database}`, trytond_bus_delivery_seconds_sum",
        "```sh\ntrytond-bus check -c a \\\n    --url b | grep --count x\n```",
        "| warning | `no connection to '…': …` | x |",
        ])
def test_names_of_the_code_are_taken(text):
    assert faults(text) == []


@pytest.mark.parametrize('text, fault', [
        ("`[bus] lissen`", "unknown key [bus] lissen"),
        ("```ini\n[bus]\nclas = x\n```", "unknown key [bus] clas"),
        ("```yaml\n  TRYTOND_BUS__CLAS: x\n```", "unknown key [bus] clas"),
        ("`trytond_bus_liste`", "unknown metric trytond_bus_liste"),
        ("```sh\ntrytond-bus chek -c a\n```",
            "unknown command trytond-bus chek"),
        ("```sh\ntrytond-bus check \\\n  --uri x\n```",
            "unknown option --uri of trytond-bus"),
        ("| error | `no connection to '…': …` | x |",
            "unknown log line no connection to '…': …, "
            "or not at the level error"),
        ("`no link to` in the log", "unknown log line no link to"),
        ])
def test_other_names_are_faults(text, fault):
    assert faults(text) == [fault]


@pytest.mark.parametrize('row, fault', [
        ("| `drain` | 10 | 0 to 60 | x |", None),
        ("| `drain` | 20 | 0 to 60 | x |", "drain is 10 by default"),
        ("| `drain` | 10 | 1 to 6 | x |", "drain may be 0 to 60, not 1 to 6"),
        ])
def test_other_values_are_faults(row, fault):
    option = SimpleNamespace(
        name='drain', kind='int', default=10, least=0, greatest=60)
    assert list(docs.values(row, [option])) == ([fault] if fault else [])


@pytest.mark.parametrize('link, fault', [
        ('b.md', None),
        ('b.md#two-words-p1', None),
        ('#here', None),
        ('https://example.com/x.md', None),
        ('c.md', "broken link to c.md"),
        ('b.md#three', "broken link to b.md#three: no such heading"),
        ])
def test_broken_links_are_faults(tmp_path, link, fault):
    text = f"# Here\n\n[x]({link})\n"
    path = tmp_path / 'a.md'
    path.write_text(text)
    (tmp_path / 'b.md').write_text("# B\n\n## Two words, `P1`\n")

    assert list(docs.links(path, text)) == ([fault] if fault else [])


def test_reference_pages_have_to_name_everything():
    found = docs.product()
    found.keys.add('new_key')
    found.metrics.add('new_metric')
    found.options.add('--new-option')

    missing = {
        re.search(r'does not name the (.+)', fault)[1]
        for fault in docs.check(found)}
    assert missing == {
        'key new_key', 'metric new_metric', 'option --new-option'}
