"""The causal video VAE: 8× in space, 4× in time, whole clips or streams with the same result.

No layer looks into the future. Convolutions over time see earlier frames: at the start of a clip copies of the first
frame of *their own* input, later the tail of the previous chunk, which `StreamState` holds. Norms and attention work on
single frames, so that tail is the only state and memory does not grow with the clip.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restoration_runner.models.seedvr2.attention import attend
from restoration_runner.models.seedvr2.config import VaeConfig
from restoration_runner.models.seedvr2.half import Linear, half_product, unit_scale


class StreamState:
    """The past of one stream: for each causal convolution the frames it must see again. A new stream, a new state."""

    def __init__(self) -> None:
        self._tails: dict[nn.Module, Tensor] = {}

    def past(self, conv: nn.Module) -> Tensor | None:
        return self._tails.get(conv)

    def remember(self, conv: nn.Module, tail: Tensor) -> None:
        # A clone, because a view would keep the whole padded input alive.
        self._tails[conv] = tail.clone()

    @property
    def size_bytes(self) -> int:
        return sum(tail.nbytes for tail in self._tails.values())


class CausalConv3d(nn.Conv3d):
    """Convolution whose time window ends at the current frame. Input `[B, C, T, H, W]`; zeros around each frame.

    pad: zeros on all four sides. pad_end: zeros to the right and at the bottom only.
    In a stream every chunk but the first must hold a multiple of the time stride, and the first one frame more.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        pad: int = 1,
        pad_end: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=(0, pad, pad))
        self.pad_end = pad_end

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if self.kernel_size[0] > 1:
            x = self._with_past(x, state)
        if self.pad_end:
            x = F.pad(x, (0, self.pad_end, 0, self.pad_end))
        return convolve(x, self)

    def _with_past(self, x: Tensor, state: StreamState | None) -> Tensor:
        past = state.past(self) if state is not None else None
        if past is None:
            past = x[:, :, :1].expand(-1, -1, self.kernel_size[0] - 1, -1, -1)
        joined = join_time(past, x)
        if state is not None:
            keep = self.kernel_size[0] - self.stride[0]
            state.remember(self, joined[:, :, -keep:])
        return joined


class PointwiseConv3d(nn.Conv3d):
    """1×1×1 convolution: on CPUs a matrix product over channels-last pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype is torch.float16:
            return convolve(x, self)
        if not prefers_onednn(x):
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


def join_time(past: Tensor, x: Tensor) -> Tensor:
    """Frames `[B, C, T, H, W]` one after the other, in the memory format of `x` (`cat` alone forgets channels-last)."""
    if x.stride(1) != 1 or x.shape[1] == 1:
        return torch.cat([past, x], dim=2)
    frames = [part.permute(0, 2, 3, 4, 1) for part in (past, x)]
    return torch.cat(frames, dim=1).permute(0, 4, 1, 2, 3)


def prefers_onednn(x: Tensor) -> bool:
    """On CPUs PyTorch 2.13 gives 3-D convolutions of few float32 channels to a loop without vector code.

    Measured for eight channels and four frames of 640 × 368 on one core: 690 instead of 62 ms.
    """
    return (
        x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()
    )


def convolve(x: Tensor, conv: nn.Conv3d) -> Tensor:
    """`conv` applied to `x`, by oneDNN where that is faster than PyTorch's own choice."""
    assert conv.bias is not None, "every convolution of the VAE has one"
    if conv.weight.dtype is torch.float16:
        # One scale for all: the frames of a chunk and of its past meet in the same sums.
        out = half_product(lambda a, b: _convolve(a, b, None, conv), x, conv.weight, unit_scale(x))
        return out + conv.bias.view(-1, 1, 1, 1)
    return _convolve(x, conv.weight, conv.bias, conv)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: nn.Conv3d) -> Tensor:
    stride, padding = list(conv.stride), [int(side) for side in conv.padding]
    if prefers_onednn(x):
        out: Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, [1, 1, 1], 1)
        return out
    return F.conv3d(x, weight, bias, stride, padding)


