"""Nothing is left on the CPU when the model is on a GPU: every computation runs on pretended CUDA tensors.

PyTorch's fake tensors carry shape, type and device, but no numbers, and refuse to mix devices as a GPU would. So a
forgotten `.to(device)` fails here, on machines without a GPU.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode, unset_fake_temporarily

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_api.outcome import FailureReason
from restoration_api.request import ColorCorrection
from restoration_runner.errors import RestorationError
from restoration_runner.models import device as device_module
from restoration_runner.models.device import CGROUP_LIMITS, host_memory_bytes, prepare_device, use_device
from restoration_runner.models.restorer import ConditionNoise
from restoration_runner.models.seedvr2 import checkpoint
from restoration_runner.models.seedvr2.folder import read_folder
from restoration_runner.models.seedvr2.networks import NetworkPath
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.restoration.resize import pad_to_alignment, resize
from restoration_runner.restoration.transfer import TRANSFERS, blend
from restoration_runner.video.colour import to_yuv420p10
from tests.builders.models import write_tiny_model
from tests.model import check_networks, check_rules, comparing, fixtures
from tests.model.comparing import Measured, Place

CUDA = torch.device("cuda:0")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FOLDER = Path(__file__).parent / "fixtures_data"
SMALLEST = {
    case.kind: case
    for case in sorted(fixtures.read_cases(FOLDER), key=lambda c: -(c.folder / c.entry["file"]).stat().st_size)
}
COLOR = ColorFacts(
    matrix="bt709", primaries="bt709", transfer="bt709", range=ColorRange.LIMITED, chroma_location="left"
)


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def read_for_real(path: Path, device: str = "cpu") -> dict[str, Tensor]:
        with unset_fake_temporarily():
            tensors = load_file(path)
        return {name: tensor.to(device) for name, tensor in tensors.items()} if device != "cpu" else tensors

    for module in (checkpoint, comparing):
        monkeypatch.setattr(module, "load_file", read_for_real)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device=None: None)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


@pytest.mark.parametrize(("device", "made_current"), [("cuda", []), ("cuda:0", [0]), ("cuda:1", [1]), ("cpu", [])])
def test_a_gpu_with_a_number_becomes_the_current_one(
    monkeypatch: pytest.MonkeyPatch, device: str, made_current: list[int]
) -> None:
    """Kernels start, and page-locked memory is made, on the thread's current GPU: the first one unless told."""
    current: list[int] = []
    pretend_gpus(monkeypatch, 2, current)
    use_device(prepare_device(device))
    assert current == 2 * made_current


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2, [])
    with pytest.raises(RestorationError, match=r"cuda:2: CUDA finds 2 GPU") as caught:
        prepare_device("cuda:2")
    assert caught.value.reason is FailureReason.GPU_FAULT


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int, current: list[int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index))
    monkeypatch.setattr(device_module, "keep_freed_memory", lambda: None)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (("", ""), 32_000 * 1024),
        (("max\n", ""), 32_000 * 1024),
        (("4096000\n", ""), 4_096_000),
        (("", "9223372036854771712\n"), 32_000 * 1024),  # what the first version says where there is no limit
        (("", "8192000\n"), 8_192_000),
    ],
)
def test_the_host_s_memory_is_the_container_s(tmp_path: Path, limits: tuple[str, str], expected: int) -> None:
    assert host_memory_bytes(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemFree:  1 kB\nMemTotal:       32000 kB\nMemAvailable: 2 kB\n")
    for file, text in zip(CGROUP_LIMITS, limits, strict=True):
        if text:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
    assert host_memory_bytes(tmp_path) == expected


def test_pretended_tensors_refuse_to_mix(pretended_gpu: None) -> None:
    with pytest.raises(FakeTensorDeviceMismatchError):
        torch.ones(3, device=CUDA) + torch.ones(3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_restoration_stays_on_its_device(tmp_path: Path, pretended_gpu: None, dtype: torch.dtype) -> None:
    model = read_folder(write_model_for_real(tmp_path), device=CUDA, dtype=dtype)
    # The fast path's kernels need a GPU to be launched on.
    restorer = SeedVr2Restorer(model, device=CUDA, dtype=dtype, path=NetworkPath.PLAIN)
    (work,) = scene_segments(start=0, frames=9, window=3, overlap=1, per_segment=9, encoder_warmup=1, decoder_warmup=1)
    frames = iter([torch.zeros(3, 32, 32, device=CUDA)] * 9)
    noise = ConditionNoise(strength=0.2, window_latents=3)
    made = list(restorer.restore(work, frames, seed=0, condition_noise=noise))
    assert len(made) == 9
    assert {(frame.device, frame.dtype, tuple(frame.shape)) for frame in made} == {(CUDA, torch.float32, (3, 32, 32))}


def write_model_for_real(folder: Path) -> Path:
    with unset_fake_temporarily():
        return write_tiny_model(folder)


@pytest.mark.parametrize("correction", ColorCorrection)
def test_finishing_a_frame_stays_on_its_device(pretended_gpu: None, correction: ColorCorrection) -> None:
    small = torch.rand(3, 24, 30, device=CUDA)
    resized = resize(small, (48, 60))
    assert pad_to_alignment(resized).device == CUDA
    picture = blend(TRANSFERS[correction](torch.rand(3, 48, 60, device=CUDA), resized), resized, 0.5)
    assert picture.device == CUDA
    assert all(plane.device.type in ("cuda", "cpu") for plane in to_yuv420p10(picture, COLOR))


NETWORKS = ("dit3b", "dit7b", "vae", "pipeline")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, dtype) for kind in SMALLEST for dtype in (DTYPES[:2] if kind in NETWORKS else DTYPES[:1])],
)
def test_the_fixture_program_stays_on_its_device(
    monkeypatch: pytest.MonkeyPatch, pretended_gpu: None, kind: str, dtype: torch.dtype
) -> None:
    """The program itself will first meet a GPU on somebody else's machine."""
    compared: list[str] = []

    def note(what: str, actual: Tensor, expected: Tensor, allowed: float) -> Measured:
        assert actual.shape == expected.shape
        compared.append(what)
        return Measured(what, 0.0, allowed)

    for module in (comparing, check_networks, check_rules):
        for name in ("compare", "compare_relative"):
            monkeypatch.setattr(module, name, note, raising=False)
    monkeypatch.setattr(Tensor, "item", lambda _self: 1.0)  # there are no numbers
    case = SMALLEST[kind]
    result = fixtures.run_case(case, Place(CUDA, dtype))
    assert result.problem is None
    assert compared or case.entry["file"].endswith(".json")
