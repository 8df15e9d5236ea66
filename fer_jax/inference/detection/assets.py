"""Provides the models of the face detectors: YuNet's is bundled, BlazeFace's is downloaded."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fer_jax.pretrained import download

FOLDER = "detectors"  # in the cache
YUNET = pathlib.Path(__file__).with_name("face_detection_yunet_2023mar.onnx")  # see NOTICE.md
BLAZEFACE_URL = "https://storage.googleapis.com/mediapipe-assets/face_detection_short_range.tflite"
BLAZEFACE_CHECKSUM = "sha256:3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"

_LEVEL = 127.5  # BlazeFace's input is (pixel - _LEVEL) / _LEVEL, in [-1, 1]
_OUTPUTS = 2  # boxes and scores


class DetectorError(OSError):
    """A detector that cannot be used on this machine."""


def fetch_blazeface() -> pathlib.Path:
    """Returns the path of BlazeFace's file, downloaded if it is not in the cache.

    Raises:
      DownloadError, WrongFileError: as `download.fetch`.
    """
    try:
        return download.fetch(BLAZEFACE_URL, checksum=BLAZEFACE_CHECKSUM, folder=FOLDER, megabytes=0.2)
    except download.DownloadError as error:
        raise download.DownloadError(f"{error}, or use the detector yunet, which is bundled") from error


def open_blazeface(min_score: float) -> tuple[Any, Callable[[np.ndarray], Any]]:
    """Returns MediaPipe's detector, and a function that converts uint8 [H, W, 3] to its image type.

    Raises:
      DetectorError: mediapipe cannot be imported; the message says how to install it.
      As `fetch_blazeface`.
    """
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:  # OSError: a system library is missing
        raise DetectorError(
            f"the detector mediapipe needs the package mediapipe ({error}): pip install --no-deps "
            "mediapipe, and on Debian apt install libegl1 libgles2; or use the detector yunet"
        ) from error
    path = fetch_blazeface()
    options = vision.FaceDetectorOptions(
        base_options=BaseOptions(model_asset_buffer=describe_input(path.read_bytes())),
        min_detection_confidence=min_score,
    )

    def to_image(rgb: np.ndarray) -> Any:
        return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)

    class FaceDetector(vision.FaceDetector):
        """A detector that can be deleted at interpreter exit without errors."""

        def __del__(self):
            with contextlib.suppress(RuntimeError, TypeError):
                self.close()

    detector = vision.FaceDetector.create_from_options(options)
    detector.__class__ = FaceDetector  # the factory function ignores subclasses
    return detector, to_image


def describe_input(model: bytes) -> bytes:
    """Adds the input metadata that the tasks API requires to a TFLite file without it."""
    import flatbuffers
    from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
    from mediapipe.tasks.metadata import schema_py_generated as tflite

    normalization = metadata.NormalizationOptionsT(mean=[_LEVEL], std=[_LEVEL])
    unit = metadata.ProcessUnitT(metadata.ProcessUnitOptions.NormalizationOptions, normalization)
    described = metadata.ModelMetadataT(
        subgraphMetadata=[
            metadata.SubGraphMetadataT(
                inputTensorMetadata=[metadata.TensorMetadataT(processUnits=[unit])],
                outputTensorMetadata=[metadata.TensorMetadataT() for _ in range(_OUTPUTS)],
            )
        ]
    )
    builder = flatbuffers.Builder()
    builder.Finish(described.Pack(builder), b"M001")
    content = np.frombuffer(bytes(builder.Output()), np.uint8)
    whole: Any = tflite.ModelT.InitFromPackedBuf(model, 0)
    whole.buffers.append(tflite.BufferT(data=content))
    entry = tflite.MetadataT(name="TFLITE_METADATA", buffer=len(whole.buffers) - 1)
    whole.metadata = [*(whole.metadata or []), entry]
    builder = flatbuffers.Builder()
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())
