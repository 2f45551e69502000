"""Print the version of the product."""
from . import version

print(version())
