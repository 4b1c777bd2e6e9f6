import copy

import pytest
import torch

from daal_mmdet.benchmark.adoption import adopt_run
from daal_mmdet.benchmark.matrix import MatrixFolder, run_matrix
from daal_mmdet.benchmark.spec import load_spec
from daal_mmdet.benchmark.table import benchmark_table


@pytest.fixture
def folder(tmp_path):
    return MatrixFolder(tmp_path / 'out')


@pytest.fixture
def training(spec, tmp_path):
    """What tools/train.py leaves of variant 'three' with seed 1."""
    (run,) = (r for r in spec.plan() if (r.variant, r.seed) == ('three', 1))
    work_dir = tmp_path / 'trained'
    (work_dir / '20260101_000000' / 'vis_data').mkdir(parents=True)
    config = run.config.copy()
    # Neither decides what was trained.
    config.work_dir = str(work_dir)
    config.train_cfg.val_interval = 1
    config.dump(work_dir / 'trained.py')
    for epoch in (2, 4):
        torch.save(dict(meta=dict(epoch=epoch)), work_dir / f'epoch_{epoch}.pth')
    return work_dir


def test_a_training_stands_for_the_run_that_it_equals(spec, folder, training, trainer):
    plan = spec.plan()
    before = sorted(training.rglob('*'))
    for _ in range(2):
        run = adopt_run(training, plan, folder)
    assert (run.variant, run.seed) == ('three', 1)
    # The training process finds the checkpoint and the logs there.
    target = folder.run_folder(run)
    assert (target / 'epoch_4.pth').samefile(training / 'epoch_4.pth')
    assert (target / '20260101_000000').samefile(training / '20260101_000000')
    assert not (target / 'epoch_2.pth').exists()
    records, _ = run_matrix([run], folder, command=trainer)
    assert records[0]['adopted'] == str(training)
    assert records[0]['code'] is None
    assert sorted(training.rglob('*')) == before

    others = [r for r in plan if r.variant == 'one']
    records, _ = run_matrix([*others, run], folder, command=trainer)
    note = '- Trained outside the benchmark: three, seed 1.'
    assert note in benchmark_table(records, spec).splitlines()
    assert 'outside' not in benchmark_table(records[-1:], spec)
    assert 'outside' not in benchmark_table(records[:-1], spec)


def test_a_training_that_was_moved_is_adopted_again(spec, folder, training):
    plan = spec.plan()
    run = adopt_run(training, plan, folder)
    moved = training.rename(training.with_name('moved'))
    assert adopt_run(moved, plan, folder) is run
    target = folder.run_folder(run)
    assert (target / 'epoch_4.pth').samefile(moved / 'epoch_4.pth')
    assert (target / '20260101_000000').samefile(moved / '20260101_000000')
    assert (target / 'adopted').read_text() == str(moved)


def test_a_training_is_known_by_the_config_that_it_began_with(
    spec_file, folder, training
):
    # tools/train.py asks for no AP of the classes, and a resume names a checkpoint.
    base = spec_file.with_name('base.py')
    evaluators = "val_evaluator = test_evaluator = dict(type='CocoMetric')\n"
    base.write_text(base.read_text() + evaluators)
    spec = load_spec(spec_file)
    plan = spec.plan()
    (run,) = (r for r in plan if (r.variant, r.seed) == ('three', 1))
    config = copy.deepcopy(run.config)
    for part in ('val', 'test'):
        del config[f'{part}_evaluator']['classwise']
    for name, resume, load_from in (
        ('20260101_000000', False, None),
        ('20260102_000000', True, str(training / 'epoch_2.pth')),
    ):
        config.merge_from_dict(dict(resume=resume, load_from=load_from))
        (training / name / 'vis_data').mkdir(parents=True, exist_ok=True)
        config.dump(training / name / 'vis_data' / 'config.py')
    config.dump(training / 'trained.py')
    assert adopt_run(training, plan, folder) is run
    # What it began with counts.
    config.merge_from_dict(dict(resume=False, load_from='weights.pth'))
    config.dump(training / '20260101_000000' / 'vis_data' / 'config.py')
    with pytest.raises(ValueError, match=r"closest and differs in \['load_from'\]"):
        adopt_run(training, [run], folder)
    config.test_evaluator = dict(type='VOCMetric')
    config.dump(training / 'trained.py')
    with pytest.raises(ValueError, match='trained: test_evaluator: expected a CocoMe'):
        adopt_run(training, [run], folder)


def test_what_does_not_fit_is_refused_with_the_reason(spec, folder, training):
    plan = spec.plan()
    with pytest.raises(ValueError, match=r'its seed is 1, the spec has \[0, 2\]'):
        adopt_run(training, [run for run in plan if run.seed != 1], folder)
    with pytest.raises(
        ValueError,
        match=r"no variant has its config; 'one' is closest and differs in "
        r"\['model.loss.beta'\]",
    ):
        adopt_run(training, [run for run in plan if run.variant != 'three'], folder)
    (training / 'epoch_4.pth').unlink()
    with pytest.raises(
        ValueError,
        match='a finished training of max_epochs=4, got epoch_2.pth after 2',
    ):
        adopt_run(training, plan, folder)
    (training / 'epoch_2.pth').unlink()
    with pytest.raises(FileNotFoundError, match=r'there is no epoch_\*.pth or iter_'):
        adopt_run(training, plan, folder)
    (training / 'other.py').touch()
    with pytest.raises(FileNotFoundError, match=r'expected one config .*, got 2'):
        adopt_run(training, plan, folder)
    assert not folder.root.exists()
