"""Tests reading files of other libraries, and rejecting unsafe files."""

import os
import pickle
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import numpy as np
import pytest
from helpers import needed
from safetensors.numpy import save_file

from fer_jax.pretrained import formats

KERNEL = np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2)


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_safetensors(tmp_path):
    arrays = {"conv.weight": KERNEL, "bn.num_batches_tracked": np.int64(3)[None]}
    save_file(arrays, tmp_path / "w.safetensors")
    same(formats.read(tmp_path / "w.safetensors"), arrays)


class Harmful:
    def __reduce__(self):
        return os.system, ("echo executed",)


def write_torch(path, content, legacy=False):
    torch = needed("torch", "originals")
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def write_pickle(path):
    """Writes a pickle that torch.load treats as its legacy format."""
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))


def refusal(path, capfd):
    """Returns the error message for a file, after checking that no code in it has run."""
    with pytest.raises(formats.UnreadableWeightsError) as caught:
        formats.read(path)
    assert "executed" not in capfd.readouterr().out
    return str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_with_more_than_weights_is_not_opened(tmp_path, capfd, kind):
    torch, path = needed("torch", "originals"), tmp_path / "w.pth"
    if kind == "pickle":
        write_pickle(path)
    else:
        write_torch(path, {"conv.weight": torch.zeros(1), "more": Harmful()}, legacy=kind == "legacy")
    assert "w.pth contains more than weights, and is not opened" in refusal(path, capfd)


def test_without_torch_its_files_are_not_opened_at_all(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write_pickle(tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth", capfd)
    assert "w.pth: reading this file needs torch (pip install torch); a .safetensors file" in message


def test_the_harmful_pickle_is_harmful(tmp_path, capfd):
    write_pickle(tmp_path / "w.pth")
    pickle.loads((tmp_path / "w.pth").read_bytes())
    assert "executed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda weights: {"epoch": 3, "state_dict": weights}, "epoch is of type int, not a tensor"),
        (lambda weights: {"state_dict": weights}, "state_dict is of type dict, not a tensor: save the state"),
        (lambda weights: [weights], "the whole file is of type list, not a tensor"),
    ],
)
def test_a_checkpoint_around_the_weights_is_refused(tmp_path, wrap, message):
    torch = needed("torch", "originals")
    write_torch(tmp_path / "w.pth", wrap({"conv.weight": torch.zeros(1)}))
    with pytest.raises(formats.UnreadableWeightsError, match=message):
        formats.read(tmp_path / "w.pth")


@pytest.mark.parametrize("wants_gradients", [False, True])
def test_torch(wants_gradients, tmp_path):
    torch = needed("torch", "originals")
    kernel = torch.nn.Parameter(torch.from_numpy(KERNEL), requires_grad=wants_gradients)
    write_torch(tmp_path / "w.pth", {"conv.weight": kernel if wants_gradients else kernel.data})
    same(formats.read(tmp_path / "w.pth"), {"conv.weight": KERNEL})


def keras_model():
    """Returns a model with one layer of each kind, and two convolutions to test their numbering."""
    import keras

    layers = [
        keras.layers.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, name="first"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.DepthwiseConv2D(3, use_bias=False, name="depth"),
        keras.layers.Conv2D(5, 1, use_bias=False, name="second"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(2, name="predictions"),
    ]
    model = keras.Sequential(layers)
    for i, weight in enumerate(model.weights):
        weight.assign(np.full(weight.shape, i, np.float32))
    return model


EXPECTED = {
    "first": ("conv2d", ("kernel", "bias")),
    "norm": ("batch_normalization", ("gamma", "beta", "moving_mean", "moving_variance")),
    "depth": ("depthwise_conv2d", ("kernel",)),
    "second": ("conv2d_1", ("kernel",)),
    "predictions": ("dense", ("kernel", "bias")),
}


def test_keras_weights_by_kind_and_number(tmp_path):
    model = keras_model()
    model.save_weights(tmp_path / "w.weights.h5")
    expected = {
        f"{numbered}/{i}": np.asarray(model.get_layer(name).weights[i])
        for name, (numbered, variables) in EXPECTED.items()
        for i in range(len(variables))
    }
    same(formats.read(tmp_path / "w.weights.h5"), expected)


def write_legacy(path, model, group=None):
    """Writes weights in the format of Keras 1 and 2, with names of layers and weights in attributes."""
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        top.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            kept = top.create_group(layer.name)
            variables = EXPECTED[layer.name][1] if layer.name in EXPECTED else ()
            names = ["depthwise_kernel" if layer.name == "depth" else variable for variable in variables]
            names = [f"{layer.name}/{name}:0" for name in names]
            kept.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                kept[name] = np.asarray(weight)


@pytest.mark.parametrize("group", [None, "model_weights"])
def test_legacy_keras_by_place_in_the_order_of_the_layers(tmp_path, group):
    model = keras_model()
    write_legacy(tmp_path / "w.h5", model, group)
    expected = {
        f"{name}/{name}/{'depthwise_kernel' if name == 'depth' else variable}:0": np.asarray(weight)
        for name, (_, variables) in EXPECTED.items()
        for variable, weight in zip(variables, model.get_layer(name).weights, strict=True)
    }
    found = formats.read(tmp_path / "w.h5")
    same(found, expected)
    assert list(found) == list(expected)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*w.h5"):
        formats.read(tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["w.safetensors", "w.h5", "w.weights.h5"])
def test_a_damaged_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"not what the name says")
    with pytest.raises(
        formats.UnreadableWeightsError, match=f"{name} is damaged, or has another format than its name says"
    ):
        formats.read(tmp_path / name)


