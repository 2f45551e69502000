"The documentation as a site: make docs."
import __future__

import re
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parent.parent

project = 'trytond-fastbus'
copyright = "the authors of trytond-fastbus"
version = release = re.search(
    '^version = "(.+)"', (ROOT / 'Cargo.toml').read_text(), re.MULTILINE)[1]

extensions = ['myst_parser', 'sphinx.ext.autodoc']
autodoc_member_order = 'bysource'
default_role = 'code'
html_theme = 'furo'
html_title = f'{project} {version}'
html_copy_source = html_show_sourcelink = False
# The anchors that a forge makes of headings
myst_heading_anchors = 3

# The pages of the site that stand in for files beside docs/
PAGES = {'CHANGELOG.md': 'changes.md', 'CONTRIBUTING.md': 'contributing.md'}

# The stub stands in for the native module: it has the whole docstrings, and
# nothing has to be built. As in any stub names come before their definition.
PACKAGE = ROOT / 'python' / 'trytond_fastbus'
stub = PACKAGE / '_native.pyi'
native = sys.modules['trytond_fastbus._native'] = types.ModuleType(
    'trytond_fastbus._native')
exec(compile(
        stub.read_text(), stub, 'exec', __future__.annotations.compiler_flag),
    vars(native))
sys.path.insert(0, str(PACKAGE.parent))


def setup(app):
    app.connect('include-read', relink)
    return {'parallel_read_safe': True}


def relink(app, path, docname, content):
    "Have the links of an included file start from docs/"
    content[0] = re.sub(
        r'\]\((?!https?:|#)([^)]+)\)',
        lambda match: '](%s)' % _from_docs(match[1]), content[0])


def _from_docs(link):
    if link.startswith('docs/'):
        return link.removeprefix('docs/')
    return PAGES.get(link, '../' + link)
