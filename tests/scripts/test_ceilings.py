"""scripts/ceilings.py: operations and bytes of programs, against XLA's counts and counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import script
from jax import lax


@pytest.fixture(scope="module")
def ceilings():
    return script("ceilings")


def operations(ceilings, function, *arguments):
    return ceilings.operations(jax.make_jaxpr(jax.jit(function))(*arguments).jaxpr)


def by_xla(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_operations_of_a_convolution_and_its_gradients(ceilings, stride, groups):
    """With uneven zeros around, whose products are not counted."""
    shapes = jax.ShapeDtypeStruct((2, 9, 8, 6), "float32"), (3, 3, 6 // groups, 6)
    x, kernel = shapes[0], jax.ShapeDtypeStruct(shapes[1], "float32")

    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1), (0, 2)], None, None, names, groups
        )

    def to_x(gradient, kernel):
        return jax.linear_transpose(lambda x: convolve(x, kernel), x)(gradient)

    def to_kernel(gradient, x):
        return jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(gradient)

    y = jax.eval_shape(convolve, x, kernel)
    for function, *arguments in ((convolve, x, kernel), (to_x, y, kernel), (to_kernel, y, x)):
        assert operations(ceilings, function, *arguments) == by_xla(function, *arguments) > 0


def test_operations_of_products(ceilings):
    a, b = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))
    once = 5 * 2 * 4 * 3 * 2
    assert operations(ceilings, lambda a, b: jnp.tanh(a @ b) + 1, a, b) == once
    assert operations(ceilings, lambda a: lax.scan(lambda c, _: (c @ b[0, :, :3], None), a, length=7), a) == (
        7 * 5 * 2 * 3 * 3 * 2
    )
    assert operations(ceilings, lambda a: lax.cond(a.sum() > 0, lambda: a @ b, lambda: a @ b + a @ b), a) == (
        2 * once
    )


def test_traffic_is_that_of_xla_where_xla_knows_it(ceilings):
    @jax.jit
    def function(x, w, pixels):
        y = jnp.tanh(x @ w)
        return y.sum(axis=0), jnp.sort(y, axis=1), (pixels * np.float32(2)).astype(jnp.bfloat16)

    arguments = jnp.ones((64, 32)), jnp.ones((32, 16)), jnp.ones((7, 9), jnp.uint8)
    compiled = function.lower(*arguments).compile()
    found = ceilings.Program(compiled.as_text()).traffic()
    assert found == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.01)


PROGRAM = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%fused (p.0: f32[2,4], p.1: bf16[2,4]) -> f32[2,4] {
  %p.0 = f32[2,4]{1,0} parameter(0)
  %p.1 = bf16[2,4]{1,0} parameter(1)
  %convert.1 = f32[2,4]{1,0} convert(%p.1), metadata={op_name="jit(step)/convert"}
  ROOT %add.1 = f32[2,4]{1,0} add(%p.0, %convert.1), metadata={op_name="jit(step)/Conv_1/add"}
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %get.0 = s32[] get-tuple-element(%state), index=0
  %get.1 = f32[8]{0} get-tuple-element(%state), index=1
  %double = f32[8]{0} add(%get.1, %get.1)
  ROOT %tuple.1 = (s32[], f32[8]{0}) tuple(%get.0, %double)
}

%condition (state.1: (s32[], f32[8])) -> pred[] {
  %state.1 = (s32[], f32[8]{0}) parameter(0)
  %get.2 = s32[] get-tuple-element(%state.1), index=0
  ROOT %small = pred[] compare(%get.2, %get.2), direction=LT
}

%less (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %negate = f32[8]{0} negate(%a)
}

%more (b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(0)
  %sine = f32[8]{0} sine(%b)
  ROOT %cosine = f32[8]{0} cosine(%sine)
}

ENTRY %main.7 (x: f32[8], y: bf16[2,4]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %y = bf16[2,4]{1,0} parameter(1)
  %flag = s32[] constant(0)
  %flat = f32[2,4]{1,0} bitcast(%x)
  %conv = (f32[2,4]{1,0}, u8[4096]{0}) custom-call(%flat, %y), custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(step)/Conv_0/conv"}, backend_config={"force_earliest_schedule":false}
  %out = f32[2,4]{1,0} get-tuple-element(%conv), index=0
  %fusion.1 = f32[2,4]{1,0} fusion(%out, /*index=1*/%y), kind=kLoop, calls=%fused
  %copy-start = (f32[2,4]{1,0}, f32[2,4]{1,0}, u32[]) copy-start(%fusion.1)
  %copy-done = f32[2,4]{1,0} copy-done(%copy-start)
  %again = f32[8]{0} bitcast(%copy-done)
  %loop = (s32[], f32[8]{0}) tuple(%flag, %again)
  %while.1 = (s32[], f32[8]{0}) while(%loop), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %last = f32[8]{0} get-tuple-element(%while.1), index=1
  %choice = f32[8]{0} conditional(%flag, %last, %last), branch_computations={%less, %more}
  ROOT %called = f32[8]{0} call(%choice), to_apply=%less
}
"""


def test_traffic_of_a_gpus_program_counted_by_hand(ceilings):
    program = ceilings.Program(PROGRAM)
    convolution, fusion, copy = 32 + 32 + 16, 32 + 32 + 16, 32 + 32 + 4
    loop, branch, call = 5 * ((32 + 32) + (1 + 4)), 2 * (32 + 32), 32 + 32
    assert program.traffic() == convolution + fusion + copy + loop + branch + call
    assert program.scope("conv") == "jit(step)/Conv_0/conv"
    assert program.scope("fusion.1") == "jit(step)/Conv_1/add"  # of what it ends with
    assert program.scope("fusion_1") == "jit(step)/Conv_1/add"  # the kernel's name
    assert program.scope("while.1") == program.scope("nothing") == ""


def test_a_text_that_is_no_program_is_refused(ceilings):
    with pytest.raises(ValueError, match="no ENTRY"):
        ceilings.Program("module @jit_step {}")


def test_what_a_device_does_at_best(ceilings, monkeypatch):
    monkeypatch.setitem(ceilings.SIZES, jax.default_backend(), (128, 1))
    operations, bandwidth = ceilings.limits("float32")
    assert operations > 1e7 and bandwidth > 1e6
