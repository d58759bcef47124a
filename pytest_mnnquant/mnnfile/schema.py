"""Names of operators, parameter unions and data types, by their numbers in a `.mnn` file.

From MNN 3.6.1, `schema/default/*.fbs`. MNN only appends to these lists; an unknown number is shown as a number.
"""

from __future__ import annotations

from typing import Final

# fmt: off
OP_NAMES: Final[dict[int, str]] = {
    0: "AbsVal", 1: "QuantizedAdd", 2: "ArgMax", 3: "AsString", 4: "InstanceNorm", 5: "BatchToSpaceND",
    6: "Copy", 7: "BinaryOp", 8: "Bnll", 9: "Cast", 10: "Concat", 11: "Const", 12: "Convolution",
    13: "ConvolutionDepthwise", 14: "Crop", 15: "CropAndResize", 16: "ImageProcess", 17: "Deconvolution",
    18: "DeconvolutionDepthwise", 19: "Dequantize", 20: "DetectionOutput", 21: "Dropout", 22: "Eltwise",
    23: "ELU", 24: "Unique", 25: "Exp", 26: "ExpandDims", 27: "Fill", 28: "Flatten", 29: "Im2Col",
    30: "Gather", 31: "GatherV2", 32: "Im2Seq", 33: "InnerProduct", 34: "Input", 35: "Interp", 36: "Log",
    37: "LRN", 38: "LSTM", 39: "MatMul", 40: "MoE", 41: "NonMaxSuppression", 42: "NonMaxSuppressionV2",
    43: "Normalize", 44: "Pack", 45: "Padding", 46: "Permute", 47: "Pooling", 48: "Power", 49: "PReLU",
    50: "PriorBox", 51: "Proposal", 52: "QuantizedAvgPool", 53: "QuantizedBiasAdd", 54: "QuantizedConcat",
    55: "QuantizedDepthwiseConv2D", 56: "QuantizedLogistic", 57: "RasterAndInterpolate",
    58: "QuantizedMaxPool", 59: "Texture", 60: "RasterDiff", 61: "QuantizedReshape", 62: "QuantizedSoftmax",
    63: "QuantizeMaxMin", 64: "QuantizeV2", 65: "Range", 66: "Rank", 67: "ReduceJoin", 68: "Reduction",
    69: "ReLU", 70: "ReLU6", 71: "RequantizationRange", 72: "Requantize", 73: "Reshape", 74: "Resize",
    75: "RNN", 76: "ROIPooling", 77: "Scale", 78: "Selu", 79: "Seq2Out", 80: "Shape", 81: "Sigmoid",
    82: "Size", 83: "Slice", 84: "SliceTf", 85: "Softmax", 86: "SpaceToBatchND", 87: "SpatialProduct",
    88: "Col2Im", 89: "Segment", 90: "Squeeze", 91: "StridedSlice", 92: "CastLike", 93: "StringSplit",
    94: "StringToNumber", 95: "TanH", 96: "TfQuantizedConv2D", 97: "Threshold", 98: "Tile", 99: "TopKV2",
    100: "Transpose", 101: "UnaryOp", 102: "Unpack", 103: "Where", 104: "Moments", 105: "RNNSequenceGRU",
    106: "BatchMatMul", 107: "Unsqueeze", 108: "CosineSimilarity", 109: "DepthToSpace", 110: "SpaceToDepth",
    111: "ReverseSequence", 112: "Pooling3D", 113: "Convolution3D", 114: "MatrixBandPart", 115: "GatherND",
    116: "DetectionPostProcess", 117: "UnravelIndex", 118: "ScatterNd", 119: "OneHot", 120: "BroadcastTo",
    121: "Dilation2D", 122: "Interp3D", 128: "Raster", 129: "ConvertTensor", 130: "ArgMin", 131: "LinSpace",
    132: "RandomUniform", 133: "TensorArray", 134: "TensorArraySize", 135: "TensorArrayRead",
    136: "TensorArrayWrite", 137: "TensorArrayGather", 138: "TensorArrayScatter", 139: "TensorArraySplit",
    140: "TensorArrayConcat", 141: "LSTMBlockCell", 142: "Reverse", 143: "ROIAlign", 144: "RandomNormal",
    145: "TensorArrayInsert", 146: "TensorArrayErase", 147: "EyeLike", 148: "CumSum", 149: "Det",
    150: "CumProd", 151: "ScatterElements", 152: "GatherElements", 153: "Svd", 154: "Histogram",
    155: "DynamicQuant", 156: "Stft", 256: "Plugin", 257: "Select", 258: "ZerosLike", 259: "Broastcast",
    260: "SetDiff1D", 261: "ReluGrad", 262: "Identity", 263: "PoolGrad", 264: "SoftmaxGrad",
    265: "Conv2DBackPropFilter", 266: "TrainableParam", 267: "BatchNorm", 268: "ConvTranspose3D",
    269: "ZeroGrad", 299: "Attention", 300: "FmhaV2", 301: "Fmhca", 302: "SeqLen2Spatial", 303: "SplitGeLU",
    304: "GroupNorm", 305: "LinearAttention", 306: "RoPE", 307: "FusedLinear",
    308: "GatedRMSNorm", 512: "Extra", 513: "ConvInt8",
    514: "Int8ToFloat", 515: "DepthwiseConvInt8", 517: "FloatToInt8", 518: "EltwiseInt8", 600: "While",
    601: "If", 603: "LayerNorm", 604: "GridSample",
}

