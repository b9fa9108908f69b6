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
Kernels = Literal["torch", "compiled"]
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
    """Output channels of each 3 × 3 convolution, grouped by stage. Max-pooling at the end of each stage halves height
    and width."""
    hidden_units: Count = 256
    """Units of the dense layer between the convolutions and the class scores."""
    dropout: Fraction = 0.3
    """Dropout before each of the two dense layers: the probability with which an input is zeroed in training."""
    kernels: Kernels = "torch"
    """What computes training steps: torch's operations or, in float32 on a CPU, the compiled kernels of the fast
    recipes' network, for convolutions of channels in multiples of 8, pooling and batch normalisation. On a GPU, and
    where a CPU computes in half precision, torch's are used."""


class SpeedModel(Settings):
    """The network of the fast recipes (cifar10-airbench, Jordan 2024, arXiv 2404.00498): a first layer that whitens
    patches of the images, then groups of convolutions."""

    name: Literal["speed"] = "speed"
    """Kind of network."""
    whitening_kernel: Annotated[int, Field(ge=1, le=7)] = 2
    """Side of the patches that the first layer whitens (its kernel size), in pixels."""
    whitening_images: Count = 5000
    """Number of training images, drawn by the seed, from whose patches the first layer is computed."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (64, 256, 256)
    """Output channels of each group. Each group halves height and width after its first convolution."""
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    """Convolutions in each group. From three on, a residual connection adds what comes out of the first convolution to
    what the others make of it."""
    kernels: Kernels = "torch"
    """What computes training steps: torch's operations or compiled kernels, which round differently. On a CPU, these
    are our own, in C: Winograd's convolution, which needs a fifth of the multiplications (Lavin & Gray 2016, arXiv
    1509.09308), and everything between two convolutions in one go. They need Linux, a C compiler and channels in
    multiples of 8, and compute in float32 (with `precision` half also with products of bfloat16). On a GPU,
    torch.compile makes them from torch's operations, in about half a minute; it needs triton. Elsewhere, torch's
    operations are used."""
    batch_norm_momentum: Fraction = 0.6
    """Share of batch normalisation's running averages that a step keeps: `momentum` in Keras, 1 - `momentum` in
    torch."""
    batch_norm_epsilon: NotNegative = 1e-12
    """Added to the variance in batch normalisation."""


class ResNetModel(Settings):
    """A residual network, ResNet-18 (He et al. 2016, arXiv 1512.03385) by default. The wide residual network 28-10
    (Zagoruyko & Komodakis 2016, arXiv 1605.07146) has ``stem=16``, ``widths=[160,320,640]``, ``blocks=[4,4,4]``,
    ``preactivation=true``; ResNeXt-29, 8 × 64d (Xie et al. 2017, arXiv 1611.05431) has ``widths=[256,512,1024]``,
    ``blocks=[3,3,3]``, ``bottleneck=2``, ``cardinality=8``."""

    name: Literal["resnet"] = "resnet"
    """Kind of network."""
    stem: Count = 64
    """Output channels of the first convolution."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (64, 128, 256, 512)
    """Output channels of each stage. Each stage but the first halves height and width."""
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (2, 2, 2, 2)
    """Blocks in each stage. A block has two 3 × 3 convolutions unless it is a bottleneck."""
    preactivation: bool = False
    """Normalise and activate before each convolution, not after it (He et al. 2016, arXiv 1603.05027)."""
    bottleneck: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] = 0.0
    """Build each block of three convolutions, 1 × 1, 3 × 3 and 1 × 1, of which the first two have this many times the
    channels of the stage: 0.25 in ResNet-50, 2 in ResNeXt-29, 8 × 64d. 0 builds it of two 3 × 3 convolutions."""
    cardinality: Count = 1
    """Groups into which the channels of each block's 3 × 3 convolutions are divided (Xie et al. 2017, arXiv
    1611.05431)."""
    dropout: Fraction = 0.0
    """Dropout before the last convolution of each block: the probability with which an input is zeroed in training."""
    stochastic_depth: Fraction = 0.0
    """Probability with which the last block is skipped for an image in training; earlier blocks are skipped less often
    (Huang et al. 2016, arXiv 1603.09382)."""
    kernels: Kernels = "torch"
    """What computes training steps: torch's operations or, in float32 on a CPU, the compiled kernels of the fast
    recipes' network, for the blocks' 3 × 3 convolutions that do not halve the image and for batch normalisation with
    what follows it. With a `cardinality` above 1, on a GPU, and where a CPU computes in half precision, torch's are
    used."""


