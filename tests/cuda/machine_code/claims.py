"""The claims of the kernels about their machine code: rules of sass_lint.REQUIRED, or "allow" and
a rule that they may break. The patterns are those of fnmatch, over the names in budget.json; the
last match counts.
"""

# Losses are added in float64; a mean divides once per block or row, and a gradient compares.
SUMS = {"allow float64"}
COPY = {"loads128", "stores128"}

CLAIMS: list[tuple[str, set[str]]] = [
    ("cross_entropy_combine_kernel<*>", SUMS),
    ("cross_entropy_finish_kernel<*>", SUMS),
    ("cross_entropy_mass_kernel<*>", SUMS | {"loads128"}),
    ("cross_entropy_weight_sum_kernel<*>", SUMS),
    ("cross_entropy_rows_forward_kernel<*>", SUMS | {"loads128", "exp2"}),
    ("cross_entropy_rows_forward_kernel<double, *>", {"loads128"}),
    ("cross_entropy_rows_backward_kernel<*>", SUMS | COPY | {"exp2"}),
    ("cross_entropy_rows_backward_kernel<double, *>", COPY),
    ("cross_entropy_tile_forward_kernel<*>", SUMS | {"loads128", "exp2"}),
    ("cross_entropy_tile_forward_kernel<double*>", {"loads128"}),
    ("cross_entropy_tile_backward_kernel<*>", SUMS | COPY | {"exp2"}),
    ("cross_entropy_tile_backward_kernel<double*>", COPY),
    # <index type, bytes that are read at once, bytes that are written at once>
    ("embedding_gather_forward_kernel<*>", set()),
    ("embedding_gather_forward_kernel<*, 16>", {"stores128"}),
    ("embedding_gather_forward_kernel<*, 16, 16>", COPY),
    # <type, ..., columns of a thread>
    ("embedding_gather_backward_small_kernel<*>", set()),
    ("embedding_gather_backward_small_sum_kernel<*>", set()),
    ("embedding_gather_backward_keys_kernel<*>", set()),
    ("embedding_gather_backward_segments_kernel<*>", set()),
    ("embedding_gather_backward_segments_kernel<*16, *, 8>", COPY),
    ("embedding_gather_backward_segments_kernel<float, *, 4>", COPY),
    ("embedding_gather_backward_segments_kernel<double, *, 2>", COPY),
    ("embedding_gather_backward_runs_kernel<*>", {"loads128"}),
    # <operands, 0 forward or 1 dinput or 2 dweight, tiling>
    ("linear_tanh_product_kernel<Tf32, [01], *>", {"copies128", "ldmatrix", "mma tf32"}),
    ("linear_tanh_product_kernel<Split, [01], *>", {"copies128", "ldmatrix", "mma tf32"}),
    # Two operands that lie across the reduction: ldmatrix turns 16-bit elements only.
    ("linear_tanh_product_kernel<Tf32, 2, *>", {"copies128", "mma tf32"}),
    ("linear_tanh_product_kernel<Split, 2, *>", {"copies128", "mma tf32"}),
    ("linear_tanh_product_kernel<Half<bf16>, *>", {"copies128", "ldmatrix", "mma bf16"}),
    ("linear_tanh_product_kernel<Half<f16>, *>", {"copies128", "ldmatrix", "mma f16"}),
    # <operands>: the sum of losses and the constants of dropout are float64
    ("train_steps_block_kernel<*>", SUMS | {"mma tf32"}),
    ("train_steps_narrow_kernel<*>", SUMS | {"mma tf32", "shared128", "copies128"}),
    ("train_steps_constants_kernel", {"allow float64"}),  # once a step, for all of its threads
    ("evaluate_kernel<*>", SUMS | {"mma tf32"}),
    ("evaluate_mean_kernel", SUMS),
    ("linear_tanh_plain_kernel<*>", {"allow float64"}),  # only for float64
    ("linear_tanh_pieces_kernel<*>", set()),
    # <type, adjacent elements of a thread>
    ("linear_tanh_slope_kernel<*, 1>", set()),
    ("linear_tanh_slope_kernel<*, [248]>", COPY),
    ("linear_tanh_epilogue_kernel<*, 1>", set()),
    ("linear_tanh_epilogue_kernel<*, [248]>", COPY),
]
