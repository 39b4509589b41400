"""Muon for every weight that is a matrix or a kernel, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MuonAndAdamW:
    """One optimiser over named parameters. Kernels [out, in, 3, 3] are taken as matrices [out, in * 9].

    Muon learns two to three times as fast here as AdamW, per step. `pace` scales all rates.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], muon: float, adamw: float, gates: float):
        named = dict(parameters)
        matrix = {n: p for n, p in named.items() if p.ndim in (2, 4) and min(p.shape[:2]) > 8}
        gate = {n: p for n, p in named.items() if n.endswith(("content_proj.bias", "log_alpha"))}
        rest = [p for n, p in named.items() if n not in matrix and n not in gate]
        self.parameters = list(named.values())
        self.matrices = list(matrix.values())
        self.flat = [nn.Parameter(p.detach().view(len(p), -1)) for p in self.matrices]  # share the memory
        self.muon = torch.optim.Muon(self.flat, lr=muon, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")
        groups = [{"params": rest, "lr": adamw}, {"params": list(gate.values()), "lr": gates}]
        self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
        self.rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> list[dict]:
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, loss: Tensor, pace: float) -> None:
        for p in self.parameters:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group, rate in zip(self._groups(), self.rates, strict=True):
            group["lr"] = rate * pace
        for flat, p in zip(self.flat, self.matrices, strict=True):
            flat.grad = None if p.grad is None else p.grad.view_as(flat)
        self.muon.step()
        self.adamw.step()