class PyramidNetModel(Settings):
    """A pyramidal residual network (Han, Kim & Kim 2017, arXiv 1610.02915), in which every block has a few more
    channels than the one before it: PyramidNet-110 with a widening of 84 by default."""

    name: Literal["pyramidnet"] = "pyramidnet"
    """Kind of network."""
    stem: Count = 16
    """Output channels of the first convolution."""
    widening: Count = 84
    """How many channels the last block has more than the stem. Every block adds an equal part of them."""
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (18, 18, 18)
    """Blocks in each stage. Each stage but the first halves height and width."""
    bottleneck: bool = False
    """Build each block of three convolutions, 1 × 1, 3 × 3 and 1 × 1, of which the last has four times as many
    channels, instead of two 3 × 3 ones."""
    shakedrop: Fraction = 0.0
    """Probability with which the last block is disturbed in training; earlier blocks are disturbed less often. What its
    convolutions compute is multiplied by a random number from -1 to 1, and its gradient by another one from 0 to 1
    (ShakeDrop, Yamada et al. 2019, arXiv 1802.02375)."""
    shakedrop_chance: Literal["batch", "image"] = "batch"
    """Whether a block is disturbed for the whole `batch` at once, or for each `image` independently."""
    shakedrop_level: Literal["batch", "image", "channel", "pixel"] = "image"
    """What gets random numbers of its own: the whole `batch`, each `image`, each `channel` of an image, or each `pixel`
    of a channel."""


class ConvMixerModel(Settings):
    """ConvMixer (Trockman & Kolter 2022, arXiv 2201.09792): the image is cut into patches, which large depthwise
    convolutions and 1 × 1 convolutions mix in turn."""

    name: Literal["convmixer"] = "convmixer"
    """Kind of network."""
    width: Count = 256
    """Number of channels."""
    depth: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of layers."""
    kernel: Annotated[int, Field(ge=1, le=31)] = 5
    """Kernel size of the depthwise convolutions, in patches."""
    patch: Annotated[int, Field(ge=1, le=32)] = 2
    """Side of a patch, in pixels."""


class TransformerModel(Settings):
    """A compact convolutional transformer, CCT-7/3×1 by default (Hassani et al. 2021, arXiv 2104.05704)."""

    name: Literal["transformer"] = "transformer"
    """Kind of network."""
    width: Count = 256
    """Numbers in a token (embedding dimension)."""
    depth: Annotated[int, Field(ge=1, le=64)] = 7
    """Number of layers."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Attention heads; a divisor of the width."""
    tokenizer: Annotated[int, Field(ge=1, le=4)] = 1
    """Convolutions that turn an image into tokens; each halves height and width."""
    attention_dropout: Fraction = 0.1
    """Probability with which attention weights are zeroed in training."""
    dropout: Fraction = 0.0
    """Probability with which outputs of dense layers are zeroed in training."""
    stochastic_depth: Fraction = 0.1
    """Probability with which the last layer is skipped for an image in training; earlier layers are skipped less
    often."""


class TimmModel(Settings):
    """Any network of PyTorch Image Models (timm), by its name there; needs the extra `timm`."""

    name: Literal["timm"] = "timm"
    """Kind of network."""
    model: str = "resnet26d"
    """The network's name in timm. Its weights are drawn at random, not pretrained."""