def test_another_kind(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(formats.UnreadableWeightsError, match="expected a file ending in .pth, .pt"):
        formats.read(tmp_path / "w.pkl")


# -------------------- hostile files of Keras --------------------


def legacy_layers(file):
    """Creates the groups of a layer; returns the group and the name of its weight, which is missing."""
    file.attrs["layer_names"] = [b"conv"]
    group = file.create_group("conv")
    group.attrs["weight_names"] = [b"kernel:0"]
    return group, "kernel:0"


def keras_layers(file):
    return file.create_group("layers/conv2d/vars"), "0"


def external_storage(group, name, folder):
    group.create_dataset(name, (4,), "uint8", external=[(folder / "secret", 0, 4)])


def external_link(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(4)
    group[name] = h5py.ExternalLink(folder / "other.h5", "secret")


def external_group(group, name, folder):
    """Writes an external link in the path to the weight."""
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(4)
        for deep in ("vars/0", "conv/kernel:0"):
            other[deep] = np.ones(4)
    at = group.parent.name
    file, own = group.file, group.name
    link = h5py.ExternalLink(folder / "other.h5", own if at == "/" else "/")
    del file[own]
    file[own] = link


def soft_link(group, name, folder):
    group.file["elsewhere"] = np.ones(4)
    group[name] = h5py.SoftLink("/elsewhere")


def virtual(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(4)
    layout = h5py.VirtualLayout((4,), "float64")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "secret", (4,))
    group.create_virtual_dataset(name, layout)


def absurd(group, name, folder):
    group.create_dataset(name, (2**40,), "float32")


def absurd_and_compressed(group, name, folder):
    group.create_dataset(name, (2**20, 2**20), "float32", chunks=(1, 1024), compression="gzip")


def absurd_parts(group, name, folder):
    group.create_dataset(name, (1,), "float32", maxshape=(None,), chunks=(2**28,))


def bomb(group, name, folder):
    group.create_dataset(name, data=np.zeros(2**22, np.uint8), compression="gzip")


def text(group, name, folder):
    group[name] = ["a", "b"]


def nothing(group, name, folder):
    group[name] = h5py.Empty("float32")


def a_group(group, name, folder):
    group.create_group(name)


def plugin(group, name, folder):
    steps = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    steps.set_chunk((4,))
    steps.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # Blosc, a plugin that HDF5 would search for
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), steps)


@pytest.mark.parametrize("layers", [legacy_layers, keras_layers])
@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (external_storage, "is stored in other files, which are not opened"),
        (external_link, r"is a link \(ExternalLink\), which is not followed"),
        (external_group, r"is a link \(ExternalLink\), which is not followed"),
        (soft_link, r"is a link \(SoftLink\), which is not followed"),
        (virtual, "is stored in other files, which are not opened"),
        (absurd, "declares 4,398,046,511,104 bytes, more than the file can contain"),
        (absurd_and_compressed, "declares 4,398,046,511,104 bytes"),
        (absurd_parts, "has chunks of 1,073,741,824 bytes, more than the file can contain"),
        (bomb, "declares 4,194,304 bytes"),
        (text, "is not a numeric array"),
        (nothing, "is not a numeric array"),
        (a_group, "is not a numeric array"),
        (plugin, "is compressed by filters other than gzip and LZF"),
    ],
)
def test_what_is_not_in_the_file_is_not_read(tmp_path, monkeypatch, layers, write, reason):
    """Nothing is allocated or opened for missing data."""
    (tmp_path / "secret").write_bytes(b"pass")
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        write(*layers(file), tmp_path)
    read, opened = np.asarray, []
    monkeypatch.setattr(formats.np, "asarray", lambda value: opened.append(value) or read(value))
    with pytest.raises(
        formats.UnreadableWeightsError, match=rf"w.h5: /.* {reason}.*: save it again"
    ) as error:
        formats.read(path)
    assert not opened and "conv" in str(error.value)


def test_one_array_does_not_serve_a_million_times(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        group, name = legacy_layers(file)
        group[name] = np.ones(2000, np.float32)
        group.attrs["weight_names"] = [name.encode()] * 2000
    with pytest.raises(formats.UnreadableWeightsError, match="declares 8,000 bytes, more than"):
        formats.read(path)


def test_a_weight_that_is_missing_is_named(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        legacy_layers(file)
    with pytest.raises(formats.UnreadableWeightsError, match="w.h5: /conv/kernel:0 is missing; expected"):
        formats.read(tmp_path / "w.h5")


def test_compressed_weights_are_read(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group, name = legacy_layers(file)
        group.create_dataset(name, data=kernel, compression="gzip", shuffle=True)
    same(formats.read(tmp_path / "w.h5"), {"conv/kernel:0": kernel})


@pytest.mark.parametrize("names", [3, [1, 2], "conv", [b"\xff"]])
def test_names_that_are_none(tmp_path, names):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = names
    with pytest.raises(formats.UnreadableWeightsError, match="w.h5"):
        formats.read(tmp_path / "w.h5")


def test_any_byte_that_changed_is_an_error_in_a_line_or_numbers(tmp_path):
    """HDF5 has checksums for few structures.

    The heap with the names is excluded, because HDF5 loops endlessly for some damage in it.
    """
    path = tmp_path / "w.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group, name = legacy_layers(file)
        group[name] = np.arange(3, dtype=np.float32)
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    for place in {*range(0, len(content), 37)} - {*range(heap, heap + 4096)}:
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert all(value.size < 1000 for value in formats.read(path).values())
        except formats.UnreadableWeightsError as error:
            assert "w.h5" in str(error)
