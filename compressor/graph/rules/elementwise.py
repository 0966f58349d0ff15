"""Give the equations of element-wise operators: out has the operands' dimensions, broadcast."""

from dataclasses import replace

from compressor.graph.rules.call import Call, Equations, Rule, broadcast, same_where_sized, table
from compressor.graph.rules.facts import KEEPS_ZEROS


def elementwise(call: Call) -> Equations:
    """Element by element: out = f(a, b, ...), dimension by dimension the same, size 1 stretched."""
    equations = broadcast(call.tensors, call.outputs[0])
    return replace(equations, keeps_zeros=True) if call.op in KEEPS_ZEROS else equations


def like_first(call: Call) -> Equations:
    """Copies: out has the first operand's dimensions; further operands only lend type or device."""
    outputs = tuple(call.x for _ in call.outputs)
    return Equations(outputs, keeps_zeros=call.op in KEEPS_ZEROS)


def prelu(call: Call) -> Equations:
    """PReLU: out = x; weight ~ x[1] where it has one slope per channel."""
    weight = call["weight"]
    channels = call.x[1:2] if len(call.x) > 1 else call.x
    return Equations((call.x,), same_where_sized(weight, channels))


def nothing(call: Call) -> Equations:
    """Checks and metadata: there is no result that holds data, so no equation."""
    return Equations()


UNARY = """
abs acos acosh alias asin atan bernoulli bernoulli.p bitwise_not ceil celu clamp clamp_max
clamp_min clone contiguous cos cosh deg2rad detach detach_copy dropout elu erf erfc exp exp2 expm1
feature_alpha_dropout feature_dropout alpha_dropout floor frac gelu hardshrink hardsigmoid
hardswish hardtanh isfinite isinf isnan leaky_relu lift_fresh_copy log log10 log1p log2
log_sigmoid logical_not logit mish nan_to_num neg positive pow.Tensor_Scalar pow.Scalar reciprocal
relu relu6 round round.decimals rrelu rsqrt selu sigmoid sign silu sin sinh softplus softshrink
sqrt square tan tanh threshold trunc add.Scalar sub.Scalar mul.Scalar div.Scalar rsub.Scalar
remainder.Scalar fmod.Scalar eq.Scalar ne.Scalar gt.Scalar ge.Scalar lt.Scalar le.Scalar
bitwise_and.Scalar bitwise_or.Scalar floor_divide.Scalar fill.Scalar zero
absolute angle clip multiply.Scalar divide.Scalar subtract.Scalar true_divide.Scalar real
resolve_conj sinc special_expit special_erf greater.Scalar greater_equal.Scalar less.Scalar
less_equal.Scalar not_equal.Scalar
arccos arccosh arcsin arcsinh arctan arctanh asinh atanh
bitwise_xor.Scalar conj conj_physical _conj _conj_physical copysign.Scalar digamma div.Scalar_mode
divide.Scalar_mode erfinv fix float_power.Scalar float_power.Tensor_Scalar i0 imag
isneginf isposinf isreal lgamma mvlgamma negative polygamma rad2deg resolve_neg
sgn signbit special_digamma special_entr special_erfc special_erfcx special_erfinv
special_exp2 special_expm1 special_gammaln special_i0 special_i0e special_i1 special_i1e
special_log1p special_log_ndtr special_logit special_ndtr special_ndtri special_polygamma
special_psi special_round special_sinc xlogy.Scalar_Other xlogy.Scalar_Self
__and__.Scalar __or__.Scalar __xor__.Scalar __lshift__.Scalar __rshift__.Scalar
bitwise_and.Scalar_Tensor bitwise_or.Scalar_Tensor bitwise_xor.Scalar_Tensor
bitwise_left_shift.Tensor_Scalar bitwise_left_shift.Scalar_Tensor
bitwise_right_shift.Tensor_Scalar bitwise_right_shift.Scalar_Tensor remainder.Scalar_Tensor
isin.Tensor_Scalar
"""

