"""Train `seedvr2-nano` in stages that resume from a checkpoint.

    python -m hack.nano.train vae     --data D --library L --output O --minutes 5 --of 5
    python -m hack.nano.train restore --data D --library L --output O --minutes 8 --of 16 --resume O/vae.pt
    python -m hack.nano.train restore --data D --library L --output O --minutes 8 --of 16 --resume O/restore.pt

`--minutes` bounds this call, `--of` is the whole stage that the learning rate's schedule spans. Preparing the pool and
compiling are not counted. A stage's checkpoint resumes that stage; an earlier stage's starts a new one.
"""

import argparse
import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from hack.nano.clips import ClipPool, Renderer, load_material
from hack.nano.codec import H264Pool
from hack.nano.degradation import STANDARD
from hack.nano.losses import charbonnier, luma, psnr, ssim, temporal
from hack.nano.network import Nano, frozen_masks, use_fast_convolutions
from restoration_runner.restoration.wavelet import low_pass
from torch import Tensor

EMA_DECAY = 0.999


@dataclass(frozen=True)
class Stage:
    """Crop size in frames and pixels, clips per step, learning rates."""

    name: str
    frames: int
    height: int
    width: int
    batch: int
    peak_rate: float
    last_rate: float = 1e-5


STAGES = {
    "vae": Stage("vae", frames=17, height=128, width=128, batch=16, peak_rate=2e-3),
    "restore": Stage("restore", frames=17, height=160, width=256, batch=8, peak_rate=1.2e-3),
}


def transfer(output: Tensor, style: Tensor) -> Tensor:
    """The runner's wavelet colour transfer on [B, 3, T, H, W]: only detail is left for the network to predict."""
    difference = (style.float() - output.float()).transpose(1, 2)
    return output.float() + low_pass(difference).transpose(1, 2)


