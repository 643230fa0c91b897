"""IDM and DANCE one class after the other, as the released codes work: what ``matching.py`` measures beside ours."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddnl_ray.data import Normalise
from ddnl_ray.data.augment import DiffAug, Draw
from ddnl_ray.data.dsa import Dsa
from ddnl_ray.distill import Problem
from ddnl_ray.distill.classwise import draw_rows, observed_pools
from ddnl_ray.distill.dance import DanceConfig
from ddnl_ray.distill.idm import IdmConfig, IdmState
from ddnl_ray.experts.buffer import ArrayExperts
from ddnl_ray.models import Flat, NetworkSpec, build
from ddnl_ray.seeds import SeedTree

FINAL = 60
SEED = SeedTree.root(0)


class Work:
    """Random images, networks and experts; a problem for our methods, and what the loops need of it."""

    def __init__(self, options: argparse.Namespace, dtype: torch.dtype = torch.float32) -> None:
        generator = SEED.child("data").torch()
        self.device, self.ipc = torch.device(options.device), options.ipc
        self.shape = (3, options.size, options.size)
        self.spec, self.classes = NetworkSpec(f"convnet{options.depth}", options.width), options.classes
        self.network = Flat(self.module(SEED.child("network"), dtype))
        images = torch.randn(options.images, *self.shape, generator=generator).to(self.device, dtype)
        labels = (torch.arange(options.images) % options.classes).to(self.device)
        self.stored = torch.rand(options.classes * options.ipc, *self.shape, generator=generator).to(images)
        weights = [0.05 * torch.randn(2, self.network.num_params, generator=generator) for _ in range(options.experts)]
        self.experts = ArrayExperts([each.numpy() for each in weights], (0, FINAL), FINAL)
        transform = Normalise(torch.full((3,), 0.5), torch.full((3,), 0.25)).to(self.device)
        self.problem = Problem(
            images, labels, options.classes, options.ipc, self.network, Dsa(), self.experts, transform=transform
        )
        self.pools = observed_pools(self.problem)
        self.queue = options.networks

    def module(self, seed: SeedTree, dtype: torch.dtype = torch.float32) -> Any:
        """Return a network of the work's form."""
        return build(self.spec, self.shape, self.classes, seed.torch(), self.device).to(dtype)

    def thetas(self) -> Tensor:
        """Return the weights of the networks in IDM's queue [Q, P]."""
        generator = SEED.child("queue").torch()
        return torch.stack([self.network.fresh(generator) for _ in range(self.queue)]).to(self.stored)

    def idm_state(self) -> IdmState:
        """Return a state between two new networks, all of which were right about 40 % of what they saw."""
        thetas, ones = self.thetas(), torch.ones(self.queue, dtype=torch.int64, device=self.device)
        return IdmState(1, self.stored, thetas, torch.zeros_like(thetas), 40 * ones, 100 * ones)


def expanded(stored: Tensor) -> Tensor:
    """Return the quarters of stored images [n, C, H, H], each enlarged [4 * n, C, H, H]."""
    half = stored.shape[-1] // 2
    columns = (stored[..., :half], stored[..., half:])
    quarters = torch.cat([piece for column in columns for piece in (column[:, :, :half], column[:, :, half:])])
    return F.interpolate(quarters, scale_factor=2, mode="bilinear", align_corners=False)


def loaded(module: nn.Module, network: Flat, theta: Tensor) -> None:
    """Give a network the weights [P]."""
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), network.unflatten(theta).values(), strict=True):
            parameter.copy_(value)


