"""Noise is a function of seed, purpose and frame, and its bits never change."""

import hashlib
import math

import numpy as np
import pytest
import torch

from restoration_runner.restoration.noise import Purpose, normal

SHAPE = (46, 80, 16)


@pytest.mark.parametrize(
    ("seed", "purpose", "frame", "digest"),
    [
        (0, Purpose.POSTERIOR, 0, "0f869aee4ef422e8acc08fe0f28e9347eb511a8551f436752450448be43e90a8"),
        (0, Purpose.NOISE, 0, "7e0529fcf448f81e02daabf90043b0d938897db8be210702b463b600372f172e"),
        (0, Purpose.AUGMENTATION, 0, "7780c27ba46e68cccc3400e0c593f27cf8ba492a6828d3c32fe60febf43f0603"),
        (0, Purpose.NOISE, 4, "fe2fd134e44eaf981c071abf683a85ca6a955644975b81adc81ee7c4cbb184d1"),
        (2**63 - 1, Purpose.NOISE, 10**6, "aeac9e3e1f3ed122fb9c519c253218038903098dbb02e99440c744a3a8ea856b"),
    ],
)
def test_golden_bits(seed: int, purpose: Purpose, frame: int, digest: str) -> None:
    drawn = normal(seed, purpose, frame, SHAPE)
    assert drawn.dtype == torch.float32
    assert hashlib.sha256(drawn.numpy().tobytes()).hexdigest() == digest


def test_words_are_philox4x64() -> None:
    """Known answer of the published generator for counter 0 and key 0; numpy counts up before it draws."""
    words = np.random.Philox(key=0, counter=2**256 - 1).random_raw(4)
    assert [hex(word) for word in words] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]


def test_is_standard_normal() -> None:
    z = normal(7, Purpose.NOISE, 3, (1_000_001,)).double()
    assert abs(z.mean().item()) < 4e-3
    assert abs(z.std().item() - 1) < 3e-3
    assert abs((z**4).mean().item() - 3) < 3e-2
    for limit in (0.5, 1.0, 2.0, 3.0):
        expected = math.erfc(limit / math.sqrt(2))
        assert abs((z.abs() > limit).double().mean().item() - expected) < 2e-3


def test_neighbouring_draws_are_independent() -> None:
    draws = [normal(s, p, f, (100_000,)) for s in (0, 1) for p in Purpose for f in (0, 4, 8)]
    correlation = torch.corrcoef(torch.stack(draws))
    assert (correlation - torch.eye(len(draws))).abs().max().item() < 0.015


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert torch.equal(normal(1, Purpose.NOISE, 2, (7,)), normal(1, Purpose.NOISE, 2, (64,))[:7])
