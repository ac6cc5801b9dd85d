"""The models this runner knows by name: where their files lie, at which commit, and what their bytes hash to.

The 3B and 7B networks were released as pickled fp32 checkpoints (`.pth`) with a shared VAE and one embedded prompt;
the community redistributes the same values rounded to fp16 as safetensors. Commits and digests are those that the hub
states for its large files (LFS object ids); a file with other bytes is refused whoever serves it.
"""

from dataclasses import dataclass

from restoration_runner.models.seedvr2.config import MODELS
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule


@dataclass(frozen=True)
class HubFile:
    """One file of a Hugging Face repository. revision: a commit, so that nobody can change what a name means."""

    repository: str
    revision: str
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that `pull` fetches and converts. architecture: a key of `models.seedvr2.config.MODELS`."""

    name: str
    architecture: str
    dit: HubFile
    vae: HubFile
    text: HubFile
    summary: str
    licence: str = "Apache-2.0"

    @property
    def files(self) -> tuple[HubFile, ...]:
        return (self.dit, self.vae, self.text)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


_OFFICIAL_3B = ("ByteDance-Seed/SeedVR2-3B", "37255ff8cccfb01071b87f635a5948ca8d53117c")
_OFFICIAL_7B = ("ByteDance-Seed/SeedVR2-7B", "eb0c4281d41ba3767d4f14370f0e37e9e9180c16")
_COMMUNITY = ("numz/SeedVR2_comfyUI", "09ced71023636e9bc8cdf9cdecfb2625d1e691e8")

_VAE = HubFile(
    *_OFFICIAL_3B, "ema_vae.pth", 1_002_691_902, "c7df8a67e68b7f9aca3d5d2153d2ce8ab4373687741a0f9ce87cb356ace51cac"
)
_VAE_FP16 = HubFile(
    *_COMMUNITY,
    "ema_vae_fp16.safetensors",
    501_324_814,
    "20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
)
_TEXT = HubFile(
    *_OFFICIAL_3B, "pos_emb.pt", 595_100, "fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799"
)


def _official(name: str, architecture: str, dit: HubFile, summary: str) -> KnownModel:
    return KnownModel(name=name, architecture=architecture, dit=dit, vae=_VAE, text=_TEXT, summary=summary)


def _community(name: str, architecture: str, file: str, size_bytes: int, sha256: str) -> KnownModel:
    dit = HubFile(*_COMMUNITY, file, size_bytes, sha256)
    summary = "the same values rounded to fp16, half the download"
    return KnownModel(name=name, architecture=architecture, dit=dit, vae=_VAE_FP16, text=_TEXT, summary=summary)


KNOWN: dict[str, KnownModel] = {
    model.name: model
    for model in (
        _official(
            "seedvr2-3b",
            "seedvr2-3b",
            HubFile(
                *_OFFICIAL_3B,
                "seedvr2_ema_3b.pth",
                13_566_090_228,
                "6bcc5ac59447e97b100477480aebb01be2ec724c8340bb83faae21f64848604b",
            ),
            "SeedVR2 3B as released",
        ),
        _community(
            "seedvr2-3b-fp16",
            "seedvr2-3b",
            "seedvr2_ema_3b_fp16.safetensors",
            6_783_018_808,
            "2fd0e03a3dad24e07086750360727ca437de4ecd456f769856e960ae93e2b304",
        ),
        _official(
            "seedvr2-7b",
            "seedvr2-7b",
            HubFile(
                *_OFFICIAL_7B,
                "seedvr2_ema_7b.pth",
                32_958_774_606,
                "e1b2ae25505607e61f2a7dc7967ba778aaf3e3626d9969ce6e24c52d9ddebfcd",
            ),
            "SeedVR2 7B as released",
        ),
        _community(
            "seedvr2-7b-fp16",
            "seedvr2-7b",
            "seedvr2_ema_7b_fp16.safetensors",
            16_479_334_424,
            "7b8241aa957606ab6cfb66edabc96d43234f9819c5392b44d2492d9f0b0bbe4a",
        ),
        _official(
            "seedvr2-7b-sharp",
            "seedvr2-7b",
            HubFile(
                *_OFFICIAL_7B,
                "seedvr2_ema_7b_sharp.pth",
                32_958_774_606,
                "ced5706c976d5879efcab9e108349d67abcbd8a9b36a1f48bf0f19c24164a264",
            ),
            "a second 7B weight set with crisper detail, as released",
        ),
        _community(
            "seedvr2-7b-sharp-fp16",
            "seedvr2-7b",
            "seedvr2_ema_7b_sharp_fp16.safetensors",
            16_479_334_424,
            "20a93e01ff24beaeebc5de4e4e5be924359606c356c9c51509fba245bd2d77dd",
        ),
    )
}


def released_description(name: str, architecture: str) -> ModelDescription:
    """`model.json` of a released network: its encoder's distribution is sampled, its warm-ups are the defaults."""
    config = MODELS[architecture]
    return ModelDescription(name=name, posterior=PosteriorRule.SAMPLE, dit=config.dit, vae=config.vae)
