"""MediaPipe's pose landmarker as the one `.task` file that its API wants, built from the published networks.

A `.task` is a stored zip of two networks. The detector already says how its input is normalised, the landmarkers
do not ("Input tensor has type float32: it requires specifying NormalizationOptions metadata"), so that is added.
"""

import importlib
import struct
from pathlib import Path
from types import ModuleType
from typing import Literal
from zipfile import ZipFile, ZipInfo

from poseda_deploy.errors import MissingDependency
from poseda_deploy.files import write_aside

from .assets import AssetName, cache_folder, fetch_asset, sole_use, verified

PoseModel = Literal["lite", "full", "heavy"]

LANDMARKERS: dict[PoseModel, AssetName] = {
    "lite": "pose_landmark_lite.tflite",
    "full": "pose_landmark_full.tflite",
    "heavy": "pose_landmark_heavy.tflite",
}
TASK_SHA256: dict[PoseModel, str] = {
    "lite": "265cb3bf9ad9f2ee64da758a2896f90c525ac3d50bfb719ec13bf68f5f2e8165",
    "full": "cb54801a40395171b4fbaba1566e3b62942000ceaef47d0d512309bec8aa6154",
    "heavy": "228cb8d51797701aeaa53cbd8f914e495b7fae08b1a92282effb9687a07692a1",
}


def pose_task(model: PoseModel = "full", quiet: bool = False) -> Path:
    """The verified `.task` in the cache, built on first use."""
    path = cache_folder() / f"pose_landmarker_{model}.task"
    if not path.is_file():
        build(model, path, quiet)
    return verified(path, TASK_SHA256[model], str(path), "delete it; it is built again")


def build(model: PoseModel, path: Path, quiet: bool) -> None:
    """Fetch the two networks and zip them."""
    model_schema, metadata_schema = schemas()  # before a long download: without mediapipe it would be in vain
    detector = fetch_asset("pose_detection.tflite", quiet).read_bytes()
    landmarker = fetch_asset(LANDMARKERS[model], quiet).read_bytes()
    networks = {
        "pose_detector.tflite": detector,
        "pose_landmarks_detector.tflite": described(landmarker, model_schema, metadata_schema),
    }
    with sole_use(path.parent), write_aside(path) as aside:
        write_stored_zip(aside, networks)
        hint = "this flatbuffers release packs metadata in another way: pip install 'flatbuffers~=25.9'"
        verified(aside, TASK_SHA256[model], f"{path.name} as built", hint)


def schemas() -> tuple[ModuleType, ModuleType]:
    """MediaPipe's generated modules for networks and for their metadata."""
    try:
        return (
            importlib.import_module("mediapipe.tasks.metadata.schema_py_generated"),
            importlib.import_module("mediapipe.tasks.metadata.metadata_schema_py_generated"),
        )
    except ImportError as error:
        raise MissingDependency(
            f"building a pose model needs mediapipe ({error})", hint="pip install 'poseda-deploy[video]'"
        ) from error


def write_stored_zip(path: Path, files: dict[str, bytes]) -> None:
    """A zip whose bytes depend on nothing but the content: no clock, no system."""
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = ZipInfo(name)  # dated 1980, stored
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def described(network: bytes, model_schema: ModuleType, metadata_schema: ModuleType) -> bytes:
    """The network with its metadata, in the place of its note of the oldest TFLite that runs it.

    Appended, not packed anew: weights keep their bytes and their alignment, and the result is the same with every
    flatbuffers release (25.9 and 25.12 pack the same network differently), so that its hash can be pinned.
    """
    model = model_schema.Model.GetRootAsModel(network, 0)
    notes = (model.Metadata(index) for index in range(model.MetadataLength()))
    note = next(note for note in notes if note.Name() == b"min_runtime_version")
    metadata = landmarker_metadata(metadata_schema, model.Subgraphs(0).OutputsLength())
    patched = bytearray(network)
    for table, content in ((note, b"TFLITE_METADATA"), (model.Buffers(note.Buffer()), metadata)):
        field = table._tab.Pos + table._tab.Offset(4)  # the first: the name of a note, the data of a buffer
        append_and_point(patched, field, content)
    return bytes(patched)


def append_and_point(patched: bytearray, field: int, content: bytes) -> None:
    """Add a vector (or a string: a vector with a zero after it) to the end and make the field's offset point to it."""
    patched += bytes(-(len(patched) + 4) % 16)  # buffers lie on 16 bytes, their length before them
    struct.pack_into("<I", patched, field, len(patched) - field)
    patched += struct.pack("<I", len(content)) + content + b"\0"


def landmarker_metadata(schema: ModuleType, outputs: int) -> bytes:
    """Metadata of an RGB image scaled to 0..1 and of that many outputs, whose names do not matter."""
    flatbuffers = importlib.import_module("flatbuffers")
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata = [image_input(schema)]
    graph.outputTensorMetadata = [schema.TensorMetadataT() for _ in range(outputs)]
    for index, tensor in enumerate(graph.outputTensorMetadata):
        tensor.name = f"output {index}"
    metadata = schema.ModelMetadataT()
    metadata.subgraphMetadata = [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(metadata.Pack(builder), b"M001")
    return bytes(builder.Output())


def image_input(schema: ModuleType) -> object:
    """Metadata of the input: (pixel - 0) / 255."""
    scaling = schema.ProcessUnitT()
    scaling.optionsType = schema.ProcessUnitOptions.NormalizationOptions
    scaling.options = schema.NormalizationOptionsT()
    scaling.options.mean, scaling.options.std = [0.0], [255.0]
    image = schema.TensorMetadataT()
    image.name = "image"
    image.content = schema.ContentT()
    image.content.contentPropertiesType = schema.ContentProperties.ImageProperties
    image.content.contentProperties = schema.ImagePropertiesT()
    image.content.contentProperties.colorSpace = schema.ColorSpaceType.RGB
    image.processUnits = [scaling]
    return image
