"""One step of a training: from the numbers that name a batch to new weights, as a device computes it.

All of it, from taking pixels to the last optimiser, is one function of a few small tensors: which images, what chance
says of them, rates. A CPU is asked for its operations one after the other. A GPU is faster than a program can ask: it
records them, once for each kind of step, and then repeats the record whenever the tensors have been filled anew (CUDA
graphs). What a step computes is the same.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thirtytwo import models, optim
from thirtytwo.classifier import Classifier
from thirtytwo.data.loader import Draws, Loader
from thirtytwo.ranks import ALONE, Ranks
from thirtytwo.settings import AnyModel, CustomModel, Loss, Teacher, TimmModel
from thirtytwo.state import Progress, State

Program = Callable[[], None]
Recorder = Callable[[Program], Program]
"""What a program does -> what does it again."""

Size = tuple[int, int]
Kind = tuple[int, Size, int]
"""Images in the batch, their size, and how many weights are trained: steps that agree in these do the same."""

MOST_COMPILED = 64
"""Kinds of steps that a process compiles; torch would go on without after 8."""

WARM_UPS = 3
"""Steps before a recording: what is set up or compiled at first use, is then."""


class Lesson(NamedTuple):
    """What a teacher says of the images of a step, and how much that counts."""

    answers: Tensor
    """float32 (batch, classes): its probabilities, softened."""
    temperature: float
    """By which they were softened, and the network's are to be."""
    weight: float
    """Share of what is minimised that is the distance from these answers."""


class Tally:
    """Counts of the epoch under way, kept on the device until they are wanted, since a GPU has to be waited for.

    They are sums from the epoch's first step on, so that it does not matter when, or how often, they are taken down.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is counted yet; see `begin`."""
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, and of right answers
        self.failed = torch.zeros(2, dtype=torch.float64, device=device)  # the first such step, and its loss

    def begin(self, progress: Progress) -> None:
        """Go on from where an epoch is."""
        self.sums.copy_(torch.tensor([progress.loss_sum, progress.correct], dtype=torch.float64))
        self.failed.copy_(torch.tensor([-1.0, 0.0], dtype=torch.float64))

    @torch.no_grad()
    def add(self, losses: Tensor, correct: Tensor, objective: Tensor, step: Tensor) -> None:
        """Count a step: (batch,) and (batch,), what was minimised, and the step's number."""
        self.sums.add_(torch.stack([losses.sum(), correct.sum()]))
        first = (self.failed[0] < 0) & ~objective.isfinite()
        self.failed.copy_(torch.where(first, torch.stack([step, objective]).double(), self.failed))

    def settle(self, progress: Progress) -> tuple[int, float] | None:
        """Write the counts into the progress; returns the first step whose loss was not finite, and that loss."""
        loss_sum, correct, step, loss = torch.cat([self.sums, self.failed]).tolist()
        progress.loss_sum, progress.correct = loss_sum, int(correct)
        return (int(step), loss) if step >= 0 else None


