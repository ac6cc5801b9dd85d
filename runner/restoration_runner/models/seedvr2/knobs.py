"""What may be changed about the fast path's memory without changing what it computes."""

from dataclasses import asdict, dataclass, field

from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Exact in mathematics, not always in bits: they are part of the fingerprint.

    latents_at_once: how many latents one call of encoder or decoder gets; more need more memory and make fewer and
        larger kernels.
    stage_by_stage: the whole segment is encoded, then denoised, then decoded, so that encoder's and decoder's rings
        never exist at the same time; what waits in between are latents. Frames come out late, in one burst.
    """

    latents_at_once: int = 1
    stage_by_stage: bool = False
    vae: VaeKnobs = field(default_factory=VaeKnobs)
    dit: DitKnobs = field(default_factory=DitKnobs)

    def __post_init__(self) -> None:
        if self.latents_at_once < 1:
            raise ValueError(f"latents_at_once must be at least 1, not {self.latents_at_once}")

    def settings(self) -> dict[str, str]:
        """As words, for the fingerprint."""
        own = {"latents_at_once": self.latents_at_once, "stage_by_stage": self.stage_by_stage}
        parts = {"run": own, "vae": asdict(self.vae), "dit": asdict(self.dit)}
        return {
            f"{part}.{name}": "all" if value is None else str(value)
            for part, values in parts.items()
            for name, value in values.items()
        }
