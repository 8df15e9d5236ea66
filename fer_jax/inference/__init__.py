"""Inference: face detection, the predictor, videos, exports, the app, and the service."""
