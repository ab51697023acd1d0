// The tensors that training only reads (TrainSteps::frozen), and how far down the backward pass
// must go for the others.
#pragma once

#include <cstdint>

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

struct Frozen {
  const bool* tensors;  // in the order of MLP::parameters; null: none is frozen
  int64_t L;

  bool embedding() const { return at(0); }
  bool weight(int64_t l) const { return at(1 + 2 * l); }
  bool bias(int64_t l) const { return at(2 + 2 * l); }
  bool layer(int64_t l) const { return weight(l) && bias(l); }
  bool part_of(int64_t l) const { return weight(l) != bias(l); }
  bool part_of_any() const {
    bool any = false;
    for (int64_t l = 0; l <= L; ++l) any |= part_of(l);
    return any;
  }
  // The lowest layer whose dz a trained tensor needs; L + 1 where nothing is trained.
  int64_t lowest_dz() const {
    int64_t l = 0;
    if (embedding())
      while (l <= L && layer(l)) ++l;
    return l;
  }

 private:
  bool at(int64_t i) const { return tensors && tensors[i]; }
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
