"""Settings: the sections that a recipe is made of, frozen, each value documented with its unit.

Each section that exists in several kinds (`model`, `optimizer`, `schedule`) carries a `name`; the other keys of the
section belong to that kind.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rgb = tuple[
    Annotated[float, Field(allow_inf_nan=False)],
    Annotated[float, Field(allow_inf_nan=False)],
    Annotated[float, Field(allow_inf_nan=False)],
]


class Settings(BaseModel):
    """Base of every settings class: immutable, no unknown keys, types as written (no "12" for 12)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ClassicModel(Settings):
    """A plain convolutional network (Simonyan & Zisserman 2015, arXiv 1409.1556): 3 × 3 convolutions with batch
    normalisation and max-pooling, then dense layers with dropout."""

    name: Literal["classic"] = "classic"
    """Kind of network."""
    stages: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(min_length=1)], ...], Field(min_length=1, max_length=8)
    ] = (
        (32,),
        (64,),
        (128, 128),
    )
    """Output channels of each 3 × 3 convolution, grouped by stage; each stage ends by halving height and width."""
    hidden_units: Count = 256
    """Width of the dense layer between the convolutions and the class scores."""
    dropout: Fraction = 0.3
    """Probability with which an input of either dense layer is zeroed in training."""


class SpeedModel(Settings):
    """The network of the fast recipes (cifar10-airbench, Jordan 2024, arXiv 2404.00498): a whitened first layer, then
    groups of convolutions."""

    name: Literal["speed"] = "speed"
    """Kind of network."""
    whitening_kernel: Annotated[int, Field(ge=1, le=7)] = 2
    """Side of the patches that the first layer whitens, in pixels."""
    whitening_images: Count = 5000
    """Training images whose patches it is computed from."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (64, 256, 256)
    """Output channels of each group; each group halves height and width, after its first convolution."""
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    """Convolutions of each group. With three or more, those after the first are added to what the first gives."""
    kernels: Literal["torch", "compiled"] = "torch"
    """What computes steps: torch's operations or compiled ones, which round differently. On a CPU these are our own, in
    C: Winograd's convolution, which needs a third of the multiplications (Lavin & Gray 2016, arXiv 1509.09308), and
    everything between two convolutions in one go, for Linux with a C compiler, in float32 (with `precision` half also
    with products of bfloat16) and with channels in multiples of 8. On a GPU they are what torch.compile makes, in about
    half a minute, of torch's; it needs triton. Elsewhere, torch's are used."""
    batch_norm_momentum: Fraction = 0.6
    """Share of the running averages that a step keeps."""
    batch_norm_epsilon: NotNegative = 1e-12
    """Added to the variance."""


class ResNetModel(Settings):
    """A residual network: ResNet-18 (He et al. 2016, arXiv 1512.03385) unless told otherwise. The wide residual network
    28-10 (Zagoruyko & Komodakis 2016, arXiv 1605.07146) is ``stem=16``, ``widths=[160,320,640]``, ``blocks=[4,4,4]``,
    ``preactivation=true``; ResNeXt-29, 8 × 64d (Xie et al. 2017, arXiv 1611.05431) ``widths=[256,512,1024]``,
    ``blocks=[3,3,3]``, ``bottleneck=2``, ``cardinality=8``."""

    name: Literal["resnet"] = "resnet"
    """Kind of network."""
    stem: Count = 64
    """Output channels of the first convolution."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (64, 128, 256, 512)
    """Channels of each stage; each but the first halves height and width."""
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (2, 2, 2, 2)
    """Blocks of each stage, of two 3 × 3 convolutions each unless they are bottlenecks."""
    preactivation: bool = False
    """Normalise and activate before a convolution, not after it (He et al. 2016, arXiv 1603.05027)."""
    bottleneck: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] = 0.0
    """Blocks are of three convolutions, 1 × 1, 3 × 3 and 1 × 1, of which the first two have so many times as many
    channels as the stage: 0.25 in ResNet-50, 2 in ResNeXt-29, 8 × 64d; 0 makes blocks of two 3 × 3 ones."""
    cardinality: Count = 1
    """Groups that the channels of 3 × 3 convolutions are divided into (Xie et al. 2017, arXiv 1611.05431)."""
    dropout: Fraction = 0.0
    """Probability with which an input of a block's last convolution is zeroed in training."""
    stochastic_depth: Fraction = 0.0
    """Probability with which the last block is left out for an image in training, less for earlier ones (Huang et al.
    2016, arXiv 1603.09382)."""


