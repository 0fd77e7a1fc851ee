from .choice import Engine, Execution, choose_engine, executor
from .executors import CACHE_BYTES, Executor, Prepared, ScriptExecutor, rows_in_cache
from .gpu import gpu_identity, gpu_shortage, torch_cuda
from .gpu_errors import GPU_MESSAGES, GpuMessage, GpuTrouble, gpu_trouble
from .native import NativeExecutor, native_executor
from .switches import denormals_flushed, in_repeatable_float32, repeatable_float32, tf32_allowed

__all__ = [
    "CACHE_BYTES",
    "GPU_MESSAGES",
    "Engine",
    "Execution",
    "Executor",
    "GpuMessage",
    "GpuTrouble",
    "NativeExecutor",
    "Prepared",
    "ScriptExecutor",
    "choose_engine",
    "denormals_flushed",
    "executor",
    "gpu_identity",
    "gpu_shortage",
    "gpu_trouble",
    "in_repeatable_float32",
    "native_executor",
    "repeatable_float32",
    "rows_in_cache",
    "tf32_allowed",
    "torch_cuda",
]
