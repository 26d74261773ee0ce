"""Which operators a graph may use, as data: those that SAM 3's graphs use and their plain neighbours.

Everything else is refused: control flow (an endless Loop), strings, random numbers, sequences, what trains or
quantises, and whatever another domain brings.
"""

from __future__ import annotations

REASONS: dict[str, str] = {
    "arithmetic, value by value": "Abs Add Ceil Clip Cos Div Erf Exp Floor Log Max Mean Min Mod Mul Neg Pow Reciprocal"
    " Round Sign Sin Sqrt Sub Sum Tan Tanh",
    "comparison and choice, value by value": "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or"
    " Where Xor",
    "activations, value by value": "Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid"
    " Softmax Softplus Softsign",
    "layers: their cost is bounded by the shapes of weights and input": "Attention AveragePool BatchNormalization Conv"
    " ConvTranspose Einsum Gemm GlobalAveragePool GroupNormalization InstanceNormalization LayerNormalization"
    " LpNormalization MatMul MaxPool RMSNormalization RotaryEmbedding",
    "moves values, never more of them than its inputs have": "Cast CastLike Concat DepthToSpace Flatten Identity"
    " Reshape Slice SpaceToDepth Split Squeeze Transpose Trilu Unsqueeze",
    "picks values": "ArgMax ArgMin Gather GatherElements GatherND GridSample OneHot ScatterElements ScatterND TopK",
    "adds up values": "CumSum ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum"
    " ReduceSumSquare",
    "makes values from a few numbers: allowed while the size is known and under the cap": "Constant ConstantOfShape"
    " Expand EyeLike Pad Range Resize Tile",
    "answers with a shape": "Shape Size",
}
ALLOWED: dict[str, str] = {operator: reason for reason, names in REASONS.items() for operator in names.split()}
SHAPE_OF_FIRST_INPUT = frozenset({"GroupNormalization"})
"""onnx can't infer these; their output has their first input's type and shape."""
SIZE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
         "ReduceSumSquare"), (1,),
    ),
}  # fmt: skip
"""Inputs whose values decide how large the output becomes: they must follow from constants and the input's shape."""
_COMPUTED = """
    Abs Add Cast Ceil Concat Constant ConstantOfShape Div Equal Expand Floor Gather Greater GreaterOrEqual Identity Less
    LessOrEqual Max Min Mod Mul Neg Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape Slice Sqrt Squeeze Sub
    Transpose Unsqueeze Where
"""
SIZE_ARITHMETIC = frozenset(_COMPUTED.split())
"""What graphs compute sizes with: done here too, on a few numbers at a time."""
FIRST_OPSET, LAST_OPSET = 18, 24
"""Of the default domain: what the list above was drawn up for."""
