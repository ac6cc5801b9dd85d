"""Train `seedvr2-nano`; each call continues where the last checkpoint ends.

    python -m hack.nano.train --data D --library L --output O --deadline 570 --of 15
    python -m hack.nano.train --data D --library L --output O --deadline 570 --resume O/state.pt --finish

`--deadline` bounds this call in seconds, preparation and compilation included; `--of` is the training time in minutes
that the learning rate's schedule spans; `--finish` lets the schedule end with this call. Every step trains the VAE as
an autoencoder on some clips (sharp in, sharp out, the transformer left out) and the whole chain on the others
(degraded in, sharp out), so the decoder always knows true latents and the transformer's.
"""

import argparse
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from hack.nano.clips import ClipPool, Renderer, load_material
from hack.nano.codec import H264Pool
from hack.nano.degradation import STANDARD
from hack.nano.fast_layers import install
from hack.nano.losses import charbonnier, luma, psnr, ssim, structure, temporal, worst_frames
from hack.nano.network import INPUT_BAND, Nano, frozen_masks
from restoration_runner.models.seedvr2.input_band import put_back
from restoration_runner.restoration.wavelet import low_pass

EMA_DECAY = 0.999


# One step: clips, frames, pixels. Crops are wide, so that attention meets distant positions.
BATCH, FRAMES, HEIGHT, WIDTH = 6, 17, 160, 320
SHARP_SHARE = 1 / 3  # of the clips that train the VAE alone
PEAK_RATE, LAST_RATE = 1.5e-3, 1e-5  # a call that goes on from shipped weights begins lower, with --peak
SAVE_EVERY_S = 100.0


def transfer(output: Tensor, style: Tensor) -> Tensor:
    """What the runner does after decoding, on [B, 3, T, H, W]: input band and wavelet colour transfer. Only detail is
    left for the network to predict."""
    source = style.float().transpose(1, 2)
    banded = put_back(output.float().transpose(1, 2), source, INPUT_BAND)
    return (banded + low_pass(source - banded)).transpose(1, 2)


class JointLoss(torch.nn.Module):
    """The first `sharp_clips` clips pass the VAE alone, the others encoder, transformer and decoder."""

    def __init__(self, model: Nano, *, sharp_clips: int) -> None:
        super().__init__()
        self.model = model
        self.sharp_clips = sharp_clips

    def forward(self, sharp: Tensor, degraded: Tensor, noise: Tensor) -> Tensor:
        split = self.sharp_clips
        video = torch.cat((sharp[:split], degraded[split:]))
        latent, _ = self.model.encode(video)
        restored = self.model.restore(latent[split:], noise[split:])
        output = transfer(self.model.decode(torch.cat((latent[:split], restored))), video)
        loss = charbonnier(output - sharp) + 0.4 * structure(output, sharp) + 0.4 * temporal(output, sharp)
        loss = loss + 0.5 * worst_frames(output, sharp)
        # Keeps latents near unit size, for which the transformer is laid out.
        return loss + 1e-4 * latent.square().mean()


class Ema:
    """Exponential moving average of the weights; what is evaluated and shipped."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.live = [p for _, p in model.named_parameters()]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.mean, strict=True))

    def load(self, state: dict[str, Tensor]) -> None:
        for mean, name in zip(self.mean, self.names, strict=True):
            mean.copy_(state[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange live and averaged weights, for an evaluation and back."""
        for live, mean in zip(self.live, self.mean, strict=True):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)


