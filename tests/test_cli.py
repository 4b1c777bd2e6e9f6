"""Helpers of the training and the test command."""

import errno

import pytest

from daal_mmdet.cli import plain_errors
from daal_mmdet.hooks.finite_checkpoint_hook import NotFiniteError
from daal_mmdet.whole_file_backend import NotWrittenError


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
