"""Tests the names and IDs of the emotions."""

import pytest

from fer_jax.data import emotions


def test_ids_are_the_challenge_s():
    names = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    assert [emotions.emotion_id(name) for name in names] == list(range(7))


def test_variants():
    variants = ["anger", "Disgusted", "FEARFUL", "happiness", "sadness", "surprised", " Neutral "]
    assert [emotions.canonical(variant) for variant in variants] == list(emotions.EMOTIONS)
    more = [emotions.canonical(variant) for variant in ("joy", "suprise", "neutrality")]
    assert more == ["happy", "surprise", "neutral"]


@pytest.mark.parametrize("name", ["contempt", "0", "", "happy1"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(emotions.UnknownEmotionError) as caught:
        emotions.canonical(name)
    assert repr(name) in str(caught.value)
    assert "surprise (surprised" in str(caught.value)


def test_contempt_is_the_eighth_class():
    assert emotions.class_names(7) == emotions.EMOTIONS
    assert emotions.class_names(8) == (*emotions.EMOTIONS, "contempt")
    for count in (0, 6, 9):
        with pytest.raises(ValueError, match=f"{count} classes; expected 7 .* or 8"):
            emotions.class_names(count)
