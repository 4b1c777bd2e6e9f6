import re

import make_long_tail as tool


def test_a_root_that_can_not_be_written_to_is_named(tmp_path, capsys):
    (tmp_path / 'file').touch()
    for root, reason in (
        (tmp_path / 'file' / 'scenes', 'Not a directory'),
        ('/proc/scenes', 'No such file or directory'),
    ):
        assert tool.main([str(root)]) == 1
        error = capsys.readouterr().err
        assert error == (
            f"error: root: '{root}' cannot be written to ({reason}); name another "
            'folder\n'
        )


def test_a_finished_set_need_not_be_written_to(tmp_path, capsys, monkeypatch):
    small = ['--num-train', '12', '--num-val', '12', '--num-test', '0']
    assert tool.main([str(tmp_path / 'scenes'), *small]) == 0
    capsys.readouterr()

    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('os.mkdir', refuse)
    assert tool.main([str(tmp_path / 'scenes'), *small]) == 0
    assert capsys.readouterr().out == f'{tmp_path / "scenes"}\n'
    assert tool.main([str(tmp_path / 'others'), *small]) == 1
    assert re.search(r'cannot be written to \(Permission d', capsys.readouterr().err)