class IdmLoop:
    """IDM, one class after the other."""

    def __init__(self, work: Work, config: IdmConfig) -> None:
        self.work, self.config, self.generator = work, config, SEED.child("loop").torch()
        self.stored = work.stored.clone().requires_grad_()
        self.optimizer = torch.optim.SGD([self.stored], lr=config.lr_img, momentum=config.momentum)
        self.modules = [work.module(SEED, work.stored.dtype) for _ in range(work.queue)]
        for module, theta in zip(self.modules, work.thetas(), strict=True):
            loaded(module, work.network, theta)
        self.optimizers = [
            torch.optim.SGD(each.parameters(), config.lr_net, config.net_momentum, weight_decay=config.net_weight_decay)
            for each in self.modules
        ]
        self.correct, self.seen = [40] * work.queue, [100] * work.queue

    def loss(self, module: Any, label: int, rows: Tensor, draw: Draw, weight: float) -> Tensor:
        """Return the loss of a class for given draws."""
        work, augment = self.work, self.work.problem.augment
        assert augment is not None
        own = expanded(self.stored[label * work.ipc : (label + 1) * work.ipc])
        real, own = augment.apply(work.problem.images[rows], draw), augment.apply(own, draw)
        target = module.features(real).detach()
        gap = (target.mean(0) - module.features(own).mean(0)).square().sum()
        labels = torch.full((len(own),), label, device=work.device)
        loss: Tensor = gap + weight * F.cross_entropy(module(own), labels)
        return loss

    def images(self) -> None:
        """Move the images."""
        index = int(torch.randint(len(self.modules), (), generator=self.generator))
        weight = self.config.ce_weight * 100 * self.correct[index] / self.seen[index]
        for label, pool in enumerate(self.work.pools):
            (rows,) = draw_rows([pool], self.config.batch_real, self.generator)
            draw = Dsa().draw(self.generator, 1, self.work.shape[-1], self.work.device, siamese=True)
            loss = self.loss(self.modules[index], label, rows, draw, weight)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def train(self, index: int, generator: torch.Generator) -> None:
        """Train one network."""
        module, problem = self.modules[index], self.work.problem
        for _ in range(self.config.model_train_steps):
            rows = torch.randperm(len(problem.images), generator=generator)[: self.config.batch_train]
            rows = rows.to(self.work.device)
            logits, labels = module(problem.images[rows]), problem.labels[rows]
            self.optimizers[index].zero_grad()
            F.cross_entropy(logits, labels).backward()
            self.optimizers[index].step()
            self.correct[index] += int((logits.argmax(1) == labels).sum())
            self.seen[index] += len(rows)

    def networks(self) -> None:
        """Train as many networks as are fetched."""
        order = torch.randperm(len(self.modules), generator=self.generator)
        for index in order[: self.config.fetch_net_num].tolist():
            self.train(index, self.generator)

    def iteration(self) -> None:
        """Do both."""
        self.images()
        self.networks()


class DanceLoop:
    """DANCE, one class after the other."""

    def __init__(self, work: Work, config: DanceConfig) -> None:
        self.work, self.config, self.generator = work, config, SEED.child("loop").torch()
        assert config.augment is not None
        self.augment: DiffAug = config.augment
        self.stored = work.stored.clone().requires_grad_()
        rate = config.lr_img * work.ipc / 10
        self.optimizer = torch.optim.SGD([self.stored], lr=rate, momentum=config.momentum)
        self.between, self.final = (work.module(SEED, work.stored.dtype) for _ in range(2))

    def sample(self, label: int) -> Tensor:
        """Return the training images that a class has in one view, as networks see them."""
        work = self.work
        own = expanded(self.stored[label * work.ipc : (label + 1) * work.ipc])
        if len(own) > self.config.batch_syn_max:
            own = own[torch.randperm(len(own), generator=self.generator)[: self.config.batch_syn_max]]
        assert work.problem.transform is not None
        return work.problem.transform.apply(own)

    def match(self, label: int, rows: Tensor, draw: Any) -> Tensor:
        """Return the loss of a class in the inner-class view for given draws."""
        images = torch.cat([self.work.problem.images[rows], self.sample(label)])
        real, own = self.augment.apply(images, draw).split([len(rows), len(images) - len(rows)])
        with torch.no_grad():
            target = self.between.features(real).mean(0)
        loss: Tensor = (self.between.features(own).mean(0) - target).square().sum()
        return loss

    def calibrate(self, label: int, draw: Any) -> Tensor:
        """Return the loss of a class in the inter-class view for a given draw."""
        logits = self.final(self.augment.apply(self.sample(label), draw))
        labels = torch.full((len(logits),), label, device=self.work.device)
        return F.cross_entropy(logits, labels)

    def iteration(self) -> None:
        """Move the images in both views of one expert."""
        work = self.work
        expert = int(torch.randint(len(work.experts), (), generator=self.generator))
        first, last = (work.experts.snapshot(expert, epoch).to(work.stored) for epoch in (0, FINAL))
        share = float(torch.rand((), generator=self.generator))
        loaded(self.between, work.network, share * first + (1 - share) * last)
        loaded(self.final, work.network, last)
        self.stored.data.clamp_(0, 1)
        for calibrates in (False, True):
            for label, pool in enumerate(work.pools):
                draw = self.augment.draw(self.generator, 1, work.shape[-1], work.device, siamese=True)
                if calibrates:
                    loss = self.calibrate(label, draw)
                else:
                    (rows,) = draw_rows([pool], self.config.batch_real, self.generator)
                    loss = self.match(label, rows, draw)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