class PyramidNetModel(Settings):
    """A pyramidal residual network (Han, Kim & Kim 2017, arXiv 1610.02915), PyramidNet-110 with a widening of 84 unless
    told otherwise: every block has some channels more than the one before it."""

    name: Literal["pyramidnet"] = "pyramidnet"
    """Kind of network."""
    stem: Count = 16
    """Output channels of the first convolution."""
    widening: Count = 84
    """How many channels more the last block has; every block has an equal part of them more than the one before it."""
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (18, 18, 18)
    """Blocks of each stage; each stage but the first halves height and width."""
    bottleneck: bool = False
    """Blocks are of three convolutions, 1 × 1, 3 × 3 and 1 × 1, of which the last has four times as many channels; else
    of two 3 × 3 ones."""
    shakedrop: Fraction = 0.0
    """Probability with which the last block is disturbed in training, less for earlier ones: multiplied by a number
    from -1 to 1, and its gradient by another one from 0 to 1 (ShakeDrop, Yamada et al. 2019, arXiv 1802.02375)."""
    shakedrop_chance: Literal["batch", "image"] = "batch"
    """Whether a block is disturbed for a batch as a whole or for each image by itself."""
    shakedrop_level: Literal["batch", "image", "channel", "pixel"] = "image"
    """What such a number is drawn for: all of it, each image, each channel of an image or each number in it."""


class ConvMixerModel(Settings):
    """ConvMixer (Trockman & Kolter 2022, arXiv 2201.09792): large convolutions per channel, dense layers per place."""

    name: Literal["convmixer"] = "convmixer"
    """Kind of network."""
    width: Count = 256
    """Channels."""
    depth: Annotated[int, Field(ge=1, le=64)] = 8
    """Layers."""
    kernel: Annotated[int, Field(ge=1, le=31)] = 5
    """Side of the convolutions, in places."""
    patch: Annotated[int, Field(ge=1, le=32)] = 2
    """Side of a place, in pixels."""


class TransformerModel(Settings):
    """A compact convolutional transformer, CCT-7/3×1 unless told otherwise (Hassani et al. 2021, arXiv 2104.05704)."""

    name: Literal["transformer"] = "transformer"
    """Kind of network."""
    width: Count = 256
    """Numbers a token."""
    depth: Annotated[int, Field(ge=1, le=64)] = 7
    """Layers."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Of attention; a divisor of the width."""
    tokenizer: Annotated[int, Field(ge=1, le=4)] = 1
    """Convolutions that make tokens; each halves height and width."""
    dropout: Fraction = 0.1
    """Probability with which attention and outputs of dense layers are zeroed in training."""
    stochastic_depth: Fraction = 0.1
    """Probability with which the last layer is left out for an image in training, less for earlier ones."""


class TimmModel(Settings):
    """Any network of PyTorch Image Models by its name there; needs the extra `timm`."""

    name: Literal["timm"] = "timm"
    """Kind of network."""
    model: str = "resnet26d"
    """As timm calls it; weights are fresh."""


class CustomModel(Settings):
    """A network that the caller brings as an ``nn.Module``; it cannot be rebuilt from the recipe alone."""

    name: Literal["custom"] = "custom"
    """Kind of network."""
    module: str = ""
    """Qualified class name of the module, for the record."""


AnyModel = (
    ClassicModel
    | SpeedModel
    | ResNetModel
    | PyramidNetModel
    | ConvMixerModel
    | TransformerModel
    | TimmModel
    | CustomModel
)


