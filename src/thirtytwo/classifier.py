"""A trained classifier: uint8 images in, probabilities out, everything in between inside.

Resizing, normalisation, the network, the temperature and the class names travel together in one file. Whatever shows
or serves a model goes through here, so that a picture is prepared in the same way wherever the model runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.nn.functional import pad

from thirtytwo import data, models
from thirtytwo.data import Exclusion, Sketch, exclusion
from thirtytwo.data.loader import Standardise
from thirtytwo.errors import ModelError, ThirtytwoError
from thirtytwo.run import Run, read_tensors, write_tensors
from thirtytwo.settings import AnyModel, CustomModel, Pixels, Settings, TimmModel, Views

FORMAT = 1
"""Version of the model file's header."""

PRETRAINED = "pretrained"
"""Name of the model that lies in the package; a folder of your own of that name is meant by its absolute path."""


UNKNOWN = "unknown"
"""The answer where no class is probable enough."""

_Side = Annotated[int, Field(ge=1, le=4096)]


class _Header(Settings):
    """What a model file says of itself, beside the weights."""

    format: int
    model: Annotated[AnyModel, Field(discriminator="name")]
    pixels: Pixels
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    size: tuple[_Side, _Side]
    views: Views = Views()
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unknown_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    facts: dict[str, Any]


