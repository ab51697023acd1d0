// See cuda_runtime.h in this folder: it has the little of the driver that library.cu calls.
#pragma once
