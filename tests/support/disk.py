"""A small file system, which can be filled."""
import os
import subprocess
import tempfile
from pathlib import Path


class SmallDisk:
    """A file system in memory at path, as a context manager

    Raises OSError where this process may not mount one.
    """

    def __init__(self, megabytes):
        self._size = megabytes

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix='disk-'))
        self._ballast = self.path / 'ballast'
        process = subprocess.run([
                'mount', '-t', 'tmpfs', '-o', f'size={self._size}m', 'none',
                self.path], capture_output=True, text=True)
        if process.returncode:
            self.path.rmdir()
            raise OSError(process.stderr.strip())
        self.path.chmod(0o777)
        return self

    def __exit__(self, *_):
        subprocess.run(['umount', '-l', self.path], check=True)
        self.path.rmdir()

    def fill(self):
        "Leave no space"
        with open(self._ballast, 'wb', buffering=0) as file:
            for size in [1024 * 1024, 4096]:
                try:
                    while True:
                        file.write(os.urandom(size))
                except OSError:
                    pass

    def free(self):
        "Give the space back"
        self._ballast.unlink()
