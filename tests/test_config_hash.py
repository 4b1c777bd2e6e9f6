import subprocess
import sys

import pytest
from mmengine.config import Config

from daal_mmdet.config_hash import config_hash, differing_keys


def test_hash_sees_what_decides_a_run_and_nothing_else(tmp_path):
    def config(**changes):
        root = changes.pop('root', 'here')
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        (folder / 'train.json').write_text(changes.pop('annotations', '[1]'))
        made = Config(
            dict(
                model=dict(type='Net', lr=0.1),
                train_cfg=dict(max_epochs=4, val_interval=2),
                train_dataloader=dict(
                    dataset=dict(data_root=str(folder) + '/', ann_file='train.json')
                ),
                val_evaluator=dict(ann_file=str(folder / 'train.json')),
                default_hooks=dict(checkpoint=dict(interval=1), ema=dict(momentum=1)),
                randomness=dict(seed=0, deterministic=False),
                work_dir=root,
                some_variable=3,
            )
        )
        made.merge_from_dict(changes)
        return made

    plain = config_hash(config())
    for same in (
        {'root': 'there'},
        {'work_dir': 'x'},
        {'some_variable': 4},
        {'randomness.seed': 5},
        {'default_hooks.checkpoint.interval': 16},
        {'train_cfg.val_interval': 1},
        {'resume': True},
        {'load_from': None},
    ):
        assert config_hash(config(**same)) == plain, same
    for other in (
        {'model.lr': 0.2},
        {'annotations': '[2]'},
        {'default_hooks.ema.momentum': 2},
        {'randomness.deterministic': True},
        {'train_cfg.max_epochs': 5},
        {'custom_hooks': [dict(type='EMAHook')]},
    ):
        assert config_hash(config(**other)) != plain, other
    assert differing_keys(config(), config(**{'model.lr': 0.2})) == ['model.lr']


@pytest.mark.parametrize(
    'part',
    [
        {'param_scheduler': [dict(type='mmengine.ReduceOnPlateauLR')]},
        {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')]},
    ],
)
def test_validations_count_where_the_training_follows_them(part):
    def config(interval, **more):
        return Config(dict(train_cfg=dict(max_epochs=4, val_interval=interval), **more))

    assert config_hash(config(1)) == config_hash(config(2))
    assert config_hash(config(1, **part)) != config_hash(config(2, **part))


def test_a_loss_of_ours_stands_for_its_code_and_one_of_mmdet_does_not(monkeypatch):
    def both():
        return [
            config_hash(Config(dict(model=dict(loss=dict(type=name)))))
            for name in ('DAALLoss', 'FocalLoss')
        ]

    daal, focal = both()
    monkeypatch.setattr('daal_mmdet.config_hash.code_digest', lambda name: 'changed')
    changed, same = both()
    assert changed != daal
    assert same == focal


def test_comparisons_register_nothing_of_the_benchmark():
    code = (
        'import sys, daal_mmdet.counting.comparison, daal_mmdet.forecasting.comparison;'
        'print([name for name in sys.modules if name.startswith("daal_mmdet.bench")])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
