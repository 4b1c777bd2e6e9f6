import os

import pytest

from daal_mmdet.whole_file import write_whole


def test_several_processes_may_write_the_same_file(tmp_path, monkeypatch):
    path, replace = tmp_path / 'new' / 'a.json', os.replace

    def late(source, target):
        monkeypatch.setattr(os, 'replace', replace)
        # Another process comes in between, and is done first.
        write_whole(path, 'text')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', late)
    write_whole(path, 'text')
    assert path.read_text() == 'text'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('content', ['Bläschen\r\n', b'\xff\r\n\x00'])
def test_content_is_written_as_it_is_and_readable_as_any_new_file(tmp_path, content):
    path, other = tmp_path / 'a', tmp_path / 'b'
    write_whole(path, content)
    other.touch()
    assert path.read_bytes() == (
        content if isinstance(content, bytes) else content.encode('utf-8')
    )
    assert path.stat().st_mode == other.stat().st_mode


def test_a_folder_that_is_a_file_is_named_by_what_was_asked_for(tmp_path):
    (tmp_path / 'file').touch()
    path = tmp_path / 'file' / 'a.json'
    with pytest.raises(OSError, match=f"(File exists|Not a directory): '{path}'$"):
        write_whole(path, 'text')


def test_a_file_that_cannot_be_replaced_is_named_and_stays(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    path.write_text('old')

    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_whole(path, 'new')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
