// See cuda_runtime.h in this folder, which has the few driver functions that library.cu calls.
#pragma once
