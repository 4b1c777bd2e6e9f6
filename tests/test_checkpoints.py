import os
import zipfile

import pytest
import torch
from mmengine.runner import CheckpointLoader

from daal_mmdet.checkpoints import find_resumable, why_not_resumable


def save(path, iteration, **changes):
    checkpoint = {
        'meta': {'epoch': 1, 'iter': iteration},
        'state_dict': {'weight': torch.randn(64, 64)},
        'message_hub': {},
        'optimizer': {},
        **changes,
    }
    path.parent.mkdir(exist_ok=True)
    torch.save(checkpoint, path)
    return path


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_the_one_with_most_iterations_is_found_whatever_the_pointer_says(tmp_path):
    save(tmp_path / 'iter_90.pth', 90)
    newest = save(tmp_path / 'iter_100.pth', 100)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_90.pth'))
    found = find_resumable(tmp_path)
    assert (found.path, found.iteration, found.damaged) == (newest, 100, {})


@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), 'not load'),
        (lambda p: p.write_bytes(b''), 'not load'),
        (lambda p: p.write_bytes(b'<html>not found</html>'), 'not load'),
        (flip_a_byte, 'check sum'),
    ],
    ids=['half', 'empty', 'other', 'flipped'],
)
def test_a_damaged_file_is_left_aside_with_its_reason(tmp_path, damage, reason):
    sound = save(tmp_path / 'epoch_1.pth', 10)
    broken = save(tmp_path / 'epoch_2.pth', 20)
    damage(broken)
    (tmp_path / 'last_checkpoint').write_text(str(broken))
    found = find_resumable(tmp_path)
    assert found.path == sound
    assert list(found.damaged) == [broken]
    assert reason in found.damaged[broken]


def test_an_earlier_training_in_the_same_folder_is_not_gone_on_with(tmp_path):
    earlier = [save(tmp_path / f'epoch_{n}.pth', 10 * n) for n in (1, 2, 11, 12)]
    for path in earlier:
        os.utime(path, (1e9, 1e9))
    named = save(tmp_path / 'epoch_1.pth', 10)
    (tmp_path / 'last_checkpoint').write_text(str(named))
    assert find_resumable(tmp_path).path == named
    # Killed between the checkpoint and the pointer to it.
    newest = save(tmp_path / 'epoch_2.pth', 20)
    assert find_resumable(tmp_path).path == newest
    # The date of the named file counts even where it is damaged.
    date = named.stat().st_mtime
    flip_a_byte(named)
    os.utime(named, (date, date))
    assert find_resumable(tmp_path).path == newest
    newest.unlink()
    assert find_resumable(tmp_path).path == earlier[-1]


@pytest.mark.parametrize('pointer', ['', 'nowhere/epoch_9.pth', '\x00\x00'])
def test_a_pointer_that_points_nowhere_does_no_harm(tmp_path, pointer):
    sound = save(tmp_path / 'epoch_1.pth', 10)
    (tmp_path / 'last_checkpoint').write_text(pointer)
    assert find_resumable(tmp_path).path == sound


def test_checkpoints_of_another_folder_are_found_through_the_pointer(tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    elsewhere = save(tmp_path / 'out' / 'epoch_3.pth', 30)
    (work / 'last_checkpoint').write_text(str(elsewhere))
    assert find_resumable(work).path == elsewhere


def test_a_copy_of_a_work_dir_goes_on_from_its_own_checkpoints(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    save(original / 'epoch_1.pth', 10)
    own = save(copy / 'epoch_1.pth', 10)
    newer = save(original / 'epoch_2.pth', 20)
    (copy / 'last_checkpoint').write_text(str(newer))
    assert find_resumable(copy).path == own
    # With nothing of its own to go on from, there is still the original.
    flip_a_byte(own)
    found = find_resumable(copy)
    assert (found.path, list(found.damaged)) == (newer, [own])


def test_a_file_is_read_once_however_the_pointer_writes_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / 'work' / 'epoch_1.pth', 10)
    (tmp_path / 'work' / 'last_checkpoint').write_text('work/epoch_1.pth')
    (tmp_path / 'link').symlink_to('work')
    read = []
    monkeypatch.setattr(
        CheckpointLoader,
        'load_checkpoint',
        lambda file, **_: read.append(file) or torch.load(file),
    )
    for work_dir in ('work', tmp_path / 'work', 'link'):
        assert find_resumable(work_dir).path.samefile(path)
        assert len(read) == 1
        read.clear()


def test_checkpoints_without_optimizer_are_an_error_and_not_overwritten(tmp_path):
    path = save(tmp_path / 'epoch_1.pth', 10)
    checkpoint = torch.load(path)
    del checkpoint['optimizer']
    torch.save(checkpoint, path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    with pytest.raises(ValueError, match=r'epoch_1\.pth has no optimizer \(save_opti'):
        find_resumable(tmp_path)
    sound = save(tmp_path / 'iter_5.pth', 5)
    os.utime(path, (1e9, 1e9))
    assert find_resumable(tmp_path).path == sound


def test_weights_alone_are_nothing_to_go_on_from(tmp_path):
    path = save(tmp_path / 'best_coco_bbox_mAP_epoch_9.pth', 90)
    checkpoint = torch.load(path)
    del checkpoint['optimizer']
    torch.save(checkpoint, path)
    assert find_resumable(tmp_path) is None
    sound = save(tmp_path / 'epoch_1.pth', 10)
    assert find_resumable(tmp_path).path == sound


def test_a_work_dir_without_any_is_none(tmp_path):
    assert find_resumable(tmp_path / 'not_yet') is None


def test_only_damaged_ones_are_an_error_that_names_them(tmp_path):
    flip_a_byte(save(tmp_path / 'epoch_1.pth', 10))
    (tmp_path / 'epoch_2.pth').write_bytes(b'x')
    message = r'no checkpoint in .* can be read \(epoch_1\.pth: .*epoch_2\.pth: .*'
    with pytest.raises(ValueError, match=message):
        find_resumable(tmp_path)


def test_a_folder_is_called_one(tmp_path):
    (tmp_path / 'epoch_1.pth').mkdir()
    with pytest.raises(ValueError, match=r'epoch_1\.pth: it is a folder, as DeepSpeed'):
        find_resumable(tmp_path)


def test_what_a_training_can_not_go_on_from_says_why(tmp_path):
    path = save(tmp_path / 'epoch_1.pth', 2)
    assert why_not_resumable(path) is None
    whole = torch.load(path, weights_only=False)
    for left_out, reason in (
        (('optimizer',), 'it lacks optimizer; load_from starts one with its weights'),
        # As weights are published.
        (('message_hub', 'optimizer'), 'it lacks message_hub, optimizer; load_from'),
        (('meta', 'message_hub', 'optimizer'), 'it lacks meta, message_hub, opt'),
    ):
        part = {key: value for key, value in whole.items() if key not in left_out}
        torch.save(part, path)
        assert why_not_resumable(path).startswith(reason)
    torch.save([1], path)
    assert why_not_resumable(path).startswith('it lacks state_dict, meta, message_hub')
    path.write_bytes(b'')
    assert why_not_resumable(path).startswith("it can't be read: it does not load")


def test_check_sums_are_in_what_torch_writes(tmp_path):
    path = save(tmp_path / 'epoch_1.pth', 10)
    with zipfile.ZipFile(path) as archive:
        assert all(part.CRC for part in archive.infolist() if part.file_size > 100)
    assert os.path.getsize(path) > 64 * 64 * 4
