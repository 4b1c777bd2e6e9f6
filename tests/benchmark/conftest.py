import sys

import pytest

from daal_mmdet.benchmark.spec import load_spec

BASE = """
model = dict(type='Net', loss=dict(type='L1', beta=1, deep=dict(a=1, b=2)))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
train_dataloader = dict(dataset=dict(ann_file='no/such.json'))
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=10))
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, begin=0, end=4)]
behaviour = 'normal'
"""
SPEC = """
data = 'toy'
base_config = 'base.py'
baseline = 'one'
seeds = [0, 1, 2]
metrics = ['mAP', 'rare', 'class_AP']
compare = ['mAP', 'rare']
class_means = dict(rare=['cat', 'dog'])
variants = {
    'one': dict(),
    'two': {'model.loss.deep': dict(_delete_=True, c=3)},
    'three': dict(model=dict(loss=dict(beta=2))),
}
"""
# Stands for daal_mmdet.benchmark.single_run: "trains" in four steps, each of which it
# notes in a file that tells how often it was done; a result follows from the config.
TRAINER = """
import fcntl, json, os, pathlib, sys, threading, time, zlib
config, folder, *flags, _ = sys.argv[1:]
assert flags == ['--exit-with-parent', '--hash']
def wait():
    while os.read(0, 1):
        continue
    os._exit(1)
threading.Thread(target=wait, daemon=True).start()
folder, text = pathlib.Path(folder), pathlib.Path(config).read_text()
config = {}
exec(text, config)  # importing MMEngine takes seconds
seed = config['randomness']['seed']
lock = open(folder / 'lock', 'w')
fcntl.flock(lock, fcntl.LOCK_EX)
print('threads', os.environ['OMP_NUM_THREADS'])
steps = folder / 'steps'
while True:
    done = len(steps.read_text().split()) if steps.exists() else 0
    (folder / 'new').write_text(str(done / 4))
    os.replace(folder / 'new', folder / 'progress')
    if done == 4:
        break
    if config['behaviour'] == 'crash' and seed == 1:
        raise RuntimeError('no luck today')
    held = config['behaviour'] == 'wait' and done == 2
    while held and (folder / '../../hold').exists():
        time.sleep(0.05)
    with steps.open('a') as file:
        file.write(f'{done} ')
text = json.dumps([config['model'], seed], sort_keys=True)
number = zlib.crc32(text.encode()) % 1000 / 1000
part = dict(mAP=number, class_AP=dict(cat=number / 2, dog=number / 4))
result = dict(val=part, test=part, seconds_per_iteration=0.5, code='abc', device='cpu')
(folder / 'result.json').write_text(json.dumps(result))
"""


@pytest.fixture
def spec_file(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    path = tmp_path / 'toy.py'
    path.write_text(SPEC)
    return path


@pytest.fixture
def spec(spec_file):
    return load_spec(spec_file)


@pytest.fixture
def trainer(tmp_path):
    """Command of a stand-in for the training process."""
    path = tmp_path / 'trainer.py'
    path.write_text(TRAINER)
    return [sys.executable, str(path)]
