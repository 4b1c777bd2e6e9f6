"""Helpers of the training and the test command."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from daal_mmdet.cli import plain_errors, require_writable
from daal_mmdet.hooks.finite_checkpoint_hook import NotFiniteError
from daal_mmdet.whole_file_backend import NotWrittenError


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    folder = tmp_path / 'a' / 'work'
    require_writable('--out', str(folder))
    assert list(folder.iterdir()) == []
    (folder / 'epoch_1.pth').write_bytes(b'sound')
    require_writable('--out', str(folder))
    assert [path.name for path in folder.iterdir()] == ['epoch_1.pth']


@pytest.fixture
def read_only_folder():
    """A folder that may not be written to; root becomes another user meanwhile."""
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_a_read_only_folder_is_named(read_only_folder):
    for folder in (read_only_folder, read_only_folder / 'run'):
        with pytest.raises(
            SystemExit,
            match=rf"^--out: '{folder}' cannot be written to \(Permission denied\); "
            'name another$',
        ):
            require_writable('--out', str(folder))
    assert list(read_only_folder.iterdir()) == []


@pytest.mark.parametrize('code', [errno.EROFS, errno.ENOSPC])
def test_a_file_system_that_takes_nothing_is_named(tmp_path, monkeypatch, code):
    """For root too: the probe appears, and its content does not fit."""

    def refuse(self, content):
        self.touch()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, 'write_bytes', refuse)
    with pytest.raises(
        SystemExit, match=rf'cannot be written to \({os.strerror(code)}\); name another'
    ):
        require_writable('--out', str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'work').write_text('mine')
    for folder in ('work', 'work/run'):
        with pytest.raises(
            SystemExit, match=rf"--out: '.*{folder}' cannot be written to \("
        ):
            require_writable('--out', str(tmp_path / folder))
    assert (tmp_path / 'work').read_text() == 'mine'


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (NotFiniteError('no checkpoint is written'), 'no checkpoint is written'),
        (NotWrittenError(errno.EACCES, 'could not write x'), 'could not write x'),
        (
            OSError(errno.ENOSPC, 'No space left on device', 'scalars.json'),
            'could not write scalars.json (No space left on device). Make room or give '
            'the rights, and go on with --resume',
        ),
        (
            OSError(errno.EROFS, 'Read-only file system'),
            'could not write a file (Read-only file system). Make room or give the '
            'rights, and go on with --resume',
        ),
    ],
)
def test_errors_that_the_user_can_mend_are_messages(error, message):
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    # A text, so that Python prints it and exits with 1.
    assert ended.value.code == message


@pytest.mark.parametrize(
    'error', [FileNotFoundError(errno.ENOENT, 'gone'), FloatingPointError('other')]
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), plain_errors():
        raise error
