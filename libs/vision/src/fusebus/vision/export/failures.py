"""Owns the list of what may foreseeably go wrong in training and evaluation: told in a sentence, without a trace."""

from fusebus.blobs import StorageError
from fusebus.host.settings import SettingsError
from fusebus.models.manifest import ModelError
from fusebus.vision.export.coco import DataError
from fusebus.vision.export.errors import CheckpointError, HelperEnded
from fusebus.vision.export.training_state import StateError

FAILURES = (CheckpointError, DataError, HelperEnded, ModelError, SettingsError, StateError, StorageError, OSError)
