"""The ONNX graph for a strongly typed compiler: every tensor has the type in which it is computed.

TensorRT chooses no types by itself, so ``fp16`` and ``bf16`` are written into the graph: a cast where a float32 tensor
enters the narrow part, a cast where it leaves, and weights converted once, here.

Only the decoder is narrow: from the first up-sampling to just before the last convolutions. The encoder amplifies its
own rounding, and the last convolution turns its input into the colour itself. p99.9 CIEDE2000 between the shipped
default and float32, on 36 tiles of 256 px from tests/scans, with each operation's result rounded, and the share of
narrow multiplications:

    fp16, last convolution in float32          0.24    87 %
    bf16, last convolution in float32          1.95    87 %
    bf16, last two convolutions in float32     0.22    71 %

So bfloat16, with 3 bits less, must keep the last two in float32: nearly all of its error is rounding of the last one's
input. A compiler that is not strongly typed hides this, because it passes on its float32 sums there. General converters
(onnxconverter-common, ModelOpt's AutoCast) decide per node by name or range, not by this rule, and do not support
bfloat16 or depend on torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import ModelError

UPSAMPLING = frozenset({"Resize", "Upsample", "ConvTranspose", "DepthToSpace"})
CONVOLUTION = frozenset({"Conv", "ConvTranspose"})
# ONNX's name of the type, and the number of last convolutions that stay float32.
NARROW = {"fp16": ("FLOAT16", 1), "bf16": ("BFLOAT16", 2)}


def typed_graph(path: Path, precision: str) -> bytes:
    """The model of ``path`` as serialized ONNX whose tensors have the types of ``precision``.

    ``fp32`` and ``int8`` keep the file's own types; weights stored in float16 are widened, which is exact, and biases
    stored as scaled int32 are multiplied out. A graph without up-sampling has no narrow part and stays float32.

    Raises
    ------
    ModelError : not an ONNX file, or it cannot be narrowed. ImportError : no onnx.
    """
    import onnx

    with _preparing(path, precision):
        model = onnx.load(path)
        _refuse_uint8(model.graph, path)
        return _typed(model, precision, _narrow_nodes)


def typed_row(paths: Sequence[Path], precision: str) -> bytes:
    """A palette network's files, each of which takes the output of the previous one, as one typed graph.

    In ``fp16`` and ``bf16`` its matrix products are narrow, which are nearly all of its arithmetic; sums of their
    results, normalization and softmax stay float32.

    Raises
    ------
    ModelError : not ONNX files, or their inputs and outputs do not match. ImportError : no onnx.
    """
    import onnx

    with _preparing(paths[-1], precision):
        model = onnx.load(paths[0])
        for number, path in enumerate(paths[1:]):
            following = onnx.compose.add_prefix(onnx.load(path), f"{number}/")
            ends = [(model.graph.output[0].name, following.graph.input[0].name)]
            model = onnx.compose.merge_models(model, following, ends)
        return _typed(model, precision, lambda graph, _: _products(graph))


def _typed(model: Any, precision: str, narrow_part: Callable[[Any, int], dict[int, Any]]) -> bytes:
    """The graph with widened weights and, if ``precision`` is narrow, with its narrow part converted."""
    from onnx import TensorProto

    _widen_weights(model.graph)
    if precision in NARROW:
        name, wide_at_end = NARROW[precision]
        _narrow(model, int(getattr(TensorProto, name)), narrow_part(model.graph, wide_at_end))
    return bytes(model.SerializeToString())


def _products(graph: Any) -> dict[int, Any]:
    return {i: node for i, node in enumerate(graph.node) if node.op_type == "MatMul"}


@contextlib.contextmanager
def _preparing(path: Path, precision: str) -> Iterator[None]:
    """Turn any error about ``path`` into a ModelError of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # protobuf, the checker and the schemas each have their own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: cannot be prepared for {precision} ({reason}); export the model again") from error


