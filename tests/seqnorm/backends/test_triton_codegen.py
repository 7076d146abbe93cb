"""Code of the Triton kernels for sm_90, compiled without a GPU: registers and width of accesses."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from seqnorm.backends.plan import Plan

triton = pytest.importorskip("triton", reason="Triton is not installed")

from seqnorm.backends.triton import fold, job, launch  # noqa: E402

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)
# How many tensors of the size of x a kernel reads and writes, besides the residual.
TRAFFIC = {
    "forward_sets": (1, 1),
    "forward_tiles": (1, 1),
    "moments_of_tiles": (1, 0),
    "sums_of_tiles": (2, 0),
    "backward_sets": (2, 1),
    "backward_positions": (2, 1),
    "backward_tiles": (2, 1),
}


class Hopper:
    """Stands in for the driver of a device that need not be there."""

    def get_current_device(self) -> str:
        # Not a number: code for this target must not be taken for that of a device.
        return "sm_90"

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)


@pytest.fixture(autouse=True)
def hopper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    before = dict(vars(triton.runtime.driver))
    triton.runtime.driver.set_active(Hopper())
    yield
    vars(triton.runtime.driver).update(before)


@dataclass
class Code:
    """One compiled kernel and how it was launched."""

    kernel: str
    numbers: int
    warps: int
    ptx: str
    cubin: bytes

    def count(self, instruction: str, bits: int) -> int:
        """Accesses of a width to global memory, ``instruction`` being ld or st."""
        found = re.findall(rf"\b{instruction}\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)", self.ptx)
        return sum(int(vector or 1) * int(width) == bits for vector, width in found)

    def stack(self, folder: Path) -> int:
        """Bytes of the stack: there are some where registers spill."""
        path = folder / "kernel.cubin"
        path.write_bytes(self.cubin)
        done = subprocess.run(
            [cuobjdump(), "--dump-resource-usage", path], capture_output=True, text=True, check=True
        )
        found = re.search(r"STACK:(\d+)", done.stdout)
        assert found is not None, done.stdout
        return int(found[1])


def cuobjdump() -> str:
    ours = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    path = str(ours) if ours.exists() else shutil.which("cuobjdump")
    if path is None:
        pytest.skip("cuobjdump is not installed")
    return path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Code]:
    """Every launch compiles as it would on the device, and appends to this list."""
    codes: list[Code] = []

    def compile_only(kernel: Any, programs: int, warps: int, *args: Any, **kw: Any) -> None:
        code = kernel.warmup(*args, grid=(programs,), num_warps=warps, enable_fp_fusion=True, **kw)
        numbers = kw["BC"] * kw["BL"] if "BC" in kw else 0
        name = kernel.fn.__name__
        codes.append(Code(name, numbers, warps, code.asm["ptx"], code.asm["cubin"]))

    for module in (job, fold):
        monkeypatch.setattr(module, "launch", compile_only)
    return codes


def normalize(
    over: str, layout: str, channels: int, length: int, dtype: torch.dtype, *,
    samples: int = 8, groups: int = 1, valid: str | None = None, activation: str | None = None,
    residual: bool = False,
) -> None:  # fmt: skip
    """Forward and backward on tensors without memory."""
    size = (samples, channels, length) if layout == "NCL" else (samples, length, channels)

    def empty(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    x = empty(*size, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = (empty(channels, dtype=wide) for _ in range(2))
    lengths = empty(samples, dtype=torch.int64)
    mask = empty(samples, length, dtype=torch.bool)
    chosen = {None: None, "lengths": lengths, "mask": mask}[valid]
    added = torch.empty_like(x) if residual else None
    plan = Plan(over, layout, groups, activation=activation)
    _, mean, var = launch.forward(x, chosen, weight, bias, added, None, None, plan)
    launch.backward(x, x, mean, var, chosen, weight, bias, added, plan, False)


F32, BF16 = torch.float32, torch.bfloat16
# Lengths and channels in whole vectors of 16 bytes, most of them no multiples of 16.
WIDE: list[Any] = [
    pytest.param("L", "NCL", 256, 1000, F32, {"valid": "lengths"}, id="instance"),
    pytest.param("L", "NCL", 64, 20_000, BF16, {}, id="instance-long"),
    pytest.param("L", "NLC", 100, 200, F32, {"valid": "mask"}, id="instance-last"),
    pytest.param("CL", "NCL", 64, 1000, F32, {"groups": 8, "valid": "lengths"}, id="group"),
    pytest.param("CL", "NCL", 256, 1000, BF16, {"valid": "mask"}, id="layer-seq"),
    pytest.param("CL", "NLC", 256, 1000, F32, {"valid": "lengths"}, id="layer-seq-last"),
    pytest.param("NL", "NCL", 256, 200, F32, {"valid": "lengths"}, id="batch"),
    pytest.param("NL", "NCL", 512, 24, BF16, {"activation": "relu"}, id="batch-short"),
    pytest.param("NL", "NLC", 256, 200, F32, {}, id="batch-last"),
    pytest.param("C", "NCL", 64, 1000, F32, {"valid": "lengths"}, id="layer-first"),
    pytest.param("C", "NCL", 256, 1000, BF16, {"valid": "mask"}, id="layer-first-wide"),
    pytest.param("C", "NCL", 2048, 1000, F32, {}, id="layer-first-cut"),
    pytest.param("C", "NLC", 256, 1001, F32, {"valid": "lengths"}, id="layer"),
    pytest.param("C", "NLC", 1000, 1001, BF16, {}, id="layer-wide"),
    pytest.param(
        "C", "NLC", 768, 1001, BF16, {"activation": "gelu", "residual": True}, id="layer-residual"
    ),
    pytest.param(
        "NL", "NCL", 128, 1000, F32,
        {"activation": "gelu", "residual": True, "valid": "lengths"}, id="batch-residual",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("over", "layout", "channels", "length", "dtype", "options"), WIDE)
def test_registers_do_not_spill_and_memory_is_moved_by_128_bits(
    over: str, layout: str, channels: int, length: int, dtype: torch.dtype,
    options: dict[str, Any], compiled: list[Code], tmp_path: Path,
) -> None:  # fmt: skip
    normalize(over, layout, channels, length, dtype, **options)
    assert {"forward", "backward"} <= {code.kernel.split("_")[0] for code in compiled}
    for code in compiled:
        assert code.stack(tmp_path) == 0, code.kernel
        if code.kernel not in TRAFFIC:
            continue
        reads, writes = TRAFFIC[code.kernel]
        if options.get("residual") and code.kernel != "moments_of_tiles":
            reads, writes = reads + 1, writes + (code.kernel.startswith("backward"))
        vectors = code.numbers * dtype.itemsize // 16 // (32 * code.warps)
        assert vectors > 0
        assert code.count("ld", 128) >= reads * vectors, code.kernel
        assert code.count("st", 128) >= writes * vectors, code.kernel
        # Nothing else is in 16 bits.
        assert code.count("ld", 16) == code.count("st", 16) == 0, code.kernel


@pytest.mark.parametrize(("length", "bits"), [(998, 64), (999, 32)])
def test_other_lengths_are_moved_by_what_divides_them(
    length: int, bits: int, compiled: list[Code], tmp_path: Path
) -> None:
    normalize("L", "NCL", 64, length, F32, valid="lengths")
    for code in compiled:
        reads, writes = TRAFFIC[code.kernel]
        accesses = code.numbers * 32 // bits // (32 * code.warps)
        assert code.count("ld", bits) >= reads * accesses, code.kernel
        assert code.count("st", bits) >= writes * accesses, code.kernel
        assert code.stack(tmp_path) == 0, code.kernel


@pytest.mark.parametrize("over", ["L", "C", "CL", "NL"])
def test_float64_compiles(over: str, compiled: list[Code], tmp_path: Path) -> None:
    normalize(over, "NCL", 64, 100, torch.float64, valid="lengths", activation="gelu")
    for code in compiled:
        assert code.stack(tmp_path) == 0, code.kernel


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize("over", ["L", "C", "CL"])
def test_the_code_does_not_depend_on_the_number_of_samples(
    over: str, layout: str, compiled: list[Code]
) -> None:
    found = []
    for samples in (1, 3, 16):
        compiled.clear()
        normalize(over, layout, 48, 400, F32, samples=samples, valid="lengths")
        found.append([(code.kernel, code.ptx) for code in compiled])
    assert found[0] == found[1] == found[2]
