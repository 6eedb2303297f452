"""Checkpoints of a trainer whose run outlives a full disk, and a pause of the services."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer

DISK_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What saving raises if the disk is full: Python, torch and safetensors each raise an error of their own."""

logger = logging.getLogger(__name__)


class SavingTrainer(Trainer):
    """Leaves a failed checkpoint behind, and keeps one out of turn if it is told to."""

    _kept_at_step = 0

    def keep_weights(self) -> None:
        """A checkpoint of the last finished step, unless there is one. To be called on every process."""
        step = self.state.global_step
        if step in (0, self._kept_at_step) or step % int(self.args.save_steps) == 0:
            return
        self._kept_at_step = step
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except DISK_ERRORS as error:
            # To end here would lose more than to continue to the next checkpoint.
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(folder, ignore_errors=True)
            logger.error(  # noqa: TRY400
                "%s could not be written, training continues without it: %s. Free space there", folder, error
            )