class CustomModel(Settings):
    """A network that you bring as an ``nn.Module``; it cannot be rebuilt from the recipe alone."""

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
    """Adam (Kingma & Ba 2015, arXiv 1412.6980); with weight decay, its decoupled form AdamW (Loshchilov & Hutter
    2019)."""

    name: Literal["adam"] = "adam"
    """Kind of optimiser."""
    learning_rate: Positive = 1e-3
    """Peak learning rate; the schedule multiplies it by a factor in [0, 1]."""
    beta1: Fraction = 0.9
    """Share of the running mean of gradients that a step keeps."""
    beta2: Fraction = 0.999
    """Share of the running mean of squared gradients that a step keeps."""
    epsilon: Positive = 1e-8
    """Added to the denominator, in units of a gradient."""
    weight_decay: NotNegative = 0.0
    """Share of each weight that a step removes, times the learning rate. Normalisations, biases, and what a network's
    `no_weight_decay` names are not decayed."""


class Sgd(Settings):
    """Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013)."""

    name: Literal["sgd"] = "sgd"
    """Kind of optimiser."""
    learning_rate: Positive = 0.1
    """Peak learning rate; the schedule multiplies it by a factor in [0, 1]."""
    momentum: Fraction = 0.9
    """Share of the previous update that is added to the next one."""
    nesterov: bool = True
    """Use Nesterov momentum, which looks ahead along the momentum before it takes the gradient; needs momentum."""
    weight_decay: NotNegative = 0.0
    """Share of each weight that is added to its gradient. Normalisations, biases, and what a network's
    `no_weight_decay` names are not decayed."""


class Muon(Settings):
    """Muon (Jordan 2024) for the kernels of convolutions, SGD with Nesterov momentum for everything else.

    The learning rates suit a loss that is summed over the batch (`loss.reduction`). To Muon this makes no difference,
    to SGD it does.
    """

    name: Literal["muon"] = "muon"
    """Kind of optimiser."""
    learning_rate: Positive = 0.24
    """Peak learning rate of kernels. It is relative to their norm, which is kept at the square root of their number of
    output channels."""
    momentum: Fraction = 0.6
    """Share of the kernels' previous momentum that a step keeps."""
    newton_schulz_steps: Annotated[int, Field(ge=1, le=20)] = 3
    """Steps of the Newton–Schulz iteration, which makes an update orthogonal."""
    dense_learning_rate: Positive = 0.67
    """Peak learning rate of the weights of dense layers."""
    bias_learning_rate: Positive = 0.053
    """Peak learning rate of biases and normalisations."""
    sgd_momentum: Fraction = 0.85
    """Momentum of everything but kernels: the share of the previous update that is added to the next one."""
    decay: NotNegative = 0.0
    """Weight decay of everything but kernels: the share of a weight that one step's decay takes off at the peak rate.
    Momentum makes it 1 / (1 - sgd_momentum) times as much in all."""
    whitening_fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.375
    """Share of the training over which the learning rate of the whitening layer's bias falls to 0; from then on, the
    bias stays as it is."""


AnyOptimizer = Adam | Sgd | Muon


class Constant(Settings):
    """The peak learning rate throughout, after a linear warm-up."""

    name: Literal["constant"] = "constant"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Learning-rate warm-up: epochs over which the rate rises linearly from 0 to its peak."""


class StepDecay(Settings):
    """The learning rate is multiplied by a factor every few epochs."""

    name: Literal["step"] = "step"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Learning-rate warm-up: epochs over which the rate rises linearly from 0 to its peak."""
    every_epochs: Positive = 10.0
    """Epochs between two reductions."""
    factor: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    """Factor by which each reduction multiplies the rate."""


class Cosine(Settings):
    """The learning rate falls from its peak to the final rate along half a cosine (Loshchilov & Hutter 2017, arXiv
    1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Learning-rate warm-up: epochs over which the rate rises linearly from 0 to its peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Final rate, as a share of the peak."""
    final_epochs: NotNegative = 0.0
    """Epochs at the end that keep the final rate."""


