// The arguments of one call of train_steps: read from Python and checked.
#pragma once

#include <vector>

#include "binding/model/model_tensors.h"
#include "binding/model/record.h"

namespace mlpkern {

// Keeps what `kernel` points to. `record` is a TrainingArguments of mlpkern/mlp/
// training_arguments.py, which says what the arguments are.
struct TrainStepsArguments {
  TrainStepsArguments(py::handle record, bool tf32);
  TrainStepsArguments(const TrainStepsArguments&) = delete;
  TrainStepsArguments& operator=(const TrainStepsArguments&) = delete;

  // IndexError for a row, id or target out of range. On a CPU only.
  void require_ids_in_range() const;

  Place place;  // the first, since the tensors set it
  Record record;
  ModelTensors parameters, first, second;
  Tensor inputs, targets, batches, rates, stopped;
  Tensor weight_decay, input_dropout, hidden_dropout, seeds, streams;
  TrainSteps kernel = {};

 private:
  void read_frozen();
  void read_rule();
  void read_steps();

  std::vector<int64_t> hidden_;
  bool frozen_[kMostTensors];
};

}  // namespace mlpkern
