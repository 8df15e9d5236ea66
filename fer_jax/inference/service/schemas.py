"""What the service answers, as OpenAPI describes it."""

from typing import Any

from pydantic import BaseModel, Field

from fer_jax import __version__
from fer_jax.inference import licences
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Prediction
from fer_jax.pretrained.registry import network_name


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class State(BaseModel):
    """Of the service."""

    status: str


class Box(BaseModel):
    """The detector's box in pixels of the upright image; it may reach beyond the border."""

    left: float
    top: float
    width: float
    height: float


class Face(BaseModel):
    """A face and its emotions."""

    box: Box
    detection_score: float = Field(description="How sure the detector is, 0 to 1.")
    emotion: str = Field(description="The likeliest one.")
    confidence: float = Field(description="Its probability, calibrated where the weights have a temperature.")
    unsure: bool = Field(description="Whether the confidence is too low to trust.")
    probabilities: dict[str, float] = Field(description="Best first where `top` asked for some of them.")


class Image(BaseModel):
    """An image's faces, or why it could not be used."""

    source: str = Field(description="The name that the image was sent under.")
    width: int | None = Field(None, description="Of the upright image, in pixels; null beside an error.")
    height: int | None = None
    faces: list[Face] = Field([], description="The largest first; none where the detector sees none.")
    error: str | None = None


class Predictions(BaseModel):
    """One entry for each image, in the order they were sent."""

    images: list[Image]

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "images": [
                        {
                            "source": "photo.jpg",
                            "width": 512,
                            "height": 512,
                            "faces": [
                                {
                                    "box": {"left": 171.2, "top": 98.4, "width": 143.0, "height": 190.7},
                                    "detection_score": 0.9312,
                                    "emotion": "happy",
                                    "confidence": 0.91,
                                    "unsure": False,
                                    "probabilities": {"happy": 0.91, "neutral": 0.05},
                                }
                            ],
                            "error": None,
                        },
                        {
                            "source": "notes.txt",
                            "width": None,
                            "height": None,
                            "faces": [],
                            "error": "notes.txt: cannot be decoded: it is not an image that can be read; "
                            "expected a whole image file",
                        },
                    ]
                }
            ]
        }
    }


class Evaluation(BaseModel):
    """A score of the weights."""

    metric: str
    value: float
    split: str
    selected: bool = Field(
        description="Whether this split chose the weights, which makes the score optimistic."
    )


class Input(BaseModel):
    """How a face becomes the network's input."""

    side: int = Field(description="Pixels of the square that a face is cut out to.")
    image_size: int = Field(description="Pixels of the square that the network takes.")
    channels: int = Field(description="1: grey, 3: RGB.")
    mean: float | list[float] = Field(description="Subtracted from pixels in [0, 1].")
    std: float | list[float] = Field(description="That they are then divided by.")


class Model(BaseModel):
    """The network behind the answers."""

    name: str = Field(description="As --model takes it where it comes with fer_jax, else its architecture's.")
    weights: str = Field(description="Name of their file.")
    version: str = Field(description="Of fer_jax.")
    emotions: list[str]
    parameters: int
    input: Input
    temperature: float = Field(description="That divides the logits; 1 where none was fitted.")
    unsure_below: float
    evaluation: Evaluation | None
    licence: str = Field(description="Of the weights.")
    intended_use: str


def describe_model(predictor: Predictor) -> Model:
    """The facts about a predictor's network."""
    classifier = predictor.classifier
    trained, facts = classifier.trained, classifier.trained.facts
    # The facts of the weights name no path; their source does.
    weights = trained.source.rstrip("/").rpartition("/")[2]
    kept = {key: facts["preprocess"][key] for key in ("image_size", "channels", "mean", "std")}
    return Model(
        name=network_name(trained.source, facts["model"]),
        weights=weights,
        version=__version__,
        emotions=list(classifier.emotions),
        parameters=trained.parameters,
        input=Input(side=classifier.side, **kept),
        temperature=classifier.temperature,
        unsure_below=predictor.unsure_below,
        evaluation=_evaluation(facts),
        licence=licences.weights_licence(trained.source, facts.get("pretrained")),
        intended_use=licences.INTENDED_USE,
    )


def _evaluation(facts: dict[str, Any]) -> Evaluation | None:
    score = facts.get("evaluation") or facts.get("selection")
    if not score:
        return None
    selection = facts.get("selection") or {}
    selected = selection.get("split") == score["split"]
    return Evaluation(metric=score["metric"], value=score["value"], split=score["split"], selected=selected)


def describe_image(prediction: Prediction, top: int | None) -> Image:
    """An image's prediction, with the `top` likeliest emotions of each face, or with all."""
    image = Image(**prediction.to_dict())
    for face in image.faces if top else ():
        best = sorted(face.probabilities.items(), key=lambda item: -item[1])[:top]
        face.probabilities = dict(best)
    return image
