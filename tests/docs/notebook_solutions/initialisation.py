import math

import torch

T, V = 3, 27  # as in the notebook

first_loss = math.log(V)
# A logit is a sum of H terms ±w and a bias, each of variance 1.
spread = math.sqrt(200 + 1)


def initial_parameters(D, H, g):
    C = torch.randn((V, D), generator=g)
    W1 = torch.randn((T * D, H), generator=g) * (5 / 3) / (T * D) ** 0.5
    W2 = torch.randn((H, V), generator=g) * 0.01
    return C, W1, torch.zeros(H), W2, torch.zeros(V)