UNARY_IN_PLACE = """
abs_ add_.Scalar ceil_ celu_ clamp_ clamp_max_ clamp_min_ cos_ div_.Scalar dropout_ elu_ erf_ exp_
feature_dropout_ fill_.Scalar floor_ gelu_ hardsigmoid_ hardswish_ hardtanh_ leaky_relu_ log_
masked_fill_.Scalar mish_ mul_.Scalar neg_ pow_.Scalar reciprocal_ relu_ relu6_ round_ rsqrt_
selu_ sigmoid_ silu_ sin_ sqrt_ square_ sub_.Scalar tanh_ threshold_ zero_ detach_ lift_fresh
alpha_dropout_ normal_ uniform_ bernoulli_.float
absolute_ acos_ arccos_ arcsin_ arctan_ asin_ asinh_ atan_ atanh_ bitwise_not_ clip_
conj_physical_ cosh_ deg2rad_ digamma_ div_.Scalar_mode divide_.Scalar erfc_ erfinv_ exp2_ expm1_
eq_.Scalar exponential_ feature_alpha_dropout_ float_power_.Scalar floor_divide_.Scalar
fmod_.Scalar frac_ ge_.Scalar gt_.Scalar i0_ le_.Scalar lgamma_ log10_ log1p_ log2_ logical_not_
logit_ lt_.Scalar multiply_.Scalar nan_to_num_ ne_.Scalar negative_ rad2deg_ remainder_.Scalar
round_.decimals rrelu_ sgn_ sign_ sinc_ sinh_ subtract_.Scalar tan_ true_divide_.Scalar trunc_
__iand__.Scalar __ior__.Scalar __ixor__.Scalar __ilshift__.Scalar __irshift__.Scalar
bitwise_and_.Scalar bitwise_or_.Scalar bitwise_xor_.Scalar bitwise_left_shift_.Tensor_Scalar
bitwise_right_shift_.Tensor_Scalar
"""

LIKE_FIRST = """
to.dtype to.device to.dtype_layout to.other _to_copy type_as zeros_like ones_like full_like
empty_like rand_like randn_like native_dropout frexp.Tensor fill.Tensor fill_.Tensor
"""

BROADCASTING = """
add.Tensor sub.Tensor mul.Tensor div.Tensor div.Tensor_mode rsub.Tensor pow.Tensor_Tensor atan2
maximum minimum max.other min.other fmax fmin fmod.Tensor remainder.Tensor floor_divide
true_divide.Tensor eq.Tensor ne.Tensor gt.Tensor ge.Tensor lt.Tensor le.Tensor logical_and
logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor where.self
where.ScalarSelf where.ScalarOther where.Scalar masked_fill.Scalar masked_fill.Tensor clamp.Tensor
lerp.Tensor lerp.Scalar addcmul addcdiv xlogy.Tensor hypot copysign.Tensor clamp_min.Tensor
clamp_max.Tensor add_.Tensor sub_.Tensor mul_.Tensor div_.Tensor masked_fill_.Tensor copy_ copy
pow_.Tensor multiply.Tensor divide.Tensor subtract.Tensor greater.Tensor greater_equal.Tensor
less.Tensor less_equal.Tensor not_equal.Tensor logaddexp polar complex addcmul_ addcdiv_
lerp_.Tensor lerp_.Scalar logical_and_ logical_or_ maximum.out
__and__.Tensor __or__.Tensor __xor__.Tensor __lshift__.Tensor __rshift__.Tensor
__iand__.Tensor __ior__.Tensor __ixor__.Tensor __ilshift__.Tensor __irshift__.Tensor
bitwise_and_.Tensor bitwise_or_.Tensor bitwise_xor_.Tensor bitwise_left_shift.Tensor
bitwise_left_shift_.Tensor bitwise_right_shift.Tensor bitwise_right_shift_.Tensor
arctan2 arctan2_ atan2_ clamp_.Tensor clamp_max_.Tensor clamp_min_.Tensor clip.Tensor clip_.Tensor
div_.Tensor_mode divide.Tensor_mode divide_.Tensor eq_.Tensor float_power.Tensor_Tensor
float_power_.Tensor floor_divide_.Tensor fmod_.Tensor gcd ge_.Tensor gt_.Tensor heaviside hypot_
igamma igammac isclose lcm ldexp.Tensor le_.Tensor logaddexp2 logical_xor_ lt_.Tensor
multiply_.Tensor ne_.Tensor nextafter remainder_.Tensor special_xlog1py special_xlogy special_zeta
subtract_.Tensor true_divide_.Tensor xlogy_.Tensor
"""

METADATA = """
_assert_tensor_metadata _assert_async _assert_async.msg _assert_scalar sym_constrain_range
sym_constrain_range_for_size sym_size.int sym_numel sym_stride.int
"""

RULES: dict[str, Rule] = {
    **table(elementwise, UNARY),
    **table(elementwise, UNARY_IN_PLACE),
    **table(elementwise, BROADCASTING),
    **table(like_first, LIKE_FIRST),
    **table(prelu, "prelu"),
    **table(nothing, METADATA),
}
