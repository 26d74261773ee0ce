"""Model folders: manifest, inspection, registry in blob storage."""

from fusebus.models.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    ModelError,
    ModelFile,
    ModelManifest,
    ModelSource,
    describe_file,
    load_manifest,
    write_manifest,
)

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "ModelError",
    "ModelFile",
    "ModelManifest",
    "ModelSource",
    "describe_file",
    "load_manifest",
    "write_manifest",
]
