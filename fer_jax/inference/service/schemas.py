"""Defines the responses of the service for OpenAPI."""

from pathlib import PurePath

from pydantic import BaseModel, Field

from fer_jax import __version__
from fer_jax.inference import licences
from fer_jax.inference.predictor import Prediction, Predictor
from fer_jax.pretrained.registry import network_name


class Problem(BaseModel):
    """An error."""

    detail: str


class State(BaseModel):
    """The state of the service."""

    status: str


class Service(BaseModel):
    """The service and its routes."""

    name: str
    version: str
    summary: str
    routes: dict[str, str]


class Box(BaseModel):
    """A detector's box in pixels of the upright image; it may exceed the image."""

    left: float
    top: float
    width: float
    height: float


class Face(BaseModel):
    """A face and its emotions."""

    box: Box
    detection_score: float = Field(description="The detector's confidence, 0 to 1.")
    emotion: str = Field(description="The most likely emotion.")
    confidence: float = Field(description="Its probability, calibrated if the weights have a temperature.")
    unsure: bool = Field(description="Whether the confidence is below `unsure_below` of the model.")
    probabilities: dict[str, float] = Field(
        description="Probability of each emotion, most likely first if `top` is given."
    )


class Image(BaseModel):
    """The faces in an image, or an error."""

    source: str = Field(description="File name of the upload.")
    width: int | None = Field(
        default=None, description="Width of the upright image in pixels; null if there is an error."
    )
    height: int | None = None
    faces: list[Face] = Field(default=[], description="Faces, largest first; empty if none was detected.")
    error: str | None = None


class Predictions(BaseModel):
    """An entry for each image, in the order of the upload."""

    images: list[Image]


class Evaluation(BaseModel):
    """A score of the weights."""

    metric: str
    value: float
    split: str
    selected: bool = Field(
        description="Whether this split selected the weights, so that the score is optimistic."
    )


class Input(BaseModel):
    """The preprocessing of faces."""

    side: int = Field(description="Pixels per side of a face's crop.")
    image_size: int = Field(description="Pixels per side of the network's input.")
    channels: int = Field(description="1: gray, 3: RGB.")
    mean: float | list[float] = Field(description="Subtracted from pixels in [0, 1].")
    std: float | list[float] = Field(description="Divides the pixels after that.")


class Model(BaseModel):
    """The network."""

    name: str = Field(description="The bundled network's name as --model takes it, else the architecture's.")
    weights: str = Field(description="Name of the weights file.")
    version: str = Field(description="Version of fer_jax.")
    emotions: list[str]
    parameters: int
    input: Input
    temperature: float = Field(description="Divides the logits; 1 if the weights are not calibrated.")
    unsure_below: float
    evaluation: Evaluation | None
    licence: str = Field(description="License of the weights.")
    intended_use: str


def describe_model(predictor: Predictor) -> Model:
    """Returns the metadata of a predictor's network."""
    classifier = predictor.classifier
    trained, metadata = classifier.trained, classifier.trained.metadata
    selection = metadata.get("selection")
    evaluation = None
    if score := metadata.get("evaluation") or selection:
        selected = selection is not None and selection.get("split") == score["split"]
        evaluation = Evaluation(**score, selected=selected)
    return Model(
        name=network_name(trained.source, metadata["model"]),
        weights=PurePath(trained.source).name,  # without its folder, which may be private
        version=__version__,
        emotions=list(classifier.emotions),
        parameters=trained.parameters,
        input=Input(side=classifier.side, **metadata["preprocess"]),
        temperature=trained.temperature,
        unsure_below=predictor.unsure_below,
        evaluation=evaluation,
        licence=licences.weights_licence(trained.source, metadata.get("pretrained")),
        intended_use=licences.INTENDED_USE,
    )


def describe_image(prediction: Prediction, top: int | None) -> Image:
    """Returns a prediction with the `top` most likely emotions of each face, or all."""
    image = Image(**prediction.to_dict())
    for face, found in zip(image.faces, prediction.faces, strict=True):
        if top:
            face.probabilities = {name: face.probabilities[name] for name, _ in found.top(top)}
    return image