class Stepper:
    """Takes steps with a network's weights.

    Attributes:
        tally: what the steps of the epoch under way have counted.
    """

    def __init__(
        self,
        state: State,
        loader: Loader,
        loss: Loss,
        *,
        teacher: tuple[Classifier, Teacher] | None = None,
        device: torch.device,
        half: bool,
        compiled: bool,
        averaging: bool,
        lookahead: bool,
        record: Recorder | None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Record nothing yet.

        Args:
            state: whose network, optimisers, mean and losses change with every step; what it holds then stays where it
                is, so a stepper is made after a checkpoint was restored.
            loader: makes batches.
            loss: what is minimised.
            teacher: a model on the device whose answers are imitated, and how; None imitates nobody.
            device: where all of it lies.
            half: whether the network, and a teacher, computes in bfloat16.
            compiled: whether torch.compile makes kernels for what lies before the backward pass, and for that.
            averaging: whether the mean of the weights is kept.
            lookahead: whether there are slow weights.
            record: see `recorder`; None takes steps one operation after the other.
            ranks: whose steps these are: each computes a part of every batch. Their message is recorded with the rest
                (NCCL's are made for it), so that a GPU waits for Python no more than when it is alone.
        """
        self.tally = Tally(device)
        self._state, self._loader, self._loss, self._teacher = state, loader, loss, teacher
        self._device, self._half, self._record = device, half, record
        self._averaging, self._lookahead = averaging, lookahead
        self._judge = _compiled() if compiled else _judged
        self._ranks = ranks
        # Rates, shares and number of the step lie together: one copy fills them.
        self._numbers = torch.zeros(len(optim.groups(state.optimizers)) + 3, device=device)
        self._places: dict[int, Draws] = {}  # by images in the batch
        self._programs: dict[Kind, Program] = {}

    def __call__(self, draws: Draws, size: Size, step: int, share: float, back: float) -> None:
        """Take a step, at the rates that the optimisers have.

        Args:
            draws: from the loader.
            size: of the images that the network is to see.
            step: its number in the epoch, counted from 0.
            share: of the new weights in their mean, if there is one.
            back: share of the way that slow weights go, if there are any; see `State.look_back`.
        """
        if self._record is None:
            here = Draws(*(each.to(self._device) for each in draws))
            with _deterministic():
                self._take(here, size, torch.tensor(float(step), device=self._device), share, back)
            return
        rates = [float(group["lr"]) for group in optim.groups(self._state.optimizers)]
        _put(torch.tensor([*rates, share, back, step]), self._numbers)
        self._program(draws, size)()

    def prepare(self, kinds: Iterable[tuple[int, Size, float]]) -> None:
        """Record steps beforehand, so that none has to wait for it; weights, and all that is counted, stay as they are.

        Args:
            kinds: of the steps to come: images in the batch, their size, and the share of the training that is done.
        """
        if self._record is None:
            return
        seen = set()
        for batch, size, done in kinds:
            optim.set_rates(self._state.optimizers, 0.0, done)
            alike = batch, size, tuple(group["lr"] > 0 for group in optim.groups(self._state.optimizers))
            if alike in seen:  # hundreds of thousands are, and walking over a network takes a millisecond
                continue
            seen.add(alike)
            if self._kind(batch, size) not in self._programs:
                self._program(self._loader.draw(0, 0, torch.arange(batch, device=self._device)), size)

    def renew_averages(self, batches: Iterable[Draws]) -> None:
        """Compute the network's running averages of batch normalisation anew, from batches of the loader, in full size.

        See `models.renew_averages`.
        """

        def inputs() -> Iterator[Tensor]:
            for draws in batches:
                here = Draws(*(each.to(self._device) for each in draws))
                with torch.autocast(self._device.type, enabled=False):  # as in a step
                    images = self._loader.batch(here).inputs
                yield images

        with _deterministic(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            models.renew_averages(self._state.network, inputs())
        if self._ranks.together and (averages := models.averages(self._state.network)):
            self._keep_means(averages, self._ranks.summed(averages))

    def _program(self, draws: Draws, size: Size) -> Program:
        """A step of this kind, for these draws, which lie in their places now; recorded if it has not been."""
        kind = self._kind(len(draws.chosen), size)
        for source, place in zip(draws, self._place(draws), strict=True):
            _put(source, place)
        if kind not in self._programs:
            self._programs[kind] = self._recorded(kind)
        return self._programs[kind]

    def _kind(self, batch: int, size: Size) -> Kind:
        return batch, size, models.parameters(self._state.network)

    def _place(self, draws: Draws) -> Draws:
        """Where a batch of that many images is told what it is."""
        batch = len(draws.chosen)
        if batch not in self._places:
            self._places[batch] = Draws(*(torch.empty_like(each, device=self._device) for each in draws))
        return self._places[batch]

    def _recorded(self, kind: Kind) -> Program:
        """Steps of a kind, for what lies in the places."""
        assert self._record is not None
        batch, size, _ = kind
        places = self._places[batch]
        *rates, share, back, step = self._numbers.unbind()

        def program() -> None:
            self._take(places, size, step, share, back)

        groups = optim.groups(self._state.optimizers)
        own = [group["lr"] for group in groups]
        with self._undone(), _deterministic(), _quiet():
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            try:
                for _ in range(WARM_UPS):
                    program()
                return self._record(program)
            finally:
                for group, rate in zip(groups, own, strict=True):
                    group["lr"] = rate

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        """Everything that steps change is what it was, where it was; what they made is as if they had not been."""
        state = self._state

        def changing() -> dict[str, Tensor]:
            return state.tensors | {"tally.sums": self.tally.sums, "tally.failed": self.tally.failed}

        before = {name: tensor.clone() for name, tensor in changing().items()}
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in changing().items():
                    if name in before:
                        tensor.copy_(before[name])
                    elif name.startswith("mean."):
                        tensor.copy_(before[name.replace("mean.", "network.", 1)])
                    else:
                        tensor.zero_()  # an optimiser that remembers nothing

    def _take(self, draws: Draws, size: Size, step: Tensor, share: Tensor | float, back: Tensor | float) -> None:
        state = self._state
        state.network.zero_grad(set_to_none=True)
        lesson = None if self._teacher is None else self._ask(*self._teacher, draws)
        objective, losses, correct = self._judge(
            state.network, self._loader, self._loss, self._half, draws, size, lesson
        )
        self._backward(objective)
        if self._ranks.together:
            objective, losses, correct = self._shared(objective, losses, correct, len(draws.chosen))
        if self._loss.sharpness_radius:
            self._look_uphill(draws, size, lesson)
        if state.losses is not None:
            state.losses[draws.chosen] = losses
        self.tally.add(losses, correct, objective.detach(), step)
        for optimizer in state.optimizers:
            optimizer.step()
        if self._lookahead:
            state.look_back(back)
        if self._averaging:
            state.average(share)

    def _backward(self, objective: Tensor) -> None:
        """Give every parameter a gradient, 0 where a step does not use it.

        A network of somebody's own may leave out parts of itself, each rank others. Without this, a parameter would be
        treated otherwise alone than together with other ranks.
        """
        objective.backward()  # type: ignore[no-untyped-call]
        for parameter in self._state.network.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def _shared(self, objective: Tensor, losses: Tensor, correct: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make this rank's part of a step the whole of it: its gradients, and running averages, become those of all.

        Args:
            objective: (), this rank's share of what is minimised.
            losses: (part,), of its images.
            correct: (part,), whether the answers to them are right.
            images: in the whole batch.

        Returns:
            The same of the whole batch: (), (images,), (images,).
        """
        begin, end = self._ranks.part(images)
        judged = torch.zeros((2, images), device=self._device)
        judged[0, begin:end], judged[1, begin:end] = losses, correct
        averages = models.averages(self._state.network)
        *sums, whole, judged = self._add_up([*averages, objective, judged])
        self._keep_means(averages, sums)
        losses, correct = judged
        return whole, losses, correct

    def _keep_means(self, averages: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        """Let running averages be the means over ranks, each of which has normalised by its part of every batch."""
        for average, total in zip(averages, sums, strict=True):
            average.copy_(total / self._ranks.size)

    @torch.no_grad()
    def _add_up(self, more: list[Tensor]) -> list[Tensor]:
        """Make gradients the sum of all ranks'; returns the sums of what else there is, sent along with them."""
        parameters = self._state.network.parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self._ranks.summed([*gradients, *more])
        torch._foreach_copy_(gradients, summed[: len(gradients)])
        return summed[len(gradients) :]

    @torch.no_grad()
    def _ask(self, teacher: Classifier, settings: Teacher, draws: Draws) -> Lesson:
        """Show a teacher the images of a step, changed and mixed as the network sees them.

        They are made once more for it, in full size: it knows no other. Where epochs scale images down, these are the
        same ones but for that, and for the edges of CutMix's rectangles, which lie on whole pixels of either size.
        """
        inputs = self._loader.batch(draws).inputs
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._half):
            scores = teacher.calibrated_scores(inputs, self._loader.standardise)
        return Lesson((scores / settings.temperature).softmax(1), settings.temperature, settings.weight)

    def _look_uphill(self, draws: Draws, size: Size, lesson: Lesson | None) -> None:
        """Take the gradient where the loss is highest nearby, in place of that at the weights themselves.

        Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): minima that are wide generalise better.
        """
        network = self._state.network
        parameters: list[Tensor] = [parameter for parameter in network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        with torch.no_grad():
            before = [parameter.clone() for parameter in parameters]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            ahead = torch._foreach_mul(gradients, self._loss.sharpness_radius / norm.clamp_min(1e-12))
            torch._foreach_add_(parameters, ahead)
        network.zero_grad(set_to_none=True)
        with models.without_averages(network):  # these are of the weights that are kept
            uphill, _, _ = self._judge(network, self._loader, self._loss, self._half, draws, size, lesson)
            self._backward(uphill)
        if self._ranks.together:
            self._add_up([])
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)


def _judged(
    network: nn.Module, loader: Loader, loss: Loss, half: bool, draws: Draws, size: Size, lesson: Lesson | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What is minimised, and of each image its loss and whether the answer is right: (), (batch,), (batch,).

    Of the batch, a rank takes its part, and of the mean over a batch its share, so that the sum over ranks is the mean.
    The last two are told by the labels, whoever teaches.
    """
    inputs, labels, others, share = loader.batch(draws, size)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        scores = network(inputs).float()  # (batch, classes)
    seen, smoothing = scores.detach(), loss.label_smoothing
    if share is None or others is None:
        objective = cross_entropy(scores, labels, label_smoothing=smoothing, reduction=loss.reduction)
        losses, correct = cross_entropy(seen, labels, reduction="none"), seen.argmax(1) == labels
    else:

        def shared(scores: Tensor, smoothing: float) -> Tensor:
            own, other = (
                cross_entropy(scores, each, label_smoothing=smoothing, reduction="none") for each in (labels, others)
            )
            return torch.lerp(other, own, share)

        each = shared(scores, smoothing)
        objective = each.mean() if loss.reduction == "mean" else each.sum()
        losses, correct = shared(seen, 0.0), seen.argmax(1) == torch.where(share >= 0.5, labels, others)
    objective = _imitating(objective, scores, loss, lesson)
    if loss.reduction == "mean" and len(labels) < len(draws.chosen):
        objective = objective * (len(labels) / len(draws.chosen))
    return objective, losses, correct


def _imitating(objective: Tensor, scores: Tensor, loss: Loss, lesson: Lesson | None) -> Tensor:
    """What is minimised where somebody teaches: in part what it was, in part the distance from the teacher's answers.

    Hinton et al. 2015, section 2: the cross-entropy of softened probabilities, times the square of the temperature by
    which the softening makes its gradients smaller. It differs from the Kullback-Leibler divergence by what no weight
    changes, the entropy of the answers.
    """
    if lesson is None:
        return objective
    answers, temperature, weight = lesson
    distance = temperature**2 * cross_entropy(scores / temperature, answers, reduction=loss.reduction)
    return torch.lerp(objective, distance, weight)


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """`_judged` with kernels that torch.compile makes for each kind of step, once a process."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILED)
    return torch.compile(_judged, dynamic=False)


def _deterministic() -> AbstractContextManager[None]:
    """cuDNN shall choose the same algorithms in every process, and those that give the same bits every time."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=True
    )
    return flags


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.compile says of itself and of products in float32, of which there are none that matter."""
    with warnings.catch_warnings():
        for module in ("torch._inductor", "torch._dynamo"):
            warnings.filterwarnings("ignore", module=module)
        yield


def _put(source: Tensor, place: Tensor) -> None:
    """Copy to a device without waiting for it."""
    if place.is_cuda and not source.is_cuda and source.numel():
        source = source.pin_memory()  # kept by torch until it has been copied
    place.copy_(source, non_blocking=True)


def recorder(settings: AnyModel, device: torch.device) -> Recorder | None:
    """How a device records steps; None if it does not, or if only a network's owner, or timm, knows what it does."""
    return None if device.type != "cuda" or isinstance(settings, CustomModel | TimmModel) else _record


def _record(program: Program) -> Program:
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        program()
    return graph.replay
