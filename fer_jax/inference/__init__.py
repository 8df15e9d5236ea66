"""From pictures to emotions: face detection, the predictor, video, exports, the app and the service."""