class FrameNorm(nn.GroupNorm):
    """GroupNorm of every frame on its own; statistics over time would tie a frame to the future."""

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        normed = self._norm(frames.flatten(0, 1))
        return normed.view(*frames.shape[:2], *normed.shape[1:]).transpose(1, 2)

    def _norm(self, images: Tensor) -> Tensor:
        if images.device.type == "cpu" and images.dtype == torch.bfloat16:
            # PyTorch's bf16 kernel is four times slower than float32 for few channels in channels-last.
            wide = F.group_norm(images.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
            return wide.to(images.dtype)
        return super().forward(images)


def silu(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient needs the input."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, config: VaeConfig) -> None:
        super().__init__()
        self.norm1 = FrameNorm(config.groups, inputs, config.norm_eps)
        self.conv1 = CausalConv3d(inputs, outputs)
        self.norm2 = FrameNorm(config.groups, outputs, config.norm_eps)
        self.conv2 = CausalConv3d(outputs, outputs)
        self.skip = PointwiseConv3d(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        h: Tensor = self.conv1(silu(self.norm1(x)), state)
        h = self.conv2(silu(self.norm2(h)), state)
        h += self.skip(x)  # in place is safe for autograd: no backward needs the convolution's output
        return h


class FrameAttention(nn.Module):
    """Single-head attention over the positions of each frame, with a residual."""

    def __init__(self, channels: int, config: VaeConfig) -> None:
        super().__init__()
        self.norm = FrameNorm(config.groups, channels, config.norm_eps)
        self.q = Linear(channels, channels)
        self.k = Linear(channels, channels)
        self.v = Linear(channels, channels)
        self.out = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        B, C, T, H, W = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 4, 1).reshape(B * T, 1, H * W, C)
        mixed: Tensor = self.out(attend(self.q(tokens), self.k(tokens), self.v(tokens)))
        return x + mixed.view(B, T, H, W, C).permute(0, 4, 1, 2, 3)


class MiddleBlock(nn.Module):
    def __init__(self, channels: int, config: VaeConfig) -> None:
        super().__init__()
        self.before = ResBlock(channels, channels, config)
        self.attention = FrameAttention(channels, config)
        self.after = ResBlock(channels, channels, config)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        out: Tensor = self.after(self.attention(self.before(x, state)), state)
        return out


class Downsample(nn.Module):
    """Halves height and width, and time where `temporal`. Pads on the right and at the bottom only."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if temporal else ((1, 3, 3), (1, 2, 2))
        self.conv = CausalConv3d(channels, channels, kernel, stride=stride, pad=0, pad_end=1)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        out: Tensor = self.conv(x, state)
        return out


def unfold_channels(x: Tensor, r: int) -> Tensor:
    """Pixel shuffle over (height, width, time): `[B, 4rC, T, H, W]` to `[B, C, rT, 2H, 2W]`, memory format kept.

    Input channel ((sx·2 + sy)·r + sz)·C + c goes to row 2H + sx, column 2W + sy, frame rT + sz.
    """
    B, c4r, T, H, W = x.shape
    C = c4r // (4 * r)
    if x.is_contiguous(memory_format=torch.channels_last_3d):
        x = x.permute(0, 2, 3, 4, 1).reshape(B, T, H, W, 2, 2, r, C).permute(0, 1, 6, 2, 4, 3, 5, 7)
        return x.reshape(B, r * T, 2 * H, 2 * W, C).permute(0, 4, 1, 2, 3)
    x = x.reshape(B, 2, 2, r, C, T, H, W).permute(0, 4, 5, 3, 6, 1, 7, 2)
    return x.reshape(B, C, r * T, 2 * H, 2 * W)


def drop_second_frame(x: Tensor) -> Tensor:
    """The first latent stands for one frame, so a clip's start doubles to 2T - 1 frames."""
    return join_time(x[:, :, :1], x[:, :, 2:])


class Upsample(nn.Module):
    """Doubles height and width, and time where `temporal`; a clip's first frame stays one frame."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.time_factor = 2 if temporal else 1
        self.expand = PointwiseConv3d(channels, channels * 4 * self.time_factor)
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        is_clip_start = state is None or state.past(self.conv) is None
        x = unfold_channels(self.expand(x), self.time_factor)
        if self.time_factor == 2 and is_clip_start:
            x = drop_second_frame(x)
        out: Tensor = self.conv(x, state)
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, then a change of resolution (or none)."""

    def __init__(self, blocks: list[ResBlock], resample: Downsample | Upsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, state)
        return x if self.resample is None else self.resample(x, state)


def _res_blocks(inputs: int, outputs: int, count: int, config: VaeConfig) -> list[ResBlock]:
    return [ResBlock(inputs if i == 0 else outputs, outputs, config) for i in range(count)]


class Encoder(nn.Module):
    """`[B, 3, T, H, W]` to moments `[B, 2·latent, t, h, w]`."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels = config.channels
        last = len(channels) - 1
        self.conv_in = CausalConv3d(config.image_channels, channels[0])
        self.levels = nn.ModuleList()
        for i, width in enumerate(channels):
            temporal = i >= last - config.temporal_levels
            down = Downsample(width, temporal=temporal) if i < last else None
            self.levels.append(Level(_res_blocks(channels[max(i - 1, 0)], width, config.encoder_blocks, config), down))
        self.middle = MiddleBlock(channels[-1], config)
        self.norm_out = FrameNorm(config.groups, channels[-1], config.norm_eps)
        self.conv_out = CausalConv3d(channels[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = self.conv_in(x, state)
        for level in self.levels:
            x = level(x, state)
        x = self.middle(x, state)
        out: Tensor = self.conv_out(silu(self.norm_out(x)), state)
        return out


class Decoder(nn.Module):
    """Latents `[B, latent, t, h, w]` to `[B, 3, T, H, W]`, not clamped."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels = config.channels[::-1]
        last = len(channels) - 1
        self.conv_in = CausalConv3d(config.latent_channels, channels[0])
        self.middle = MiddleBlock(channels[0], config)
        self.levels = nn.ModuleList()
        for i, width in enumerate(channels):
            up = Upsample(width, temporal=i < config.temporal_levels) if i < last else None
            blocks = _res_blocks(channels[max(i - 1, 0)], width, config.encoder_blocks + 1, config)
            self.levels.append(Level(blocks, up))
        self.norm_out = FrameNorm(config.groups, channels[-1], config.norm_eps)
        self.conv_out = CausalConv3d(channels[-1], config.image_channels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = self.middle(self.conv_in(x, state), state)
        for level in self.levels:
            x = level(x, state)
        out: Tensor = self.conv_out(silu(self.norm_out(x)), state)
        return out


class VideoVae(nn.Module):
    """Encoder and decoder. T = 4n+1 frames correspond to n+1 latents.

    Without `state` a call takes a whole clip. With one, the first call takes 4n+1 frames (n+1 latents) and every later
    call 4n frames (n latents) of the same clip; the concatenated results equal the whole clip's.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def new_state(self) -> StreamState:
        """For the chunks of one clip."""
        return StreamState()

    def encode(self, video: Tensor, state: StreamState | None = None) -> Tensor:
        """`[B, 3, T, H, W]` in [-1, 1], H and W multiples of 8, to moments `[B, 32, t, h, w]` (see `posterior`)."""
        moments: Tensor = self.encoder(video, state)
        return moments

    def decode(self, latent: Tensor, state: StreamState | None = None) -> Tensor:
        """Unscaled latents `[B, 16, t, h, w]` to `[B, 3, T, H, W]`."""
        video: Tensor = self.decoder(latent, state)
        return video


def posterior(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latent distribution, from moments with channels on axis 1."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
