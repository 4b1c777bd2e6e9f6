"""Test a detector: mmdet's command, with the modules of daal_mmdet registered."""

import argparse
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, ConfigDict

import daal_mmdet  # noqa: F401 - registers its modules
from daal_mmdet.cli import (
    add_common_arguments,
    build_runner,
    load_config,
)
from daal_mmdet.data_check import innermost_dataset, tell_wrong_names
from daal_mmdet.hooks.fitting_checkpoint_hook import (
    FittingCheckpointHook,
    OtherModelError,
)
from daal_mmdet.hooks.trained_classes_hook import TrainedClassesHook
from daal_mmdet.placed_dicts import bare_type
from daal_mmdet.preflight import require_checkpoint, require_output_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write the predictions to this .pkl file')
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        help='write images with predictions to this folder, which lies in '
        'WORK_DIR/TIME_OF_THE_START unless it is given from the root',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds each image is shown'
    )
    parser.add_argument(
        '--tta', action='store_true', help='average over augmented copies of each image'
    )
    args = parser.parse_args(argv)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out: expected a file name ending in .pkl, got {args.out!r}')
    return args


def use_test_time_augmentation(config: Config) -> None:
    """Wrap the model and take the pipeline of ``tta_model`` and ``tta_pipeline``.

    Where the config names none, each image is also flipped, as with mmdet.

    Raises:
        SystemExit: If there is no pipeline to replace, or, where the config names none,
            it does not end as a detector's.
    """
    if 'tta_model' not in config:
        nms = {'type': 'nms', 'iou_threshold': 0.5}
        config.tta_model = {
            'type': 'DetTTAModel',
            'tta_cfg': {'nms': nms, 'max_per_img': 100},
        }
    key = 'test_dataloader.dataset'
    dataset = innermost_dataset(config, 'test_dataloader')
    if not dataset.get('pipeline'):
        raise SystemExit(
            f'--tta: expected {key} to be, or to wrap, one data set with a pipeline, '
            f'got {config.test_dataloader.dataset}'
        )
    if 'tta_pipeline' not in config:
        *steps, pack = dataset.pipeline
        if bare_type(pack) != 'PackDetInputs':
            raise SystemExit(
                f'--tta: expected {key}.pipeline to end in PackDetInputs, got '
                f'{bare_type(pack)!r}; give tta_model and tta_pipeline in the config'
            )
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        pack = {**pack, 'meta_keys': (*keys, 'flip', 'flip_direction')}
        flips = [{'type': 'mmdet.RandomFlip', 'prob': prob} for prob in (1.0, 0.0)]
        both = {'type': 'TestTimeAug', 'transforms': [flips, [pack]]}
        config.tta_pipeline = [*steps, both]
    config.model = ConfigDict(**config.tta_model, module=config.model)
    dataset.pipeline = config.tta_pipeline


def main(argv: list[str] | None = None) -> None:
    """Test."""
    args = parse_args(argv)
    config = load_config(args, loaders=['test'])
    require_checkpoint('checkpoint', args.checkpoint)
    config.load_from = args.checkpoint
    # A config that a resumed training left says so, and would resume it here.
    config.resume = False
    if args.show or args.show_dir:
        config = trigger_visualization_hook(config, args)
    if args.tta:
        use_test_time_augmentation(config)
    require_output_folder('--work-dir', config.work_dir)
    if args.out is not None:
        require_output_folder('--out', Path(args.out).parent)
    tell_wrong_names(config, 'test')
    runner = build_runner(config)
    runner.register_hook(FittingCheckpointHook())
    runner.register_hook(TrainedClassesHook())
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    try:
        runner.test()
    except OtherModelError as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()