class VaeLoss(torch.nn.Module):
    """Reconstruction of sharp and of degraded clips alike."""

    def __init__(self, model: Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, sharp: Tensor, degraded: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        half = len(sharp) // 2
        video = torch.cat((sharp[:half], degraded[half:]))
        mean, std = self.model.encode(video)
        decoded = self.model.decode(mean + std * noise)
        output = transfer(decoded, video)
        # A little weight on the plain output keeps the colours that the transfer would mend anyway.
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        structure = 1 - ssim(luma(output), luma(video))
        loss = charbonnier(output - video) + 0.5 * structure + 1e-5 * kl + 0.1 * charbonnier(decoded - video)
        return loss, output


class RestoreLoss(torch.nn.Module):
    """Degraded clip to sharp clip through encoder, transformer and decoder."""

    def __init__(self, model: Nano, *, latent_weight: float) -> None:
        super().__init__()
        self.model = model
        self.latent_weight = latent_weight

    def forward(self, sharp: Tensor, degraded: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        condition, _ = self.model.encode(degraded)
        restored = self.model.restore(condition, noise)
        output = transfer(self.model.decode(restored), degraded)
        structure = 1 - ssim(luma(output), luma(sharp))
        loss = charbonnier(output - sharp) + 0.4 * structure + 0.2 * temporal(output, sharp)
        if self.latent_weight > 0:
            with torch.no_grad():
                goal, _ = self.model.encode(sharp)
            loss = loss + self.latent_weight * (restored - goal).abs().mean()
        return loss, output


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
        self.stage = STAGES[arguments.stage]
        self.device = torch.device(arguments.device)
        self.batch = arguments.batch or self.stage.batch
        torch.manual_seed(arguments.seed)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if not arguments.plain_convolutions:
            use_fast_convolutions()
        self.model = Nano().to(self.device)
        self.masks = [
            (parameter, mask.to(self.device))
            for name, mask in frozen_masks(self.model.dit).items()
            for parameter in (self.model.dit.get_parameter(name),)
        ]
        decayed = [p for n, p in self.model.named_parameters() if n.startswith("vae.") and p.dim() > 1]
        rest = [p for n, p in self.model.named_parameters() if not (n.startswith("vae.") and p.dim() > 1)]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-8, fused=fused)
        self.ema = Ema(self.model)
        self.step, self.trained_s = 0, 0.0
        self._resume()
        self.model.prepare_layouts(self.stage.frames, self.stage.height, self.stage.width)
        if self.stage.name == "vae":
            self.loss: torch.nn.Module = VaeLoss(self.model)
        else:
            self.loss = RestoreLoss(self.model, latent_weight=arguments.latent_weight)
        self.run = self.loss if arguments.eager else torch.compile(self.loss)

    def _resume(self) -> None:
        path = self.arguments.resume
        if path is None:
            return
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["stage"] == self.stage.name:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.trained_s = saved["step"], saved["trained_s"]
        else:
            self.model.load_state_dict(saved["ema"])
        self.ema.load(saved["ema"])
        print(f"resumed {path} ({saved['stage']}, step {saved['step']}) as {self.stage.name} at step {self.step}")

    def save(self) -> None:
        state = {"stage": self.stage.name, "step": self.step, "trained_s": self.trained_s}
        tensors = {"model": self.model.state_dict(), "ema": self.ema.state()}
        path = self.arguments.output / f"{self.stage.name}.pt"
        torch.save({**state, **tensors, "optimizer": self.optimizer.state_dict()}, path)
        small = {name: value.half() for name, value in self.ema.state().items()}
        torch.save({**state, "ema": small}, self.arguments.output / f"{self.stage.name}-ema16.pt")

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
        stage = self.stage
        sharp, degraded = self.pool.batch(self.batch, frames=stage.frames, height=stage.height, width=stage.width)
        shape = (self.batch, 16, (stage.frames - 1) // 4 + 1, stage.height // 8, stage.width // 8)
        return sharp, degraded, torch.randn(shape, device=self.device)

    def rate(self) -> float:
        progress = min(1.0, self.trained_s / (60 * self.arguments.of))
        stage = self.stage
        cosine = stage.last_rate + (stage.peak_rate - stage.last_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        return cosine * min(1.0, (self.step + 1) / 200)

    def autocast(self) -> "torch.autocast | nullcontext[None]":
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def advance(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        example = self.example()
        with self.autocast():
            loss, _ = self.run(*example)
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
        compiled = time.monotonic()
        for _ in range(3):  # compilation and kernel selection do not count as training time
            self.advance()
        self._synchronise()
        print(f"first steps: {time.monotonic() - compiled:.1f} s", flush=True)
        limit_s = 60 * min(self.arguments.minutes, self.arguments.of - self.trained_s / 60)
        begun, before_s = time.monotonic(), self.trained_s
        report_at, losses, seen = 20.0, [], 0
        while (elapsed := time.monotonic() - begun) < limit_s:
            self.trained_s = before_s + elapsed
            losses.append(self.advance())
            if self.step % 20 == 0:
                self._synchronise()
                self.pool.collect()
                self.pool.request(self.arguments.refresh)
            if elapsed > report_at:
                mean = float(torch.stack(losses[seen:]).mean())
                rate = (len(losses) - seen) / 20
                report = f"{self.trained_s:6.0f} s  step {self.step:6d}  loss {mean:.5f}  lr {self.rate():.1e}"
                print(f"{report}  {rate:.1f} steps/s", flush=True)
                report_at, seen = elapsed + 20, len(losses)
        self._synchronise()
        print(f"{self.stage.name}: {len(losses)} steps in {time.monotonic() - begun:.0f} s", flush=True)

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
                pictures = {"bicubic": degraded}
                if self.stage.name == "vae":
                    pictures["vae of sharp"] = transfer(self.model.decode(self.model.encode(sharp)[0]), sharp)
                    pictures["vae of degraded"] = transfer(self.model.decode(condition), degraded)
                else:
                    noise = torch.randn_like(condition)
                    restored = self.model.restore(condition, noise)
                    pictures["restored"] = transfer(self.model.decode(restored), degraded)
                    again = self.model.restore(condition, torch.randn_like(condition))
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
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--data", type=Path, required=True, help="folder written by hack.nano.data")
    parser.add_argument("--library", type=Path, required=True, help="shared library built by hack.nano.codec")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--of", type=float, default=8)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--pool", type=int, default=1024)
    parser.add_argument("--exam", type=int, default=24)
    parser.add_argument("--refresh", type=int, default=8, help="new clips every 20 steps")
    parser.add_argument("--latent-weight", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--plain-convolutions", action="store_true", help="the runner's own 3-D convolutions")
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