class Trainer:
    """One call of one stage."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.begun = time.monotonic()
        self.device = torch.device(arguments.device)
        self.crop = (FRAMES, arguments.height, arguments.width)
        torch.manual_seed(arguments.seed)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.model = Nano().to(self.device)
        self.masks = [
            (self.model.dit.get_parameter(name), mask.to(self.device))
            for name, mask in frozen_masks(self.model.dit).items()
        ]
        named = list(self.model.named_parameters())
        groups = [
            {
                "params": [p for n, p in named if n.startswith("vae.") and p.dim() > 1],
                "weight_decay": 0.01,
                "share": 1.0,
            },
            {
                "params": [p for n, p in named if n.startswith("vae.") and p.dim() == 1],
                "weight_decay": 0.0,
                "share": 1.0,
            },
            # The transformer's norms are all but fixed scales, so it gets the smaller steps.
            {"params": [p for n, p in named if not n.startswith("vae.")], "weight_decay": 0.0, "share": 0.5},
        ]
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-8, fused=fused)
        self.ema = Ema(self.model)
        self.step, self.trained_s, self.schedule_s = 0, 0.0, 60 * arguments.of
        self._resume()
        example = torch.rand(arguments.batch, 3, *self.crop, device=self.device) * 2 - 1
        example = example.contiguous(memory_format=torch.channels_last_3d)
        for layer, form in install(self.model.vae, example).items():
            print(f"{layer}: {form}")
        self.model.prepare_layouts(*self.crop)
        loss = JointLoss(self.model, sharp_clips=max(1, round(arguments.batch * SHARP_SHARE)))
        self.loss: torch.nn.Module = loss if arguments.eager else torch.compile(loss)  # type: ignore[assignment]
        print(f"layers chosen after {self.spent_s():.1f} s", flush=True)

    def spent_s(self) -> float:
        return time.monotonic() - self.begun

    def _resume(self) -> None:
        path = self.arguments.resume
        if path is None:
            return
        saved = torch.load(path, map_location=self.device, weights_only=True)
        # The half-precision file has only averaged weights: training goes on from them.
        full = "model" in saved
        weights = saved["model"] if full else {name: value.float() for name, value in saved["ema"].items()}
        self.model.load_state_dict(weights)
        self.ema.load({name: value.float() for name, value in saved["ema"].items()})
        if full:
            self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.trained_s = saved["step"], saved["trained_s"]
        print(f"resumed {path} at step {self.step}, {self.trained_s:.0f} s")

    def save(self) -> None:
        progress = {"step": self.step, "trained_s": self.trained_s}
        tensors = {"model": self.model.state_dict(), "ema": self.ema.state()}
        folder: Path = self.arguments.state or self.arguments.output
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({**progress, **tensors, "optimizer": self.optimizer.state_dict()}, folder / "state.pt")
        small = {name: value.half() for name, value in self.ema.state().items()}
        torch.save({**progress, "ema": small}, self.arguments.output / "averaged.pt")

    def prepare(self) -> None:
        started = time.monotonic()
        material = load_material(self.arguments.data, self.device)
        codec = H264Pool(self.arguments.library)
        seed = self.arguments.seed + self.step
        self.pool = ClipPool(Renderer(material, seed=seed), codec, size=self.arguments.pool)
        held_out = Renderer(material, seed=7, held_out=True)
        self.exam = ClipPool(held_out, codec, size=self.arguments.exam, fixed=STANDARD)
        print(f"material and pool of {self.pool.size} clips: {time.monotonic() - started:.1f} s", flush=True)

    def example(self) -> tuple[Tensor, Tensor, Tensor]:
        count = self.arguments.batch
        frames, height, width = self.crop
        sharp, degraded = self.pool.batch(count, frames=frames, height=height, width=width)
        shape = (count, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
        return sharp, degraded, torch.randn(shape, device=self.device)

    def rate(self) -> float:
        progress = min(1.0, self.trained_s / self.schedule_s)
        cosine = LAST_RATE + (self.arguments.peak - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
        return cosine * min(1.0, (self.step + 1) / 200)

    def autocast(self) -> "torch.autocast | nullcontext[None]":
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def advance(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group["share"]
        example = self.example()
        with self.autocast():
            loss: Tensor = self.loss(*example)
        loss.backward()
        frozen = [(p.grad, mask) for p, mask in self.masks if p.grad is not None]
        if frozen:
            torch._foreach_mul_([grad for grad, _ in frozen], [mask for _, mask in frozen])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.step)
        return loss.detach()

    def train(self) -> None:
        for _ in range(3):  # compilation and kernel selection are not training time
            self.advance()
        self._synchronise()
        begun, before_s = time.monotonic(), self.trained_s
        limit_s = self.arguments.deadline - self.spent_s()
        if self.arguments.finish:
            self.schedule_s = before_s + limit_s
        print(f"first steps done after {self.spent_s():.0f} s, {limit_s:.0f} s to train", flush=True)
        report_at, save_at, losses = 20.0, SAVE_EVERY_S, list[Tensor]()
        while (elapsed := time.monotonic() - begun) < limit_s:
            self.trained_s = before_s + elapsed
            losses.append(self.advance())
            if self.step % 20 == 0:
                self._synchronise()
                self.pool.collect()
                self.pool.request(self.arguments.refresh)
            if elapsed > report_at:
                mean = float(torch.stack(losses).mean())
                report = f"{self.trained_s:6.0f} s  step {self.step:6d}  loss {mean:.5f}  lr {self.rate():.1e}"
                print(f"{report}  {len(losses) / (elapsed - report_at + 20):.1f} steps/s", flush=True)
                report_at, losses = elapsed + 20, []
            if elapsed > save_at:
                self.save()
                save_at = elapsed + SAVE_EVERY_S
        self._synchronise()

    @torch.no_grad()
    def examine(self) -> None:
        """PSNR and SSIM of luma on held-out clips degraded by `standard`, with averaged weights."""
        self.ema.swap()
        self.model.layouts = None
        totals: dict[str, list[float]] = {}
        for index in range(self.exam.size):
            sharp, degraded = self.exam.single(index)
            with self.autocast():
                condition, _ = self.model.encode(degraded)
                restored = self.model.restore(condition, torch.randn_like(condition))
                again = self.model.restore(condition, torch.randn_like(condition))
                pictures = {
                    "bicubic": degraded,
                    "restored": transfer(self.model.decode(restored), degraded),
                    "vae of sharp": transfer(self.model.decode(self.model.encode(sharp)[0]), sharp),
                }
            totals.setdefault("latent change by seed", []).append(float((again - restored).std()))
            totals.setdefault("latent std", []).append(float(condition.std()))
            for name, picture in pictures.items():
                totals.setdefault(f"{name} dB", []).append(psnr(picture, sharp))
                totals.setdefault(f"{name} SSIM", []).append(float(ssim(luma(picture.clamp(-1, 1)), luma(sharp))))
        self.ema.swap()
        for name, values in totals.items():
            print(f"exam {name}: {sum(values) / len(values):.4f}", flush=True)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder written by hack.nano.data")
    parser.add_argument("--library", type=Path, required=True, help="shared library built by hack.nano.codec")
    parser.add_argument("--output", type=Path, required=True, help="averaged.pt, and state.pt unless --state")
    parser.add_argument("--state", type=Path, help="folder for state.pt (weights, averages and optimizer, 80 MB)")
    parser.add_argument("--deadline", type=float, default=570, help="seconds this call may take")
    parser.add_argument("--of", type=float, default=15, help="minutes of training that the schedule spans")
    parser.add_argument("--peak", type=float, default=PEAK_RATE, help="highest learning rate")
    parser.add_argument("--finish", action="store_true", help="end the schedule with this call")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--pool", type=int, default=1024)
    parser.add_argument("--exam", type=int, default=24)
    parser.add_argument("--refresh", type=int, default=8, help="new clips every 20 steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    arguments.output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    trainer = Trainer(arguments)
    trainer.prepare()
    trainer.train()
    trainer.save()
    trainer.examine()


if __name__ == "__main__":
    main()