class Linear(Settings):
    """The learning rate falls from its peak to the final rate along a straight line, whose end it would reach one step
    after the last."""

    name: Literal["linear"] = "linear"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Learning-rate warm-up: epochs over which the rate rises linearly from 0 to its peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Final rate, where the line ends, as a share of the peak."""
    final_epochs: NotNegative = 0.0
    """Epochs at the end that keep the final rate."""


class OneCycle(Settings):
    """The learning rate rises to its peak and falls again, both along half a cosine (Smith & Topin 2018, arXiv
    1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    """Kind of schedule."""
    warmup_fraction: Fraction = 0.25
    """Learning-rate warm-up: share of the training over which the rate rises."""
    initial_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.04
    """First rate, as a share of the peak."""
    final_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.001
    """Last rate, as a share of the peak."""


class Plateau(Settings):
    """The learning rate is reduced whenever the validation loss has stopped falling; needs validation images."""

    name: Literal["plateau"] = "plateau"
    """Kind of schedule."""
    warmup_epochs: NotNegative = 0.0
    """Learning-rate warm-up: epochs over which the rate rises linearly from 0 to its peak."""
    patience: Count = 3
    """Epochs without a new lowest validation loss after which the rate is reduced."""
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    """Factor by which each reduction multiplies the rate."""
    minimum_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    """Lowest rate, as a share of the peak; it is never reduced below this."""


AnySchedule = Constant | StepDecay | Cosine | Linear | OneCycle | Plateau


class Augmentation(Settings):
    """Random changes to each training image, drawn anew every time it is used."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Rotate about the centre by an angle drawn uniformly from ± this many degrees."""
    width_shift: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Shift horizontally by a distance drawn uniformly from ± this share of the image's width."""
    height_shift: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Shift vertically by a distance drawn uniformly from ± this share of the image's height."""
    horizontal_flip: bool = False
    """Mirror left and right with probability one half."""
    alternating_flip: bool = False
    """Instead of at random, mirror each image in every other epoch, half of them in the first one (Jordan 2024)."""
    translate_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """Shift by up to this many whole pixels in each direction. The image is reflected at its border, not resampled."""
    brightness: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Add a number drawn uniformly from ± this to all values of an image, which run from 0 to 1."""
    contrast: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Multiply all values' distances from the image's mean by a factor drawn uniformly from 1 ± this."""
    policy: Literal["none", "rand", "trivial", "augmix"] = "none"
    """Apply operations drawn from a list for each image: RandAugment (`rand`; Cubuk et al. 2020, arXiv 1909.13719),
    TrivialAugment (`trivial`; Müller & Hutter 2021, arXiv 2103.10158) or AugMix (`augmix`; Hendrycks et al. 2020, arXiv
    1912.02781). Of AugMix, these are the images, without the paper's consistency loss; its list lacks brightness,
    colour, contrast and sharpness, since robustness is measured with images made worse in such ways."""
    policy_operations: Annotated[int, Field(ge=1, le=20)] = 2
    """Operations per image in RandAugment."""
    policy_strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.3
    """Strength of the operations in RandAugment and AugMix, as a share of the strongest; TrivialAugment draws it at
    random. RandAugment's magnitude M, which torchvision counts up to 30, is M / 30 here: 0.3 for its M = 9."""
    erasing_probability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Random erasing: with this probability, paint over a rectangle of 2 to 33% of an image with `pixels.mean` (after
    Zhong et al. 2020, arXiv 1708.04896)."""
    mixup_alpha: NotNegative = 0.0
    """Mixup: blend each image, and its label, with another one, in shares drawn from Beta(alpha, alpha) (Zhang et al.
    2018, arXiv 1710.09412). 0 turns it off."""
    cutmix_alpha: NotNegative = 0.0
    """CutMix: paste a rectangle of another image into each image, and mix the labels by area; shares are drawn as for
    `mixup_alpha` (Yun et al. 2019, arXiv 1905.04899). If both are set, half of the images are mixed in each way."""
    cutout_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """Cutout: paint over a square with `pixels.mean`, somewhere within the image (after DeVries & Taylor 2017, arXiv
    1708.04552). This is its side in pixels."""
    cutout_beyond_border: bool = False
    """Draw the centre of the square anywhere in the image, so that a part of it may lie outside, as DeVries & Taylor
    do: less is painted over, and the border more often."""


class Loss(Settings):
    """Sparse categorical cross-entropy: the mean over the batch of −log p(true class), in nats."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability that is spread evenly over all classes (Szegedy et al. 2016)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the losses of a batch are combined into the number that is minimised: their `mean` or their `sum`. Results
    always show the mean."""
    sharpness_radius: NotNegative = 0.0
    """Sharpness-aware minimisation (SAM, Foret et al. 2021, arXiv 2010.01412): take each gradient this far uphill of
    the weights, as a distance over all of them together. A step then takes twice as long. 0 turns it off; 0.05 is usual
    on CIFAR-10."""


class Reference(Settings):
    """A trained model that a recipe names."""

    model: str = ""
    """A run folder, a model file, or ``pretrained``; empty means none."""
    fingerprint: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the model, recorded when a training begins. If it is set, no other model is accepted."""


class Start(Reference):
    """A trained model whose weights the network begins with, in place of random ones (transfer learning, fine-tuning;
    Yosinski et al. 2014, arXiv 1411.1792). It has to be the same network, on images of the same size, whose pixels are
    prepared alike. Its last layer is taken over if it knows all of the classes by name; otherwise that begins at
    random."""

    model: str = ""
    """A run folder, a model file, or ``pretrained``; empty begins with random weights. If the recipe holds out
    validation images, the model must never have seen them."""


class Teacher(Reference):
    """A trained model whose answers the network learns to imitate, beside the labels (distillation, Hinton et al. 2015,
    arXiv 1503.02531). In every step, the teacher sees the same augmented images as the network (Beyer et al. 2022,
    arXiv 2106.05237)."""

    model: str = ""
    """A run folder, an ensemble's folder, a model file, or ``pretrained``; empty means no teacher. If the recipe holds
    out validation images, the teacher must have held out the same ones."""
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.9
    """Share of the loss that is the cross-entropy to the teacher's answers; the rest is the cross-entropy to the
    labels. The defaults of this and of the temperature are usual on CIFAR (Tian et al. 2020, arXiv 1910.10699)."""
    temperature: Positive = 4.0
    """The teacher's calibrated scores and the network's scores are divided by this before they are compared, so that
    improbable classes count, too. That part of the loss is multiplied by its square, which keeps gradients as large as
    they were."""


class Selection(Settings):
    """Leaves out of each epoch the training images that the network found easiest when it last saw them (Loshchilov
    & Hutter 2015, arXiv 1511.06343; Jordan 2024, airbench96_faster). The first epoch uses all images."""

    drop: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the training images that an epoch leaves out; 0 uses every image in every epoch."""
    begin: Fraction = 0.0
    """Share of the epochs after which images are left out."""
    end: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the epochs after which all images are used again."""


class Averaging(Settings):
    """Weight averaging: the mean of the weights at the end of a training can be better than the last ones (Polyak &
    Juditsky 1992), the less so the further the learning rate has fallen. The mean is validated and kept; the training
    itself goes on from its own weights."""

    epochs: NotNegative = 0.0
    """How many epochs back the mean reaches; 0 takes the weights as they are."""
    weighting: Literal["exponential", "equal"] = "exponential"
    """`exponential`: an exponential moving average, updated after every step. Weights from `epochs` ago count 1/e as
    much as those of now, so nobody has to know beforehand where the end is (Tarvainen & Valpola 2017, arXiv
    1703.01780). `equal`: the plain mean of the weights at the end of each of the last `epochs` epochs, with batch
    normalisation's averages computed anew from all training images (stochastic weight averaging, SWA, Izmailov et al.
    2018, arXiv 1803.05407). This needs a learning rate that stays high; see `schedule.final_epochs`."""

    @model_validator(mode="after")
    def _epochs_are_whole_where_their_ends_count(self) -> Self:
        if self.weighting == "equal" and (self.epochs < 1 or self.epochs != int(self.epochs)):
            raise ValueError(
                f"averaging.epochs is {self.epochs:g} with averaging.weighting = equal; expected a whole number from 1 "
                "on; set both"
            )
        return self


class Lookahead(Settings):
    """Lookahead (Zhang et al. 2019, arXiv 1907.08610), for any optimiser: slow weights are kept beside those that the
    optimiser changes. Every few steps, they go part of the way to these, and the optimiser goes on from there."""

    steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps between two moves of the slow weights, usually 5 or 6; 0 turns Lookahead off. They also move at the last
    step of an epoch, so that the slow weights are what is validated and kept."""
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    """Share of the way that the slow weights go."""


class EarlyStopping(Settings):
    """When to stop early, and which weights to keep: those of the epoch with the lowest validation loss."""

    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Epochs without a new lowest validation loss after which training stops, at the second look at the validation
    images in that time or later if this is above 1; 0 never stops and keeps the last weights."""
    minimum_improvement: NotNegative = 0.0
    """A loss counts as lower only if it is lower by more than this, in nats."""


class Pixels(Settings):
    """How uint8 pixels become the network's input: divided by 255, then standardised per channel."""

    mean: Rgb = (0.0, 0.0, 0.0)
    """Subtracted from each channel (red, green, blue), after the division by 255."""
    standard_deviation: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    """What each channel is divided by, after the subtraction."""


class Views(Settings):
    """Test-time augmentation: the scores of an image are the mean over several views of it."""

    mirror: bool = False
    """Look at the mirror image (left and right) of each view, too."""
    translate_pixels: Annotated[int, Field(ge=0, le=1000)] = 0
    """If not 0, half of the weight goes to the image shifted by this many pixels, up-left and down-right (Jordan
    2024)."""
    below_probability: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Look again only at images to which the first view gives no class more than this probability, before any
    temperature (Hiverge 2025); 1 looks at all of them again."""

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.mirror or self.translate_pixels > 0


class Calibration(Settings):
    """How sure answers are, and below which probability they had better be "unknown". Both are fitted on the validation
    images when training ends. A recipe without validation images carries what was fitted for a training that held some
    out."""

    coverage: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.95
    """Share of the validation images that get an answer other than "unknown" if you ask for `--unknown-below auto`."""
    temperature: Positive = 1.0
    """Without validation images: scores, averaged over the views, are divided by this before the softmax (Guo et al.
    2017)."""
    unknown_below: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Without validation images: the probability that `--unknown-below auto` stands for; 0 suggests none."""
    data: str = ""
    """Name of the data that temperature and probability were fitted on; on other data they are a guess."""
    settings: str = ""
    """Digest of the recipe, as it is trained on these data, that they were fitted for; with other settings they are a
    guess."""


class FewerImages(Settings):
    """How epochs grow, and batches shrink, if there are fewer images than the recipe was made for.

    The number of epochs is multiplied by (reference_images / images) ** exponent, but at most by `maximum_factor`.
    """

    reference_images: Count = 50_000
    """Number of training images, validation part included, for which `epochs` is meant."""
    exponent: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """0 keeps the number of epochs, 1 keeps the number of steps."""
    maximum_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    """Largest factor by which the number of epochs may grow."""
    minimum_steps: Count = 1
    """If an epoch would have fewer steps than this, batches shrink, though not below 8 images: running averages of
    batch normalisation, and a learning rate that has to rise and fall, need some."""


class Range(Settings):
    """A number that `thirtytwo tune` may vary, in whole steps where the recipe holds a whole number."""

    low: int | Annotated[float, Field(allow_inf_nan=False)]
    """Least value."""
    high: int | Annotated[float, Field(allow_inf_nan=False)]
    """Largest value."""
    log: bool = False
    """Whether the scale is logarithmic: factors count, rather than differences."""

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
