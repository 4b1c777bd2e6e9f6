"""The main job: train with FocalLoss and with DAALLoss, then compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from daal_mmdet.child_process import threads_for
from daal_mmdet.datasets.coco_layout import CocoLayout, find_coco_layout
from daal_mmdet.datasets.long_tail_scenes import LongTailScenes, make_long_tail
from daal_mmdet.evaluation.few_class_coco_metric import group_classes
from daal_mmdet.progress import progress_bar
from daal_mmdet.visualization import draw_comparison

from .configs import Schedule, adapt_schedule, build_config, limit_validation
from .results import choose_examples, format_table, load_examples, load_run
from .side_by_side import Job, train_side_by_side

__all__ = ['DemoFiles', 'run_demo']

# Share of each stage in the bar, in percent; training takes the rest.
_DRAWING, _VALIDATION, _FIGURE = 3.0, 4.0, 1.0
_BAR_FORMAT = '{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}'
_TWINS = {'FocalLoss': 'focal', 'DAALLoss': 'daal'}


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo finds and puts things.

    Attributes:
        configs: Folder with ``retinanet_mobilenetv2_{focal,daal}.py``.
        train_script: A script with the interface of mmdet's ``tools/train.py``.
        generated_data: Folder of the generated data set.
        work_dir: Folder for runs, table and figure.
    """

    configs: Path
    train_script: Path
    generated_data: Path
    work_dir: Path


def run_demo(
    files: DemoFiles,
    *,
    data: Path | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    fresh: bool = False,
) -> Path:
    """Train the same detector with both losses, print a table and draw a figure.

    The two trainings differ in ``loss_cls`` alone: same initial weights, same images in
    the same order. Finished runs are used again while config, data and the package's
    code are unchanged; interrupted ones are resumed.

    Args:
        files: Folders and scripts.
        data: Root of a COCO-format data set; None for the generated long-tailed scenes.
        schedule: Duration and image size; None for what suits the data.
        seed: Seed of weights, data order and augmentation.
        fresh: Train again even if finished runs are there.

    Returns:
        The path of the figure; ``comparison.txt`` beside it holds the table.

    Raises:
        FileNotFoundError: If the data set is incomplete.
        ValueError: If its annotations can't be used.
        TrainingFailed: If a training process fails.
    """
    begin = time.monotonic()
    schedule = schedule or Schedule()
    work_dir = files.work_dir.resolve()
    with progress_bar(total=100, desc='Starting', bar_format=_BAR_FORMAT) as bar:
        layout = _prepare_data(files, data, work_dir, seed, bar)
        if data is not None:
            schedule = adapt_schedule(schedule, layout, batch_size=8)
        jobs = _make_jobs(files, layout, schedule, work_dir, seed, _rule(data))
        if fresh:
            for job in jobs:
                job.clear()
        _train(jobs, files.train_script, bar)
        bar.set_description('Drawing the figure', False)
        runs = [load_run(job.name, job.work_dir, layout.classes) for job in jobs]
        groups = _group_of_each_class(layout, _rule(data))
        counts = layout.train.instance_counts
        table = format_table(runs, groups, counts)
        chosen = choose_examples(layout.val, groups, counts)
        examples = load_examples(
            layout.val, chosen, [job.work_dir / 'predictions.pkl' for job in jobs]
        )
        figure = draw_comparison(
            runs,
            layout.classes,
            counts,
            groups,
            examples,
            _title(layout, jobs[0], seed),
        )
        image = work_dir / 'comparison.png'
        figure.savefig(image, dpi=110)
        (work_dir / 'comparison.txt').write_text(table + '\n')
        bar.update(100 - bar.n)
    print(
        f'\n{table}\n\nOne seed ({seed}), {len(layout.val.image_sizes)} validation '
        f'images. Figure: {image}\n{time.monotonic() - begin:.0f} s in all.'
    )
    return image