class _EnsembleHeader(Settings):
    """What the file of an ensemble says of itself."""

    format: int
    members: Annotated[tuple[_Header, ...], Field(min_length=1)]
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    unknown_below: Annotated[float, Field(ge=0, le=1)]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image."""

    path: str
    """The image file."""
    label: str
    """Name of the most probable class; ``unknown`` where it is less probable than was asked for."""
    probability: float
    """Of the most probable class."""
    probabilities: dict[str, float]
    """Every class with its probability, most probable first."""
    answered: bool = True
    """Whether that class is probable enough for the answer that was asked for."""


@dataclass(eq=False, repr=False)
class Classifier:
    """uint8 images -> class probabilities.

    Attributes:
        network: float32 (batch, 3, height, width) -> float32 (batch, classes).
        model: the settings that build the network, or `CustomModel` for a caller's own.
        classes: class names, in the order of the network's outputs.
        size: (height, width) in pixels of the images that it takes.
        pixels: how pixels become the network's input.
        views: what is averaged when an image is classified.
        temperature: scores are divided by this before the softmax (Guo et al. 2017).
        unknown_below: the top probability below which an answer had better be "unknown", where that is wanted: most
            validation images, as many as the recipe's `calibration.coverage` says, have more.
        facts: where it comes from: recipe, seed, data, …; how it answers does not depend on them.
    """

    network: nn.Module
    model: AnyModel
    classes: tuple[str, ...]
    size: tuple[int, int] = (32, 32)
    pixels: Pixels = field(default_factory=Pixels)
    views: Views = field(default_factory=Views)
    temperature: float = 1.0
    unknown_below: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        model: str | Path | Run,
        *,
        network: nn.Module | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Read a model.

        Args:
            model: a run folder, that of an ensemble, a model file, or ``"pretrained"``: weights for CIFAR-10 that come
                with the package.
            network: the module to put the weights into, for models trained with ``train(…, network=module)``.
            device: where it shall run.

        Raises:
            ModelError: the file is missing, cut short, a pickle, or does not fit itself or the network.
        """
        path = file_of(model)
        tensors, raw = read_tensors(path)
        if raw.get("format") != FORMAT:
            raise ModelError(
                f"{path}: model format {raw.get('format')!r}, expected {FORMAT}; use the thirtytwo that wrote it"
            )
        if "members" in raw:
            return cast(Self, _ensemble(raw, tensors, path, device))
        return cast(Self, _single(_parsed(_Header, raw, path), tensors, path, network, device))

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write the model file, atomically; see `run.write_tensors`.

        Args:
            path: a file; it is replaced if there is one.
            half: store kernels and matrices as float16, which takes half the space and changes scores by about a
                thousandth. Biases and what normalises are few, span more than float16 does, and stay as they are.
        """
        write_tensors(Path(path), self._tensors(half), self._header().model_dump(mode="json"))

    def _header(self) -> _Header:
        return _Header(
            format=FORMAT,
            model=self.model,
            pixels=self.pixels,
            views=self.views,
            classes=self.classes,
            size=self.size,
            temperature=self.temperature,
            unknown_below=self.unknown_below,
            facts=dict(self.facts),
        )

    def _tensors(self, half: bool) -> dict[str, Tensor]:
        return {
            name: tensor.half() if half and tensor.ndim > 1 and tensor.is_floating_point() else tensor
            for name, tensor in self.network.state_dict().items()
        }

    def __repr__(self) -> str:
        """In short; the network's layers are in `network`."""
        height, width = self.size
        return (
            f"Classifier({self.model.name}, {models.parameters(self.network):,} parameters, {height} × {width} pixels, "
            f"classes: {', '.join(self.classes)})"
        )

    @property
    def device(self) -> torch.device:
        """Where the network's weights lie."""
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    @property
    def exclusion(self) -> Exclusion:
        """The training images that it was trained without, though they are among its data's.

        Raises:
            ModelError: what it says of them is damaged.
        """
        try:
            return exclusion.recalled(self.facts)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"model of {self.facts.get('recipe', self.model.name)}: what it says of images that were left out is "
                f"damaged ({error!r}); expected what `thirtytwo train --exclude` wrote; copy it again"
            ) from None

    @property
    def seen(self) -> Sketch | None:
        """The pictures that it was trained or selected with; None where its file does not tell.

        Raises:
            ModelError: what it says of them is damaged.
        """
        return self._sketch("seen")

    @property
    def seen_by_teachers(self) -> Sketch | None:
        """The pictures that whoever taught it, or the weights it began with, had seen; None where there are none.

        Raises:
            ModelError: what it says of them is damaged.
        """
        return self._sketch("seen_by_teachers")

    def _sketch(self, key: str) -> Sketch | None:
        if (said := self.facts.get(key)) is None:
            return None
        try:
            return Sketch.recalled(said)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"model of {self.facts.get('recipe', self.model.name)}: what it says of the pictures that it was "
                f"trained on is damaged ({error!r}); expected what `thirtytwo train` wrote; copy it again"
            ) from None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and preparation: two models that answer differently never share it."""
        settings = [part.model_dump() for part in (self.model, self.pixels, self.views)]
        preparation = (settings, self.classes, self.size, self.temperature)
        digest = hashlib.sha256(json.dumps(preparation, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def scores(self, images: NDArray[np.uint8] | Tensor, batch_size: int = 500) -> Tensor:
        """The network's outputs before temperature and softmax.

        Args:
            images: uint8 array (n, height, width, 3), or uint8 tensor (n, 3, height, width), of this model's size.
            batch_size: images that go through the network at once; the scores do not depend on it beyond rounding.

        Returns:
            float32 (n, classes), on the network's device.

        Raises:
            ModelError: the images have another size or type.
        """
        is_array = isinstance(images, np.ndarray)
        if not is_array and not isinstance(images, Tensor):
            raise ModelError(
                f"images are {type(images).__name__}; expected a uint8 array (n, height, width, 3); for image files "
                "there is predict([path, …])"
            )
        expected = (*self.size, 3) if is_array else (3, *self.size)
        if images.dtype != (np.uint8 if is_array else torch.uint8) or tuple(images.shape[1:]) != expected:
            kind = str(images.dtype).removeprefix("torch.")
            raise ModelError(
                f"images are {kind} {tuple(images.shape)}; expected uint8 (n, {', '.join(map(str, expected))}); "
                "convert or resize them"
            )
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        standardise, device = data.standardiser(self.pixels), self.device
        with models.evaluating(self.network), torch.inference_mode():
            # For a single image, what is done beside the network is felt: neither divided nor joined without need.
            batches = torch.split(images, batch_size) if len(images) > batch_size else [images]
            parts = [self._averaged(standardise(batch.to(device))) for batch in batches if len(batch)]
        if not parts:
            return torch.empty((0, len(self.classes)), device=device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _averaged(self, inputs: Tensor) -> Tensor:
        """Scores float32 (batch, classes) of a network's inputs, averaged over `views`."""
        scores: Tensor = self.network(inputs).float()
        if not self.views.several:
            return scores
        doubtful = (scores.softmax(1).amax(1) <= self.views.below_probability).nonzero()[:, 0]
        if not len(doubtful):
            return scores
        again, first = inputs[doubtful], scores[doubtful]
        mean = self._mirrored(again, first)
        if shift := self.views.translate_pixels:
            height, width = self.size
            padded = pad(again, (shift, shift, shift, shift), mode="reflect")
            corners = padded[:, :, :height, :width], padded[:, :, 2 * shift :, 2 * shift :]
            mean = mean / 2 + sum(self._mirrored(corner, self.network(corner).float()) for corner in corners) / 4
        return scores.index_copy(0, doubtful, mean)

    def _mirrored(self, inputs: Tensor, scores: Tensor) -> Tensor:
        """Scores averaged with those of the mirrored inputs, if `views` says so."""
        return (scores + self.network(inputs.flip(3)).float()) / 2 if self.views.mirror else scores

    def with_one_view(self) -> Classifier:
        """The same, but for looking at each image once, as it is."""
        return replace(self, views=Views())

    def calibrated_scores(self, inputs: Tensor, prepared: Standardise) -> Tensor:
        """What it says, at first view, of images that were prepared for another network.

        Args:
            inputs: float32 (batch, 3, height, width), of this model's size, on its device.
            prepared: what has made them from pixels.

        Returns:
            float32 (batch, classes), on that device; their softmax is probabilities.
        """
        scores: Tensor = self.network(data.standardiser(self.pixels).converted(inputs, prepared))
        return scores.float() / self.temperature

    @property
    def flops_per_image(self) -> float:
        """Floating-point operations of the first view of an image."""
        return models.flops_per_image(self.network, self.size, backward=False)

    def probabilities(self, images: NDArray[np.uint8] | Tensor, batch_size: int = 500) -> Tensor:
        """Class probabilities float32 (n, classes), on the network's device; see `scores`."""
        with torch.no_grad():  # not inference_mode: what callers get, they may change
            return (self.scores(images, batch_size) / self.temperature).softmax(1)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities float32 (n, classes) for uint8 images (n, height, width, 3)."""
        return self.probabilities(images).cpu().numpy()

    def predict(self, paths: Iterable[str | Path], *, unknown_below: float = 0.0) -> list[Prediction]:
        """Classify image files of any size and kind that Pillow reads.

        Args:
            paths: the files.
            unknown_below: the answer is ``unknown`` where no class has this probability; `self.unknown_below` is what
                the model itself suggests.

        Raises:
            ImageError: files are missing, damaged, or no images; all of them are named, and nothing is predicted.
        """
        files = [str(path) for path in paths]
        if not files:
            return []
        return self.predictions(files, data.read_images(files, self.size), unknown_below=unknown_below)

    def predictions(
        self, files: Sequence[str], pixels: NDArray[np.uint8], *, unknown_below: float = 0.0
    ) -> list[Prediction]:
        """What `predict` says of image files that have been read.

        Args:
            files: n of them.
            pixels: uint8 (n, height, width, 3), as `data.read_images` reads them for this model's size.
            unknown_below: see `predict`.
        """
        predictions = []
        for path, row in zip(files, self(pixels), strict=True):
            order = np.argsort(-row, kind="stable")
            ranked = {self.classes[index]: float(row[index]) for index in order}
            label = self.classes[order[0]]
            said = label if ranked[label] >= unknown_below else UNKNOWN
            predictions.append(Prediction(path, said, ranked[label], ranked, ranked[label] >= unknown_below))
        return predictions


@dataclass(eq=False, repr=False)
class Ensemble(Classifier):
    """Several classifiers that answer as one: the mean of their calibrated probabilities, weighted.

    It is a classifier like any other: what scores, shows or serves one takes it. Its `network` holds those of all
    members; made with `of`.

    Attributes:
        members: at least one, of the same classes and image size; the same one may come only once.
        weights: of each, above 0; their sum is 1.
    """

    members: tuple[Classifier, ...] = ()
    weights: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        members: Sequence[Classifier],
        weights: Sequence[float] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Ensemble:
        """Let classifiers answer together.

        Args:
            members: on one device.
            weights: how much each counts, above 0; None is all the same.
            facts: where it comes from.

        Raises:
            ModelError: they tell apart other classes, or take images of another size.
        """
        if not members:
            raise ModelError("no members; expected at least one classifier")
        first, *others = members
        for other in others:
            if (other.classes, other.size) != (first.classes, first.size):
                raise ModelError(
                    f"members differ: found {_kind(other)}, expected {_kind(first)}, as the first one has; leave it out"
                )
        shares = [1.0] * len(members) if weights is None else list(weights)
        if len(shares) != len(members) or not all(share > 0 for share in shares):
            raise ModelError(f"weights are {shares} for {len(members)} members; expected a number above 0 for each")
        return cls(
            network=nn.ModuleList(member.network for member in members),
            model=CustomModel(module="thirtytwo.classifier.Ensemble"),
            classes=first.classes,
            size=first.size,
            facts=facts or {},
            members=tuple(members),
            weights=tuple(share / sum(shares) for share in shares),
        )

    @property
    def seen(self) -> Sketch | None:
        """See `Classifier.seen`; of all members that tell."""
        return together(member.seen for member in self.members)

    @property
    def seen_by_teachers(self) -> Sketch | None:
        """See `Classifier.seen_by_teachers`; of all members that tell."""
        return together(member.seen_by_teachers for member in self.members)

    @property
    def fingerprint(self) -> str:
        """See `Classifier.fingerprint`."""
        parts = [[member.fingerprint for member in self.members], self.weights, self.temperature]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def scores(self, images: NDArray[np.uint8] | Tensor, batch_size: int = 500) -> Tensor:
        """Logarithms of the mean probabilities, float32 (n, classes); see `Classifier.scores`."""
        return self._mean([member.probabilities(images, batch_size) for member in self.members])

    def _mean(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Logarithms of the weighted mean of what the members say."""
        parts = [weight * said for weight, said in zip(self.weights, probabilities, strict=True)]
        return torch.stack(parts).sum(0).clamp_min(1e-12).log()

    def calibrated_scores(self, inputs: Tensor, prepared: Standardise) -> Tensor:
        """See `Classifier.calibrated_scores`; each member gets what it takes."""
        said = [member.calibrated_scores(inputs, prepared).softmax(1) for member in self.members]
        return self._mean(said) / self.temperature

    @property
    def flops_per_image(self) -> float:
        """See `Classifier.flops_per_image`."""
        return sum(member.flops_per_image for member in self.members)

    def with_one_view(self) -> Ensemble:
        """See `Classifier.with_one_view`."""
        return replace(self, members=tuple(member.with_one_view() for member in self.members))

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write one file with all members in it; see `Classifier.save`."""
        header = _EnsembleHeader(
            format=FORMAT,
            members=tuple(member._header() for member in self.members),
            weights=self.weights,
            temperature=self.temperature,
            unknown_below=self.unknown_below,
            facts=dict(self.facts),
        )
        tensors = {
            f"{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member._tensors(half).items()
        }
        write_tensors(Path(path), tensors, header.model_dump(mode="json"))

    def __repr__(self) -> str:
        """In short."""
        return f"Ensemble({', '.join(map(repr, self.members))})"


def _kind(classifier: Classifier) -> str:
    names = ", ".join(classifier.classes[:3])
    height, width = classifier.size
    return f"{len(classifier.classes)} classes ({names}, …) of images of {height} × {width} pixels"


def class_difference(found: Sequence[str], known: Sequence[str]) -> str:
    """How the classes of some data differ from a model's, in words that follow the name of the data.

    Args:
        found: names of the data's classes, in label order; each comes once.
        known: those of the model, in the order of its outputs.

    Returns:
        Empty if they are the same, in the same order.
    """
    if tuple(found) == tuple(known):
        return ""
    if len(found) != len(known):
        return f"has {len(found)} classes ({_few(found)}), but the model was trained for {len(known)} ({_few(known)})"
    there, here = set(known), set(found)
    if new := [name for name in found if name not in there]:
        missing = [name for name in known if name not in here]
        return (
            f"has {len(found)} classes, as many as the model was trained for, but other ones: {_few(new)} in place of "
            f"{_few(missing)}"
        )
    label = next(label for label in range(len(known)) if found[label] != known[label])
    return (
        f"has the classes that the model was trained for in another order: label {label} is {found[label]}, not "
        f"{known[label]}"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def together(sketches: Iterable[Sketch | None]) -> Sketch | None:
    """All pictures of some sets; None where there are no sets."""
    known = [sketch for sketch in sketches if sketch is not None]
    return Sketch.merged(known) if known else None


def unseen_share(models: Sequence[Classifier], names: Sequence[str], fingerprint: str) -> float:
    """The share of some training images that no model has seen, the same images for all of them.

    Args:
        models: trained ones.
        names: what messages call them.
        fingerprint: of the training images, validation part included, without those that are left out.

    Raises:
        ModelError: it is not known which images a model has seen, they held out different ones, or none.
    """
    for model, name in zip(models, names, strict=True):
        if model.facts.get("fingerprint") != fingerprint:
            raise ModelError(
                f"{name}: was trained on other images than these{_without(model.exclusion)}, so which of them it has "
                "seen is not known; expected models of the same training images, with the same ones left out; leave it "
                "out, name with --data what it was trained on, or train with the same --exclude"
            )
    shares = [float(model.facts.get("validation_fraction", 0.0)) for model in models]
    if len(set(shares)) != 1 or 0.0 in shares:
        found = ", ".join(f"{name} {100 * share:.3g}%" for name, share in zip(names, shares, strict=True))
        recipe = str(models[0].facts.get("recipe", "RECIPE"))
        raise ModelError(
            f"share of the training images that was held out: {found}; expected the same share for all, above 0, "
            f"so that none has seen these images; `thirtytwo train {recipe} --set validation=0.1` trains such "
            f"a model, `thirtytwo ensemble --train {max(len(models), 2)} --recipe {recipe}` as many as needed"
        )
    return shares[0]


def shared_exclusion(models: Sequence[Classifier], names: Sequence[str]) -> Exclusion:
    """The training images that all of some models were trained without, the same for all of them.

    Args:
        models: trained ones.
        names: what messages call them.

    Raises:
        ModelError: they left out different ones.
    """
    found = [model.exclusion for model in models] or [Exclusion()]
    for one, name in zip(found[1:], names[1:], strict=True):
        if one.indices != found[0].indices:
            raise ModelError(
                f"{name}: was trained on its data{_without(one) or ' as they are'}, and {names[0]} on them"
                f"{_without(found[0]) or ' as they are'}; expected models that leave out the same images; train them "
                "with the same --exclude, or leave some of them out"
            )
    return found[0]


def _without(left_out: Exclusion) -> str:
    """What was left out, in words that follow others; empty if nothing was."""
    if not left_out.indices:
        return ""
    files = ", ".join(Path(file).name for file in left_out.files)
    return f", without {len(left_out.indices):,} of them" + (f" ({files})" if files else "")


def file_of(model: str | Path | Run) -> Path:
    """The model file that is meant; see `Classifier.load`.

    Raises:
        ModelError: there is none in a folder, or nothing of that name.
        RunError: a folder is neither a run nor that of an ensemble.
    """
    if isinstance(model, Run):
        return model.model_path
    path = Path(model)
    if path == Path(PRETRAINED):
        return Path(__file__).with_name(f"{PRETRAINED}.safetensors")
    expected = f"expected a run folder, an ensemble's folder, a model file, or {PRETRAINED}; check the path"
    try:
        exists = path.exists()
    except OSError as error:  # a folder on the way that may not be entered, or a name too long
        raise ModelError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    if not exists:
        raise ModelError(f"{path}: no such file or folder; {expected}")
    if not path.is_dir():
        return path
    if not is_ensemble(path):
        Run.open(path)
    found = Run(path).model_path
    if not found.exists():
        raise ModelError(f"{found}: missing; expected a finished run; `thirtytwo train --resume {path}` finishes it")
    return found


def where(model: str | Path | Run) -> str:
    """The place of a model, as ledgers hold it: an absolute path, or ``pretrained``."""
    path = model.path if isinstance(model, Run) else Path(model)
    return str(path) if path == Path(PRETRAINED) else str(path.absolute())


def is_ensemble(folder: Path) -> bool:
    """Whether a folder holds a model file, but no run."""
    return Run(folder).model_path.exists() and not (folder / "environment.json").exists()


Parsed = TypeVar("Parsed", bound=Settings)


def _parsed(kind: type[Parsed], raw: Mapping[str, Any], path: Path) -> Parsed:
    try:
        # As JSON, since there a tuple may be a list, and nothing else may be what it is not.
        return kind.model_validate_json(json.dumps(raw))
    except (ValidationError, ValueError, RecursionError) as error:
        number = error.error_count() if isinstance(error, ValidationError) else 1
        raise ModelError(
            f"{path}: header is damaged (wrong in {number} places); expected what thirtytwo wrote; copy it again"
        ) from None


def _single(
    header: _Header, tensors: Mapping[str, Tensor], path: Path, network: nn.Module | None, device: str | torch.device
) -> Classifier:
    if network is None:
        network = _rebuild(header, tensors, path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise _mismatch(path, header, " ".join(str(error).split("\n\t")[-1].split())) from None
    network.eval()  # once, and for good: then threads can share it
    return Classifier(
        network=network.to(device),
        model=header.model,
        classes=header.classes,
        size=header.size,
        pixels=header.pixels,
        views=header.views,
        temperature=header.temperature,
        unknown_below=header.unknown_below,
        facts=header.facts,
    )


def _ensemble(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path, device: str | torch.device
) -> Ensemble:
    header = _parsed(_EnsembleHeader, raw, path)
    members = []
    for number, member in enumerate(header.members):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        members.append(_single(member, own, path, None, device))
    ensemble = Ensemble.of(members, header.weights, header.facts)
    ensemble.weights = header.weights  # as they were, to the bit: they are part of its fingerprint
    ensemble.temperature, ensemble.unknown_below = header.temperature, header.unknown_below
    return ensemble


def _rebuild(header: _Header, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The network that a header describes, with fresh weights."""
    if isinstance(header.model, CustomModel):
        raise ModelError(
            f"{path}: was trained with a custom network ({header.model.module}), whose code is not in the file; "
            "expected that network, too; load it with Classifier.load(model, network=module)"
        )
    try:
        # First without memory: a damaged header can describe a network larger than any machine. timm's are known by
        # their names and no larger than they are.
        if not isinstance(header.model, TimmModel):
            sketched = models.shapes(header.model, len(header.classes), header.size)
            stored = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            if different := sorted({name for name, _ in sketched.items() ^ stored.items()}):
                raise _mismatch(path, header, ", ".join(different[:3]))
        with torch.random.fork_rng():  # fresh weights are about to be replaced; the caller's draws are not
            return models.build(header.model, len(header.classes), header.size)
    except ModelError:
        raise
    except (ThirtytwoError, RuntimeError, MemoryError, ValueError) as error:
        raise ModelError(f"{path}: its settings build no network ({error}); train or copy it again") from None


def _mismatch(path: Path, header: _Header, detail: str) -> ModelError:
    return ModelError(
        f"{path}: weights do not fit a network for {len(header.classes)} classes ({detail}); "
        "expected a file whose header and weights belong together"
    )
