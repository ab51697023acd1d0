import mlpkern


def logits_of(ids, C, W1, b1, W2, b2, W3):
    x = mlpkern.embedding_gather(ids, C)  # (N, T*D)
    h = mlpkern.linear_tanh(x, W1.T, b1)  # (N, H)
    return h @ W2 + b2 + x @ W3  # (N, V)
