"""Building an engine of TensorRT or TensorRT for RTX from ONNX.

Networks are strongly typed (engines/convert/typed_graph.py writes the types) and TF32 is off. The builder is told to
use identical operations at each position of a batch, so that a tile's bytes do not depend on its neighbours. NVIDIA
documents that for products and reductions, not for convolutions, so a test on a GPU checks it.
"""

from __future__ import annotations

from typing import Any

from engines.backends._tensorrt_library import Library, device, first_complaint, logger, shortened
from engines.convert.typed_graph import typed_graph, typed_row
from engines.errors import ModelError
from engines.spec import GENERATOR, EngineSpec, Model

# Incremented when another network is built from the same model, here or in engines/convert/typed_graph.py.
RECIPE = 2
_timings: dict[str, bytes] = {}


def build(library: Library, model: Model, spec: EngineSpec) -> bytes:
    """A serialized engine for batches of 1 to ``spec.batch`` tiles of ``spec.tile_yx``, fastest at the full batch.

    Raises
    ------
    ModelError : the library cannot build it; the message is its first error. EngineUnavailableError : no GPU, if the
    library needs one to build. ImportError : no library, or no onnx.
    """
    device(library)
    paths = model.files_for(spec.precision)
    path = paths[-1]
    graph = typed_graph(path, spec.precision) if spec.network == GENERATOR else typed_row(paths, spec.precision)
    with first_complaint(library) as complaint:
        builder, network = parsed(library, graph, str(path), model.output_shape(spec.tile_yx)[0])
        config = configured(library, builder, network, spec)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ModelError(
                f"{path}: {library.name} cannot build it for {spec.batch} tiles of {spec.tile_yx[0]}x{spec.tile_yx[1]} "
                f"in {spec.precision} ({complaint()}); use another precision or engine"
            )
        if not library.portable:
            _timings[library.module] = bytes(config.get_timing_cache().serialize())
    return bytes(plan)


def parsed(library: Library, graph: bytes, source: str, planes: int = 2) -> tuple[Any, Any]:
    """The library's builder and its network for an ONNX ``graph`` with ``planes`` output planes per tile.

    Raises ModelError with the parser's first error.
    """
    trt = library.load()
    log = logger(library)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        first = parser.get_error(0) if parser.num_errors else None
        reason = (
            shortened(f"{first.node_operator()} {first.node_name()}: {first.desc()}") if first else "no reason given"
        )
        raise ModelError(f"{source}: {library.name} cannot read it ({reason}); use another engine")
    tensors = [*map(network.get_input, range(network.num_inputs)), *map(network.get_output, range(network.num_outputs))]
    found = [(len(tensor.shape), tuple(tensor.shape)[1:2], tensor.dtype) for tensor in tensors]
    if found not in [[(4, (channels,), trt.float32), (4, (planes,), trt.float32)] for channels in (1, 3)]:
        raise ModelError(
            f"{source}: input and output are {', '.join(f'{t.name} {tuple(t.shape)} {t.dtype}' for t in tensors)}, not "
            f"(N, 1 or 3, T, U) and (N, {planes}, T, U) of float32: tiles could not be given to it; "
            "export the model again"
        )
    return builder, network


def configured(library: Library, builder: Any, network: Any, spec: EngineSpec) -> Any:
    trt = library.load()
    config = builder.create_builder_config()
    # TF32 rounds float32 to 10 bits before multiplying: no closer to the other engines than fp16.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE)
    tile = network.get_input(0)
    full = (spec.batch, tile.shape[1], *spec.tile_yx)
    smallest = (1 if tile.shape[0] < 0 else spec.batch, *full[1:])
    if any(fixed not in (-1, asked) for fixed, asked in zip(tile.shape, full, strict=True)):
        raise ModelError(
            f"batch of {full}: the model takes {tuple(tile.shape)} only, others would be cut; "
            "give its --tile and --batch, or export it with free sizes"
        )
    profile = builder.create_optimization_profile()
    profile.set_shape(tile.name, smallest, full, full)
    config.add_optimization_profile(profile)
    if not library.portable:
        config.set_timing_cache(config.create_timing_cache(_timings.get(library.module, b"")), ignore_mismatch=False)
    return config