class Adam(Settings):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980); decoupled weight decay (Loshchilov & Hutter 2019) where it is not 0."""

    name: Literal["adam"] = "adam"
    """Kind of optimiser."""
    learning_rate: Positive = 1e-3
    """Peak step size; the schedule multiplies it by a factor in [0, 1]."""
    beta1: Fraction = 0.9
    """Decay of the running mean of gradients, per step."""
    beta2: Fraction = 0.999
    """Decay of the running mean of squared gradients, per step."""
    epsilon: Positive = 1e-8
    """Added to the denominator, in units of a gradient."""
    weight_decay: NotNegative = 0.0
    """Share of each weight removed per step, times the learning rate; norms, biases, and what a network's
    `no_weight_decay` names, are left alone."""


class Sgd(Settings):
    """Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013)."""

    name: Literal["sgd"] = "sgd"
    """Kind of optimiser."""
    learning_rate: Positive = 0.1
    """Peak step size; the schedule multiplies it by a factor in [0, 1]."""
    momentum: Fraction = 0.9
    """Share of the previous update that is added to the next one."""
    nesterov: bool = True
    """Look ahead along the momentum before taking the gradient; needs momentum."""
    weight_decay: NotNegative = 0.0
    """This share of each weight is added to its gradient; norms, biases, and what a network's `no_weight_decay` names,
    are left alone."""


class Muon(Settings):
    """Muon (Jordan 2024) for the kernels of convolutions; SGD with Nesterov momentum for everything else.

    The rates are those of a loss that is summed over the batch (`loss.reduction`): Muon does not mind, SGD does.
    """

    name: Literal["muon"] = "muon"
    """Kind of optimiser."""
    learning_rate: Positive = 0.24
    """Peak step size of kernels, against a norm of the square root of their outputs."""
    momentum: Fraction = 0.6
    """Share of the previous momentum of kernels that is kept."""
    newton_schulz_steps: Annotated[int, Field(ge=1, le=20)] = 3
    """Steps of the iteration that makes an update orthogonal."""
    dense_learning_rate: Positive = 0.67
    """Peak step size of dense layers' weights."""
    bias_learning_rate: Positive = 0.053
    """Peak step size of biases and normalisations."""
    sgd_momentum: Fraction = 0.85
    """Share of the previous update of everything but kernels that is added to the next one."""
    decay: NotNegative = 0.0
    """Weight decay of everything but kernels: this share of a weight is taken off it, at the peak rate, by the decay of
    one step; momentum makes it 1 / (1 - sgd_momentum) times as much in all."""
    whitening_fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.375
    """Over this share of the training the rate of the whitening layer's bias falls to 0; then it stays as it is."""


AnyOptimizer = Adam | Sgd | Muon


class Constant(Settings):
    """The peak rate throughout, after a linear warm-up."""

    name: Literal["constant"] = "constant"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly from 0 to its peak."""


class StepDecay(Settings):
    """The rate is multiplied by a factor every few epochs."""

    name: Literal["step"] = "step"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly from 0 to its peak."""
    every_epochs: Positive = 10.0
    """Epochs between two reductions."""
    factor: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    """What the rate is multiplied by at each reduction."""


class Cosine(Settings):
    """Half a cosine from the peak to the final rate (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly from 0 to its peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """The last rate, as a share of the peak."""
    final_epochs: NotNegative = 0.0
    """Epochs at the end that keep the final rate."""


class Linear(Settings):
    """A straight line from the peak to the final rate, which it would reach with the step after the last."""

    name: Literal["linear"] = "linear"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly from 0 to its peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Where the line ends, as a share of the peak."""
    final_epochs: NotNegative = 0.0
    """Epochs at the end that keep the final rate."""


class OneCycle(Settings):
    """Up to the peak and down again on half cosines (Smith & Topin 2018, arXiv 1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    """Kind of schedule."""
    warmup_fraction: Fraction = 0.25
    """Share of the training spent rising."""
    initial_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.04
    """The first rate, as a share of the peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.001
    """The last rate, as a share of the peak."""