PARAMETER_NAMES: Final[dict[int, str]] = {
    1: "QuantizedAdd", 2: "ArgMax", 3: "AsString", 4: "Axis", 5: "BatchNorm", 6: "BinaryOp", 7: "Blob",
    8: "CastParam", 9: "Convolution2D", 10: "Crop", 11: "CropAndResize", 12: "Dequantize",
    13: "DetectionOutput", 14: "Eltwise", 15: "ExpandDims", 16: "Fill", 17: "Flatten", 18: "Gather",
    19: "GatherV2", 20: "InnerProduct", 21: "Input", 22: "Interp", 23: "LRN", 24: "LSTM", 25: "MatMul",
    26: "NonMaxSuppressionV2", 27: "Normalize", 28: "PackParam", 29: "Permute", 30: "Plugin", 31: "Pool",
    32: "PRelu", 33: "PriorBox", 34: "Proposal", 35: "QuantizedAvgPool", 36: "QuantizedBiasAdd",
    37: "QuantizedConcat", 38: "QuantizedLogistic", 39: "QuantizedMatMul", 40: "QuantizedMaxPool",
    41: "QuantizedRelu", 42: "QuantizedRelu6", 43: "QuantizedReshape", 44: "QuantizedSoftmax",
    45: "QuantizeMaxMin", 46: "QuantizeV2", 47: "Range", 48: "Rank", 49: "ReduceJoin", 50: "ReductionParam",
    51: "Relu", 52: "Relu6", 53: "RequantizationRange", 54: "Requantize", 55: "Reshape", 56: "Resize",
    57: "RoiParameters", 58: "Scale", 59: "Selu", 60: "Size", 61: "Slice", 62: "SliceTf", 63: "SpaceBatch",
    64: "SqueezeParam", 65: "StridedSliceParam", 66: "TensorConvertInfo", 67: "TfQuantizedConv2D",
    68: "TopKV2", 69: "Transpose", 70: "UnaryOp", 71: "MomentsParam", 72: "RNNParam",
    73: "BatchMatMulParam", 74: "QuantizedFloatParam", 75: "DepthSpaceParam", 76: "EltwiseInt8",
    77: "ReverseSequenceParam", 78: "Extra", 79: "Pool3D", 80: "Convolution3D", 81: "ELU",
    82: "DetectionPostProcessParam", 83: "OneHotParam", 84: "PadParam", 85: "WhileParam", 86: "IfParam",
    87: "RandomUniform", 88: "LayerNorm", 89: "TensorArray", 90: "LSTMBlockCell", 91: "GridSample",
    92: "LoopParam", 93: "ImageProcessParam", 94: "CumSum", 95: "GroupNorm", 96: "FmhaV2Param",
    97: "FmhcaParam", 98: "AttentionParam", 99: "StftParam", 100: "LinearAttentionParam", 101: "ShapeParam",
    102: "RoPEParam", 103: "FusedLinearParam",
}

DATA_TYPES: Final[dict[int, str]] = {
    0: "invalid", 1: "float", 2: "double", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
    8: "complex64", 9: "int64", 10: "bool", 11: "qint8", 12: "quint8", 13: "qint32", 14: "bfloat16",
    15: "qint16", 16: "quint16", 17: "uint16", 18: "complex128", 19: "half", 20: "resource", 21: "variant",
}
# fmt: on
