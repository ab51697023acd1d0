"""One model in training: the engines, the loop, the evaluation."""