def _refuse_uint8(graph: Any, path: Path) -> None:
    """Refuse uint8: compilers support only int8 around zero, and clip uint8 values above 127 with a mere warning."""
    from onnx import TensorProto

    types = {weight.name: weight.data_type for weight in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        # Without a zero point and a type, the standard default is uint8.
        untyped = (
            node.op_type == "QuantizeLinear"
            and len(node.input) < 3
            and all(attribute.name != "output_dtype" for attribute in node.attribute)
        )
        if untyped or (len(node.input) > 2 and types.get(node.input[2]) == TensorProto.UINT8):
            raise ModelError(
                f"{path}: {node.input[0]} is quantized to uint8, the GPU libraries compute with int8 around zero only: "
                "colours would be cut; quantize it symmetrically"
            )


def _widen_weights(graph: Any) -> None:
    """Replace each Cast of a weight, and each scaled int32 bias, by a float32 weight: convolutions need constants."""
    from onnx import TensorProto, numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    for node in [n for n in graph.node if n.input and n.input[0] in weights]:
        values = numpy_helper.to_array(weights[node.input[0]])
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            wide = values.astype(np.float32)
        elif node.op_type == "DequantizeLinear" and values.dtype == np.int32 and node.input[1] in weights:
            wide = values.astype(np.float32) * numpy_helper.to_array(weights[node.input[1]])
        else:
            continue
        graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
        graph.node.remove(node)
    _drop_unused_weights(graph)


def _drop_unused_weights(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    for weight in [w for w in graph.initializer if w.name not in used]:
        graph.initializer.remove(weight)


def _narrow_nodes(graph: Any, wide_at_end: int) -> dict[int, Any]:
    """By index: nodes that depend on the first up-sampling and precede the last convolutions; ONNX sorts its nodes."""
    first = next((i for i, node in enumerate(graph.node) if node.op_type in UPSAMPLING), len(graph.node))
    last = [0, *(i for i, node in enumerate(graph.node) if node.op_type in CONVOLUTION)][-wide_at_end:][0]
    nodes: dict[int, Any] = {}
    reached: set[str] = set()
    for i, node in enumerate(graph.node[first:last], first):
        if i == first or reached & set(node.input):
            nodes[i] = node
            reached |= set(node.output)
    return nodes


def _narrow(model: Any, narrow: int, nodes: dict[int, Any]) -> None:
    """Rewrite the narrow part, ``nodes`` by index, in place.

    Tensor ``x`` becomes ``x.narrow`` there, with casts at the borders.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.input, *inferred.output]}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    available: set[str] = set()  # x of every x.narrow
    cast_before: dict[int, list[Any]] = {}
    for index, node in nodes.items():
        values = [i for i in _values(node, opset) if types.get(node.input[i]) == TensorProto.FLOAT]
        for i in values:
            name = node.input[i]
            if name not in available:
                if not _narrowed_constant(graph, name, narrow):
                    cast = helper.make_node("Cast", [name], [f"{name}.narrow"], f"{name}.narrow", to=narrow)
                    cast_before.setdefault(index, []).append(cast)
                available.add(name)
            node.input[i] = f"{name}.narrow"
        for i, name in enumerate(node.output if values else []):
            node.output[i] = f"{name}.narrow"
            available.add(name)
    _place_casts(graph, nodes, cast_before)
    del graph.value_info[:]  # the exporter's record of the old types
    _drop_unused_weights(graph)


def _values(node: Any, opset: int) -> list[int]:
    """Indices of the inputs with the type of the output: not, for example, a Resize's scales, which are float32."""
    from onnx import defs

    schema = defs.get_schema(node.op_type, opset, node.domain)
    formal, output = schema.inputs, schema.outputs[0].type_str
    kinds = [formal[min(i, len(formal) - 1)].type_str for i in range(len(node.input))]
    return [i for i, kind in enumerate(kinds) if kind == output and node.input[i]]


def _narrowed_constant(graph: Any, name: str, narrow: int) -> bool:
    """Add ``name.narrow`` if ``name`` is a weight. Returns whether it is. Raises ModelError if a value does not fit."""
    from onnx import helper, numpy_helper

    weight = next((w for w in graph.initializer if w.name == name), None)
    if weight is None:
        return False
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        narrowed = values.astype(helper.tensor_dtype_to_np_dtype(narrow))
    if not np.isfinite(narrowed.astype(np.float32)).all():
        raise ModelError(
            f"weight {name}: {np.abs(values).max():g} does not fit float16, colours would be lost; use bf16"
        )
    graph.initializer.append(numpy_helper.from_array(narrowed, f"{name}.narrow"))
    return True


def _place_casts(graph: Any, nodes: dict[int, Any], cast_before: dict[int, list[Any]]) -> None:
    """Rebuild the list of nodes, with casts before their first use and casts to float32 after outputs used outside."""
    from onnx import TensorProto, helper

    # Inputs within the narrow part are x.narrow by now; whatever still reads x needs float32.
    wanted = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    ordered = []
    for index, node in enumerate(graph.node):
        ordered += [*cast_before.get(index, []), node]
        for name in node.output if index in nodes else []:
            wide = name.removesuffix(".narrow")
            if wide != name and wide in wanted:
                ordered.append(helper.make_node("Cast", [name], [wide], f"{wide}.wide", to=TensorProto.FLOAT))
    # Copy the nodes, because clearing the list that owns them would clear them too.
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
