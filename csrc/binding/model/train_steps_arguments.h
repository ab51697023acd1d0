// The arguments of one call of train_steps: read from Python and checked.
#pragma once

#include <vector>

#include "binding/model/model_tensors.h"

namespace mlpkern {

// Keeps what `kernel` points to. mlpkern/reference/train_steps.py says what the arguments are.
struct TrainStepsArguments {
  TrainStepsArguments(const py::sequence& parameters, const std::vector<bool>& frozen,
                      const py::object& first, const py::object& second, py::handle inputs,
                      py::handle targets, py::handle batches, py::handle rates, py::handle stopped,
                      int64_t step, int64_t optimizer, double momentum, bool nesterov, double beta1,
                      double beta2, double eps, double max_grad_norm, double label_smoothing,
                      py::handle weight_decay, py::handle input_dropout, py::handle hidden_dropout,
                      py::handle seeds, py::handle streams, bool tf32);
  TrainStepsArguments(const TrainStepsArguments&) = delete;
  TrainStepsArguments& operator=(const TrainStepsArguments&) = delete;

  // IndexError for a row, id or target out of range. On a CPU only.
  void require_ids_in_range() const;

  Place place;  // the first, since the tensors set it
  ModelTensors parameters, first, second;
  Tensor inputs, targets, batches, rates, stopped;
  Tensor weight_decay, input_dropout, hidden_dropout, seeds, streams;
  TrainSteps kernel = {};

 private:
  void read_optimizer(int64_t optimizer, double momentum);
  void read_steps();

  std::vector<int64_t> hidden_;
  bool frozen_[kMostTensors];
};

}  // namespace mlpkern
