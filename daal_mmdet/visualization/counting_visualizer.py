"""Visualizer of counting models for MMEngine's hooks and backends."""

from __future__ import annotations

from pathlib import Path

import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from daal_mmdet.visualization.density_overlay import overlay_density

__all__ = ['CountingVisualizer']

# Of the text, as a share of the picture's shorter side.
_FONT_SHARE = 1 / 24


@VISUALIZERS.register_module()
class CountingVisualizer(Visualizer):
    """Show an image with its density map and count.

    Truth stands at the left, prediction at the right, where a sample holds both. Both
    have the colours of one scale, which ends at the densest place of the truth. It
    takes what mmdet's ``DetVisualizationHook`` passes, so ``tools/test.py --show-dir``
    works. Arguments are those of :class:`mmengine.visualization.Visualizer`.
    """

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: BaseDataElement | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | Path | None = None,
        pred_score_thr: float = 0.0,
        step: int = 0,
    ) -> None:
        """Draw a sample and save it to the backends, a window or a file.

        Args:
            name: Name of the picture.
            image: (H, W, 3) uint8, RGB.
            data_sample: With ``gt_density`` and ``gt_count``, ``pred_density`` and
                ``pred_count``; None shows the image alone.
            draw_gt: Whether to draw the truth.
            draw_pred: Whether to draw the prediction.
            show: Whether to open a window instead of saving.
            wait_time: Seconds to show it; 0 waits for a key.
            out_file: File to write instead of using the backends.
            pred_score_thr: Not used, a map has no scores; the hook passes it.
            step: Step for the backends.
        """
        panels = []
        if data_sample is not None:
            sample = data_sample.cpu()
            maps = {
                kind: _density(sample, kind)
                for kind in ('gt', 'pred')
                if f'{kind}_density' in sample
            }
            # An image of nobody shows what is predicted there.
            tops = [density.max(initial=0.0) for density in maps.values()]
            top = next((float(value) for value in tops if value > 0), None)
            for title, kind, wanted in (
                ('truth', 'gt', draw_gt),
                ('prediction', 'pred', draw_pred),
            ):
                if wanted and kind in maps:
                    text = f'{title} {float(sample.get(f"{kind}_count")):.0f}'
                    panels.append(self._panel(image, maps[kind], text, top))
        drawn = np.concatenate(panels or [image], axis=1)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], str(out_file))
        elif not show:
            self.add_image(name, drawn, step)

    def _panel(
        self, image: np.ndarray, density: np.ndarray, text: str, top: float | None
    ) -> np.ndarray:
        height, width = image.shape[:2]
        # The map's last row and column may reach beyond the image.
        stride = max(-(-height // density.shape[0]), -(-width // density.shape[1]), 1)
        padded = np.zeros(
            (density.shape[0] * stride, density.shape[1] * stride, 3), np.uint8
        )
        padded[:height, :width] = image[: padded.shape[0], : padded.shape[1]]
        self.set_image(overlay_density(padded, density, top)[:height, :width])
        self.draw_texts(
            text,
            np.array([width * 0.02, height * 0.02]),
            font_sizes=max(10, round(_FONT_SHARE * min(height, width))),
            colors='white',
            bboxes=dict(facecolor='black', alpha=0.7, pad=2, edgecolor='none'),
        )
        panel: np.ndarray = self.get_image()
        return panel


def _density(sample: BaseDataElement, kind: str) -> np.ndarray:
    """The map of a sample, without what was padded for a batch."""
    density = sample.get(f'{kind}_density').float().numpy()
    rows, columns = sample.get('map_shape', density.shape)
    return density[:rows, :columns]
