"""Noise on the weights of a network."""

from __future__ import annotations

import torch

from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.posterior import posterior_of
from ddnl_ray.seeds import SeedTree

SEED = SeedTree.root(0)


def test_no_noise_errs_like_the_network_and_much_noise_like_a_guess() -> None:
    network = Flat(build(NetworkSpec("convnet1", 4), (1, 8, 8), 4, SEED.torch(), torch.device("cpu")))
    theta = network.flatten()
    images = torch.randn(200, 1, 8, 8, generator=SEED.child("x").torch())
    labels = network(theta, images).argmax(1).detach()
    labels[:50] = (labels[:50] + 1) % 4
    weights = (torch.zeros_like(theta), theta)
    found = posterior_of(network, weights, images, labels, 7, SEED, (1e-9, 1000.0), draws=30)
    assert found.error == 0.25
    assert found.gibbs[0] == 0.25
    assert 0.6 < found.gibbs[1] < 0.9
    assert (found.num_validation, found.choices, found.sigmas) == (200, 7, (1e-9, 1000.0))
    assert torch.equal(found.end, theta)
    again = posterior_of(network, weights, images, labels, 7, SEED, (1e-9, 1000.0), draws=30)
    assert again.gibbs == found.gibbs
