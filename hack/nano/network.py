"""The network in training: the runner's own modules, their starting point, and the parts that never train.

The output is x0 = x_T - v: the velocity must carry the noise x_T through the transformer exactly, or noise leaks into
the picture. Instead of hoping that training finds this, the residual stream is laid out for it:

    channels   0..63    the four 16-channel noise vectors of a token, untouched by every block
    channels  64..127   the condition latent, which the blocks turn into the restored latent
    channel   128       a constant, so large that it alone decides every RMSNorm: norms become a fixed scale
    channels 129..191   room to work

The weights that would mix the first group or the constant with the rest are zero and stay zero (`frozen_masks`). At
step 0 the blocks add nothing and the result is the condition latent itself.
"""

import math

import torch
from torch import Tensor, nn

from restoration_runner.models.seedvr2.config import MODELS, DitConfig
from restoration_runner.models.seedvr2.description import InputBandRule
from restoration_runner.models.seedvr2.dit import Layouts, NaDiT
from restoration_runner.models.seedvr2.vae import VideoVae, posterior

NAME = "seedvr2-nano"
DIT, VAE = MODELS[NAME].dit, MODELS[NAME].vae
TEXT_TOKENS = 8
INPUT_BAND = InputBandRule(blurs=(1, 2), octaves=(4, 8, 16), caution=3.0)
"""From 1.6 pixels (one standard deviation) on the input is asked, from 13 on it decides. Measured: decision 0022."""
TIMESTEP = 1000.0

_NOISE = slice(0, 64)
_CONDITION = slice(64, 128)
_CONSTANT = 128
_CONSTANT_VALUE = 4096.0  # exact in every float format; its square exceeds the sum of all others 100,000 times


class Nano(nn.Module):
    """VAE, transformer and the learned text tokens [TEXT_TOKENS, 128]."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = VideoVae(VAE)
        self.dit = NaDiT(DIT)
        self.layouts: Layouts | None = None  # of the training crop, prepared where the module is compiled
        self.text = nn.Parameter(torch.randn(TEXT_TOKENS, DIT.text_width))
        initialise_vae(self.vae)
        initialise_dit(self.dit, DIT)

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, 16, t, h, w] of the scaled latents of [B, 3, T, H, W] in [-1, 1]."""
        mean, std = posterior(self.vae.encode(video).float())
        return mean * VAE.scaling, std * VAE.scaling

    def prepare_layouts(self, frames: int, height: int, width: int) -> None:
        """Build the window tables of one crop size ahead, so that compilation sees only tensors."""
        grid = ((frames - 1) // 4 + 1, height // 16, width // 16)
        self.layouts = self.dit.layouts(grid, TEXT_TOKENS, self.text.device)

    def decode(self, latent: Tensor) -> Tensor:
        """[B, 16, t, h, w] scaled to [B, 3, T, H, W]."""
        return self.vae.decode(latent / VAE.scaling)

    def restore(self, condition: Tensor, noise: Tensor) -> Tensor:
        """x0 [B, 16, t, h, w] from condition latents and x_T of the same shape."""
        last = (0, 2, 3, 4, 1)
        ones = torch.ones_like(condition[:, :1])
        video = torch.cat((noise, condition, ones), dim=1).permute(last)
        text = self.text[None].expand(len(video), -1, -1)
        timestep = torch.full((len(video),), TIMESTEP, device=video.device)
        velocity = self.dit(video, text, timestep, self.layouts)
        return noise.float() - velocity.float().permute(0, 4, 1, 2, 3)


def initialise_vae(vae: VideoVae) -> None:
    """Residual branches start small, so that depth does not amplify; log-variances start at a small deviation."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("conv2.weight"):
                parameter.mul_(0.2)
        latents = VAE.latent_channels
        vae.encoder.conv_out.weight[latents:].mul_(0.01)
        vae.encoder.conv_out.bias[latents:].fill_(-6.0)


@torch.no_grad()
def initialise_dit(dit: NaDiT, config: DitConfig) -> None:
    """Identity at step 0, laid out as the module's docstring says."""
    scale = math.sqrt((_CONSTANT_VALUE**2 + 150.0) / config.width)  # 150: noise and condition of a typical token
    active = _active(config.width)
    for parameter in (dit.patch_in.weight, dit.patch_in.bias, dit.patch_out.weight, dit.patch_out.bias):
        parameter.zero_()
    for patch in range(4):
        for channel in range(16):
            row = patch * 16 + channel
            dit.patch_in.weight[row, patch * 33 + channel] = 1.0
            dit.patch_in.weight[64 + row, patch * 33 + 16 + channel] = 1.0
            dit.patch_out.weight[row, row] = 1.0
            dit.patch_out.weight[row, 64 + row] = -1.0
    dit.patch_in.bias[_CONSTANT] = _CONSTANT_VALUE
    nn.init.zeros_(dit.time_in.third.weight)
    nn.init.zeros_(dit.time_in.third.bias)
    dit.head.scale.fill_(scale)
    for name, parameter in dit.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("attn_scale", "mlp_scale"):
            # Text has no constant channel: its norm is an ordinary one.
            is_text = ".text." in name
            parameter.copy_(torch.ones_like(active) if is_text else active * scale)
        elif kind in ("attn_gate", "mlp_gate"):
            parameter.copy_(torch.ones_like(active) if ".text." in name else active)
        elif name.endswith((".out.weight", ".out.bias", ".mlp.down.weight")):
            parameter.zero_()


def _active(width: int) -> Tensor:
    active = torch.ones(width)
    active[_NOISE] = 0
    active[_CONSTANT] = 0
    return active


def frozen_masks(dit: NaDiT) -> dict[str, Tensor]:
    """1 where a weight may train, 0 where it must keep its starting value; parameters not named train freely."""
    active = _active(DIT.width)
    masks: dict[str, Tensor] = {}
    noise_inputs = torch.tensor([feature % 33 < 16 for feature in range(4 * 33)]).float()
    patch_in = active[:, None].expand(-1, 4 * 33) * (1 - noise_inputs)
    masks["patch_in.weight"], masks["patch_in.bias"] = patch_in, active
    masks["patch_out.weight"] = active[None].expand(64, -1)
    masks["head.norm.weight"] = masks["head.scale"] = masks["head.shift"] = active
    masks["time_in.third.bias"] = active.repeat_interleave(6)
    masks["time_in.third.weight"] = active.repeat_interleave(6)[:, None].expand(-1, DIT.width)
    for name, _ in dit.named_parameters():
        if ".modulation." in name and ".text." not in name:
            masks[name] = active
    return {name: mask.clone() for name, mask in masks.items()}
