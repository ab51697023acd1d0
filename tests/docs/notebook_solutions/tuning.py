from mlpkern import lm

# AdamW, a longer context, and a rate that falls to 0.
config = lm.TrainConfig(
    block_size=6,
    embedding_dim=24,
    hidden=200,
    batch_size=64,
    steps=4_000,
    lr=0.004,
    schedule="cosine",
    warmup=100,
    optimizer="adamw",
    weight_decay=0.05,
)