class Plateau(Settings):
    """The rate is reduced whenever the validation loss has stopped falling; needs validation images."""

    name: Literal["plateau"] = "plateau"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly from 0 to its peak."""
    patience: Count = 3
    """Epochs without a new lowest validation loss before the rate is reduced."""
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    """What the rate is multiplied by at each reduction."""
    minimum_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    """The rate is never reduced below this share of the peak."""


AnySchedule = Constant | StepDecay | Cosine | Linear | OneCycle | Plateau


class Augmentation(Settings):
    """Random changes to each training image, drawn anew every time it is used."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Rotation about the centre by an angle drawn evenly from ± this many degrees."""
    width_shift: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Horizontal shift drawn evenly from ± this share of the image's width."""
    height_shift: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Vertical shift drawn evenly from ± this share of the image's height."""
    horizontal_flip: bool = False
    """Mirror left and right with probability one half."""
    alternating_flip: bool = False
    """Mirror each image in every other epoch instead, half of the images in the first (Jordan 2024)."""
    translate_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """Shift by whole pixels, up to this many in either direction; the border is reflected, nothing is resampled."""
    brightness: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Added to all values of an image, which run from 0 to 1: drawn evenly from ± this."""
    contrast: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Distances from an image's mean are multiplied by a factor drawn evenly from 1 ± this."""
    policy: Literal["none", "rand", "trivial", "augmix"] = "none"
    """Operations drawn from a list for each image: RandAugment (Cubuk et al. 2020, arXiv 1909.13719), TrivialAugment
    (Müller & Hutter 2021, arXiv 2103.10158) or AugMix (Hendrycks et al. 2020, arXiv 1912.02781), whose list has
    no brightness, colour, contrast and sharpness, since robustness is measured by images made worse in such ways."""
    policy_operations: Annotated[int, Field(ge=1, le=20)] = 2
    """Operations an image of RandAugment."""
    policy_strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.3
    """How strong they are, and those of AugMix, as a share of the strongest; TrivialAugment draws that, too.
    RandAugment's magnitude M, which torchvision counts up to 30, is M / 30 here, 0.3 for its M = 9."""
    erasing_probability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Paint over a rectangle of 2 to 33% of an image with `pixels.mean`, with this probability (after Zhong et
    al. 2020, arXiv 1708.04896)."""
    mixup_alpha: NotNegative = 0.0
    """Images are blended with another one, labels too, in shares drawn from Beta(alpha, alpha) (Zhang et al. 2018,
    arXiv 1710.09412); 0 blends none."""
    cutmix_alpha: NotNegative = 0.0
    """A rectangle of another image is put into each, so that such a share of it is left (Yun et al. 2019, arXiv
    1905.04899); with `mixup_alpha` too, half of the images are mixed either way."""
    cutout_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """Side of a square somewhere in the image that is painted over with `pixels.mean` (DeVries & Taylor 2017)."""


class Loss(Settings):
    """Sparse categorical cross-entropy: the mean over the batch of −log p(true class), in nats."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability that is spread evenly over all classes (Szegedy et al. 2016)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the losses of a batch become the number that is minimised; results always show the mean."""
    sharpness_radius: NotNegative = 0.0
    """Take each gradient so far uphill of the weights, as a distance between all of them (SAM, Foret et al. 2021, arXiv
    2010.01412): a step takes twice as long; 0 takes it where they are. 0.05 is usual on CIFAR-10."""


class Teacher(Settings):
    """A trained model whose answers are imitated, beside the labels (distillation, Hinton et al. 2015, arXiv
    1503.02531). In every step it is shown what the network is shown, each changed image anew (Beyer et al. 2022, arXiv
    2106.05237)."""

    model: str = ""
    """A run folder, that of an ensemble, a model file, or ``pretrained``; empty is none. If the recipe holds out
    validation images, it must be one that has held out the same."""
    fingerprint: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Of the model, SHA-256; written down when a training begins. Where it stands, no other model is taken."""
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.9
    """Share of the loss that is the cross-entropy to the teacher's answers; the rest is that to the labels. This, and
    the temperature, are as usual on CIFAR (Tian et al. 2020, arXiv 1910.10699)."""
    temperature: Positive = 4.0
    """Calibrated scores of the teacher, and those of the network, are divided by this before they are compared, so that
    improbable classes count, too; what they then add to the loss is multiplied by its square, so that gradients stay as
    large as they were."""


class Selection(Settings):
    """Which training images an epoch leaves out: those that the network found easiest when it last saw them (Loshchilov
    & Hutter 2015, arXiv 1511.06343; Jordan 2024, airbench96_faster). The first epoch uses all."""

    drop: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the training images that an epoch leaves out; 0 uses every image in every epoch."""
    begin: Fraction = 0.0
    """Share of the epochs after which images are left out."""
    end: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the epochs after which all images are used again."""


class Averaging(Settings):
    """The mean of the weights at the end of a training, which is better than the last ones (Polyak & Juditsky 1992).
    Validation, and the model that is kept, have the mean; training goes on from the weights themselves."""

    epochs: NotNegative = 0.0
    """How far back it reaches; 0 takes the weights as they are."""
    weighting: Literal["exponential", "equal"] = "exponential"
    """`exponential`: after every step, and what a weight was `epochs` ago counts 1/e as much as what it is now, so that
    nobody has to know beforehand where the end is (Tarvainen & Valpola 2017, arXiv 1703.01780). `equal`: the plain mean
    of the weights at the end of each of the last `epochs` epochs, with averages of batch normalisation that are
    computed anew from all training images (SWA, Izmailov et al. 2018, arXiv 1803.05407); it wants a rate that stays
    high, see `schedule.final_epochs`."""

    @model_validator(mode="after")
    def _epochs_are_whole_where_their_ends_count(self) -> Self:
        if self.weighting == "equal" and (self.epochs < 1 or self.epochs != int(self.epochs)):
            raise ValueError(
                f"averaging.epochs is {self.epochs:g} with averaging.weighting = equal; expected a whole number from 1 "
                "on; set both"
            )
        return self


class Lookahead(Settings):
    """Slow weights beside those that the optimiser changes, whichever it is: every few steps they go a part of the way
    to them, and the optimiser goes on from there (Zhang et al. 2019, arXiv 1907.08610)."""

    steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps from one time to the next, 5 or 6 in most uses; 0 has no slow weights. The last step of an epoch is such a
    time, too, so that what is validated and kept are slow weights."""
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    """Part of the way that they go."""