def _prepare_data(
    files: DemoFiles, data: Path | None, work_dir: Path, seed: int, bar: tqdm
) -> CocoLayout:
    if data is None:
        arguments = LongTailScenes()
        bar.set_description('Drawing scenes', False)
        step = _DRAWING / arguments.total_images
        make_long_tail(
            files.generated_data, arguments, on_image=lambda: bar.update(step)
        )
        layout = find_coco_layout(files.generated_data)
    else:
        bar.set_description('Reading the data set', False)
        full = find_coco_layout(data)
        layout = limit_validation(full, work_dir, seed)
        if layout is not full:
            bar.write(
                f'Validating on {len(layout.val.image_sizes)} of '
                f'{len(full.val.image_sizes)} images.'
            )
    bar.update(_DRAWING - bar.n)
    counts = sorted(layout.train.instance_counts)
    bar.write(
        f'Data: {layout.root}, {len(layout.train.image_sizes)} training images, '
        f'{len(layout.classes)} classes with {counts[0]} to {counts[-1]} boxes.'
    )
    return layout


def _make_jobs(
    files: DemoFiles,
    layout: CocoLayout,
    schedule: Schedule,
    work_dir: Path,
    seed: int,
    rule: str,
) -> list[Job]:
    jobs = []
    for name, twin in _TWINS.items():
        folder = work_dir / twin
        config = build_config(
            files.configs / f'retinanet_mobilenetv2_{twin}.py',
            layout,
            schedule,
            folder,
            seed,
            rule,
        )
        inputs = (layout.train.ann_file, layout.val.ann_file)
        jobs.append(Job(name, config, folder, inputs))
    return jobs


def _train(jobs: Sequence[Job], train_script: Path, bar: tqdm) -> None:
    """Run the jobs that are not finished; the bar follows their logged iterations."""
    missing = [job for job in jobs if job.state() != 'finished']
    for job in jobs:
        if job not in missing:
            bar.write(
                f'{job.name}: using the finished run in {job.work_dir} (same '
                'config, data and code; --fresh trains it again).'
            )
    end = 100 - _FIGURE - _VALIDATION
    if missing:
        threads = threads_for(len(missing))
        for job in missing:
            again = 'resuming' if job.state() == 'interrupted' else 'training'
            bar.write(
                f'{job.name}: {again}, {job.max_iters} iterations on {threads} '
                f'CPU thread(s); log: {job.console_log}'
            )
        total = sum(job.max_iters for job in missing)

        def follow(iterations: dict[str, int], losses: dict[str, float]) -> None:
            done = sum(iterations.values())
            bar.set_description('Validating' if done == total else 'Training', False)
            values = ', '.join(f'{name} {loss:.2f}' for name, loss in losses.items())
            bar.set_postfix_str(
                f'iteration {min(iterations.values())}/{missing[0].max_iters}'
                + (f', loss: {values}' if values else ''),
                False,
            )
            position = _DRAWING + (end - _DRAWING) * done / total
            bar.update(max(0.0, position - bar.n))

        train_side_by_side(missing, train_script, follow)
    bar.set_postfix_str('', False)
    bar.update(100 - _FIGURE - bar.n)


def _rule(data: Path | None) -> str:
    """How classes are grouped: thirds of our twelve; LVIS's rule where it fits."""
    return 'terciles' if data is None else 'auto'


def _group_of_each_class(layout: CocoLayout, rule: str) -> list[str]:
    images, instances = (
        dict(zip(layout.classes, counts, strict=True))
        for counts in (layout.train.image_counts, layout.train.instance_counts)
    )
    members = group_classes(images, instances, rule)
    group_of = {name: group for group, names in members.items() for name in names}
    return [group_of[name] for name in layout.classes]


def _title(layout: CocoLayout, job: Job, seed: int) -> str:
    return (
        f'{layout.root.name}: {len(layout.train.image_sizes)} training images, '
        f'{len(layout.classes)} classes, {job.max_iters} iterations, seed {seed}'
    )
