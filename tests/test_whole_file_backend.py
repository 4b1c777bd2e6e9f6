import builtins
import errno
import os

import pytest
from mmengine.fileio import get_file_backend

from daal_mmdet.whole_file_backend import WholeFileBackend


@pytest.fixture
def backend():
    found = get_file_backend(backend_args={'backend': 'whole_file'})
    assert isinstance(found, WholeFileBackend)
    return found


def test_files_are_written_and_replaced(backend, tmp_path):
    path = tmp_path / 'a' / 'epoch_1.pth'
    backend.put(b'one', path)
    backend.put(b'two', str(path))
    assert path.read_bytes() == b'two'
    backend.put_text('drei', tmp_path / 'a' / 'text')
    assert backend.get_text(tmp_path / 'a' / 'text') == 'drei'
    assert sorted(p.name for p in path.parent.iterdir()) == ['epoch_1.pth', 'text']


class FullDisk:
    """A file of which the first bytes fit."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_says_so(backend, tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'old', path)
    real = builtins.open

    def full(name, mode='r', **options):
        file = real(name, mode, **options)
        return FullDisk(file) if 'w' in mode else file

    monkeypatch.setattr(builtins, 'open', full)
    message = r'could not write .*epoch_1\.pth \(No space left on device\).*--resume'
    with pytest.raises(OSError, match=message) as error:
        backend.put(b'new content', path)
    monkeypatch.undo()
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'old'
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']


def test_a_read_only_folder_is_named(backend, tmp_path, monkeypatch):
    def denied(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(builtins, 'open', denied)
    with pytest.raises(OSError, match=r'x\.pth \(Read-only file system\)'):
        backend.put(b'new', tmp_path / 'x.pth')


def test_what_a_kill_left_behind_is_replaced(backend, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    (tmp_path / 'epoch_1.pth.partial').write_bytes(b'half of a much longer content')
    backend.put(b'whole', path)
    assert path.read_bytes() == b'whole'
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