class EarlyStopping(Settings):
    """When to give up, and which weights to keep: those of the epoch with the lowest validation loss."""

    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Epochs without a new lowest validation loss before training stops; 0 never stops and keeps the last weights."""
    minimum_improvement: NotNegative = 0.0
    """A loss counts as lower only if it is lower by more than this, in nats."""


class Pixels(Settings):
    """How uint8 pixels become the network's input: divided by 255, then standardised per channel."""

    mean: Rgb = (0.0, 0.0, 0.0)
    """Subtracted per channel (red, green, blue), after the division by 255."""
    standard_deviation: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    """Divided by per channel, after the subtraction."""


class Views(Settings):
    """Test-time augmentation: the scores of an image are the mean over several views of it."""

    mirror: bool = False
    """Each view is looked at mirrored left and right, too."""
    translate_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """If not 0, half of the weight goes to the image shifted by this much, up-left and down-right (Jordan 2024)."""
    below_probability: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Looked at again is only an image to which the first view gives no class more than this probability, before any
    temperature (Hiverge 2025); 1 looks at all of them again."""

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.mirror or self.translate_pixels > 0


class Calibration(Settings):
    """How sure answers are, and from when on they had better be "unknown". Both is fitted on the validation images when
    training ends; a recipe that has none carries what was fitted for a training that held some out."""

    coverage: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.95
    """Share of the validation images that shall get an answer other than "unknown", where that is asked for."""
    temperature: Positive = 1.0
    """Without validation images: scores, averaged over the views, are divided by this before the softmax (Guo et al.
    2017)."""
    unknown_below: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Without validation images: the probability that `coverage` stands for."""
    data: str = ""
    """Name of the data that temperature and probability were fitted on; on others they are a guess."""
    settings: str = ""
    """Digest of the recipe, as it is trained on these data, that they were fitted for; with other settings they are a
    guess."""


class FewerImages(Settings):
    """How epochs grow, and batches shrink, when there are fewer images than the recipe was made for.

    epochs × (reference_images / images) ** exponent, at most `maximum_factor` times as many.
    """

    reference_images: Count = 50_000
    """Training images, validation part included, for which `epochs` is meant."""
    exponent: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """0 keeps the number of epochs, 1 keeps the number of steps."""
    maximum_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    """Most that the number of epochs may grow by."""
    minimum_steps: Count = 1
    """Batches shrink, though not below 8 images, where an epoch would have fewer steps than this: running averages of
    batch normalisation, and a rate that has to rise and fall, need some."""


class Range(Settings):
    """A number that `thirtytwo tune` may vary, in whole steps where the recipe holds a whole number."""

    low: int | Annotated[float, Field(allow_inf_nan=False)]
    """Least value."""
    high: int | Annotated[float, Field(allow_inf_nan=False)]
    """Largest value."""
    log: bool = False
    """Whether factors count, rather than differences."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low}, high is {self.high}; expected a low below the high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low} with log = true; expected more than 0")
        return self


class Choice(Settings):
    """A value that `thirtytwo tune` may choose."""

    choices: Annotated[tuple[bool | int | float | str, ...], Field(min_length=2)]
    """What there is to choose from."""
