"""A minimal script around an export: YuNet detects faces, and ONNX Runtime classifies them.

    python benchmarks/onnx_script.py model.onnx yunet.onnx PHOTO_OR_VIDEO...

The peer in `predict.py`. It does not import fer_jax.
"""

import sys

import cv2
import numpy as np
import onnxruntime

PHOTO_SIDE, FRAME_SIDE = 1280, 640  # pixels; larger images are downscaled for detection


def main() -> None:
    model, yunet, *paths = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape
    detector = cv2.FaceDetectorYN.create(yunet, "", (320, 320), 0.6)

    def predict(image: np.ndarray, most: int) -> int:
        scale = min(1.0, most / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector.setInputSize(small.shape[1::-1])
        _, found = detector.detect(small)
        boxes = () if found is None else np.maximum(found[:, :4] / scale, 0).astype(int)
        for left, top, across, down in boxes:
            face = cv2.cvtColor(image[top : top + down, left : left + across], cv2.COLOR_BGR2GRAY)
            face = cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA)
            session.run(None, {"faces": face[None, ..., None]})
        return len(boxes)

    faces = 0
    for path in paths:
        if (image := cv2.imread(path)) is not None:
            faces += predict(image, PHOTO_SIDE)
            continue
        video = cv2.VideoCapture(path)
        while (read := video.read())[0]:
            faces += predict(read[1], FRAME_SIDE)
    print(faces, "faces")


if __name__ == "__main__":
    main()
