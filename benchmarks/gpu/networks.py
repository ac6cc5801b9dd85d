"""The released networks with random weights of trained scale, made on the device; and small ones to try a program."""

import math
from dataclasses import replace

import torch
from torch import nn

from benchmarks.gpu import RELEASED as RELEASED
from restoration_api.request import Precision
from restoration_runner.models.seedvr2.config import MODELS, ModelConfig, dit_7b_rules
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from restoration_runner.models.seedvr2.dit import Modulation, NaDiT, OutputHead
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.half import activation_dtype, parameter_dtype
from restoration_runner.models.seedvr2.vae import VideoVae

TEXT_TOKENS = 58
"""Of the released prompt."""
SEED = 666
EMBEDDING_SCALE = 0.02
"""Of the timestep's part in the modulation: small beside the learned vectors, as a trained network has it."""


def config_of(name: str, *, tiny: bool) -> ModelConfig:
    """A released network, or the same rules in the size of nano."""
    if not tiny:
        return MODELS[name]
    nano = MODELS["seedvr2-nano"]
    if name == "seedvr2-3b":
        return replace(nano, name=f"{name}-tiny")
    small = dit_7b_rules(width=192, heads=6, head_dim=32, layers=5, text_width=128, expand_ratio=2)
    return replace(nano, name=f"{name}-tiny", dit=small)


def build(
    config: ModelConfig, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> LoadedModel:
    """The networks with random weights, made on the device: nothing of this size passes through host memory."""
    generator = torch.Generator(device).manual_seed(SEED)
    with torch.device("meta"):
        dit, vae = NaDiT(config.dit), VideoVae(config.vae)
    for network in (dit, vae):
        materialise(network.eval().requires_grad_(False), device=device, dtype=dtype, generator=generator)
    text = torch.randn(TEXT_TOKENS, config.dit.text_width, generator=generator, device=device)
    description = ModelDescription(name=config.name, posterior=PosteriorRule.SAMPLE, dit=config.dit, vae=config.vae)
    return LoadedModel(description, dit, vae, text.to(activation_dtype(dtype)), precision == Precision.FP8)


def materialise(network: nn.Module, *, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Weights of the scale that training leaves: a layer's output is about as large as its input.

    Vectors keep the values that their modules begin with (norms 1, biases and shifts 0, scales and gates 1).
    """
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            made = torch.empty(parameter.shape, dtype=parameter_dtype(parameter, dtype), device=device)
            if parameter.ndim > 1:
                made.normal_(0.0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
            else:
                made.fill_(1.0 if starts_at_one(module, name) else 0.0)
            setattr(module, name, nn.Parameter(made, requires_grad=False))
    if isinstance(network, NaDiT):
        network.time_in.third.weight.mul_(EMBEDDING_SCALE)


def starts_at_one(module: nn.Module, name: str) -> bool:
    if isinstance(module, Modulation | OutputHead):
        return name.endswith(("scale", "gate"))
    return name == "weight"  # a norm's
