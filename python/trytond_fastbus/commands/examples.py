"""trytond-bus examples: the configurations and programs in the package."""
from pathlib import Path

from . import Failure

FOLDER = Path(__file__).parents[1] / 'examples'


def run(options):
    "List the examples, or write them into a directory"
    paths = sorted(
        path for path in FOLDER.rglob('*')
        if path.is_file() and path.parent.name != '__pycache__')
    if not paths:
        raise Failure(
            "there are no examples in '%s': install trytond-fastbus from its "
            "wheel" % FOLDER)
    for path in paths:
        name = path.relative_to(FOLDER)
        if options.write:
            target = Path(options.write, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                # A file that was changed is not overwritten.
                with open(target, 'xb') as file:
                    file.write(path.read_bytes())
            except FileExistsError:
                if target.read_bytes() != path.read_bytes():
                    raise Failure(
                        "'%s' exists and differs, so it is not overwritten: "
                        "name a new directory" % target) from None
        print(name)
    return 0
